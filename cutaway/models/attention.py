"""Attention step by step, as it is computed where somebody looks at its scores or its pattern.

Shapes: B batch, H heads, T queries, S keys, D head dim.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cutaway.models.tap import Tap


def explicit_pattern(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B H S D"],
    tap: Tap,
    *,
    scale: float,
    mask: Bool[Tensor, "... #T S"] | None = None,
    bias: Float[Tensor, "H T S"] | None = None,
    cap: float = 0.0,
) -> Float[Tensor, "B H T S"]:
    """The weight of each key for each query; shows the tap `scores` and `pattern`, (B, H, T, S).

    Args:
        q: queries.
        k: keys, a head's own for each of the query heads.
        tap: reads or replaces.
        scale: scores are queries times keys times this.
        mask: True where a query sees a key; None: everywhere.
        bias: added to the scores of all texts.
        cap: scores become cap · tanh(scores / cap); 0: they stay.
    """
    scores = q @ k.transpose(-1, -2)  # (B, H, T, S)
    alone = not torch.is_grad_enabled()  # then nobody needs what stood there, and no new memory is asked for
    scores = scores.mul_(scale) if alone else scores * scale
    if cap:
        scores = cap * torch.tanh(scores / cap)
    if bias is not None:
        scores = scores.add_(bias) if alone else scores + bias
    if mask is not None:
        scores = scores.masked_fill_(~mask, -math.inf) if alone else scores.masked_fill(~mask, -math.inf)
    return tap("pattern", tap("scores", scores).softmax(dim=-1))
