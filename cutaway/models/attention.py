"""Attention step by step, as it is computed where somebody looks at its scores or its pattern.

Shapes: B batch, H heads, T queries, S keys, D head dim.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cutaway.models.tap import Tap


def explicit_attention(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B H S D"],
    v: Float[Tensor, "B H S D"],
    tap: Tap,
    *,
    scale: float,
    mask: Bool[Tensor, "... #T S"] | None = None,
    bias: Float[Tensor, "H T S"] | None = None,
    cap: float = 0.0,
) -> Float[Tensor, "B H T D"]:
    """Each query's mean of the values, weighted by its pattern; shows the tap `scores` and `pattern`, (B, H, T, S).

    Args:
        q: queries.
        k: keys, a head's own for each of the query heads.
        v: values, likewise.
        tap: reads or replaces.
        scale: scores are queries times keys times this.
        mask: True where a query sees a key; None: everywhere.
        bias: added to the scores of all texts.
        cap: scores become cap · tanh(scores / cap); 0: they stay.
    """
    scores = q @ k.transpose(-1, -2) * scale  # (B, H, T, S)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return tap("pattern", tap("scores", scores).softmax(dim=-1)) @ v
