"""Masked language modelling (Devlin et al. 2019, BERT): hide some tokens, and guess them from both sides.

Shapes: B batch, T tokens, V vocabulary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.training.losses import IGNORE, cross_entropy


@dataclass(frozen=True)
class Masked:
    """What a network is shown, and where it is asked.

    Attributes:
        ids: (B, T) int64, with the hidden tokens hidden.
        chosen: (B, T) bool, the positions to be guessed.
    """

    ids: Int[Tensor, "B T"]
    chosen: Bool[Tensor, "B T"]


def mask_tokens(
    ids: Int[Tensor, "B T"],
    *,
    mask_id: int,
    vocab_size: int,
    generator: torch.Generator,
    rate: float = 0.15,
    hidden: float = 0.8,
    random: float = 0.1,
    allowed: Bool[Tensor, "B T"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> Masked:
    """Choose tokens to be guessed, and hide most of them.

    Of the chosen, `hidden` become the mask's id and `random` any id, the others stay, so that a network cannot rely on
    the tokens that it sees. Each text has round(rate · its allowed tokens) of them chosen, and at least one.

    Args:
        ids: (B, T) int64.
        mask_id: of the special token that hides.
        vocab_size: V; random ids lie below it.
        generator: draws everything, on the CPU.
        rate: share of the allowed tokens that are chosen.
        hidden: share of the chosen that become the mask.
        random: share of the chosen that become any token.
        allowed: (B, T) bool of the tokens that may be chosen: no padding, no special tokens; None: all.
        starts: (B, T) bool, True where a word begins: then whole words are chosen, in random order until the rate is
            reached, so that the last of them may go beyond it. None: single tokens.

    Raises:
        ConfigError: shares that are not between 0 and 1, or are more than 1 together.
        InputError: a text of which no token may be chosen.
    """
    if not 0 < rate <= 1 or min(hidden, random) < 0 or hidden + random > 1:
        raise ConfigError(
            f"rate must lie in (0, 1], and hidden and random must be 0 or more and at most 1 together, "
            f"but {rate}, {hidden} and {random} were given"
        )
    B, T = ids.shape
    device = ids.device
    allowed = torch.ones_like(ids, dtype=torch.bool) if allowed is None else allowed
    counts = allowed.sum(dim=1)
    if not counts.all():
        raise InputError(f"text {int(counts.argmin())} of {B} has no token that may be chosen; leave it out")
    draws, kinds = torch.rand(2, B, T, generator=generator).to(device)
    if starts is not None:  # all tokens of a word share the draw of its first
        draws = draws.gather(1, starts.cumsum(1).clamp(max=T - 1))
    order = draws.masked_fill(~allowed, 2.0).sort(dim=1, stable=True)
    wanted = (rate * counts).round().clamp(min=1).long()[:, None]
    last = order.values.gather(1, wanted - 1)  # (B, 1), the largest draw that is chosen, and with it its whole word
    chosen = (draws <= last) & allowed
    anything = torch.randint(vocab_size, (B, T), generator=generator).to(device)
    shown = ids.masked_fill(chosen & (kinds < hidden), mask_id)
    shown = torch.where(chosen & (kinds >= hidden) & (kinds < hidden + random), anything, shown)
    return Masked(shown, chosen)


def masked_loss(
    logits: Float[Tensor, "B T V"], ids: Int[Tensor, "B T"], chosen: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean surprise at the chosen tokens, in nats.

    Args:
        logits: (B, T, V) of the network that was shown `Masked.ids`.
        ids: (B, T) int64, as they were.
        chosen: (B, T) bool, where it counts.
    """
    return cross_entropy(logits, ids.masked_fill(~chosen, IGNORE))
