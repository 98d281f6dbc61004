"""Replaced-token detection (Clark et al. 2020, ELECTRA): a generator fills gaps, a discriminator finds what it filled.

It learns from every position instead of the hidden 15 %. The generator learns to fill gaps as in masked language
modelling, not to deceive: no gradient passes through what it drew.

Shapes: B batch, T tokens, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cutaway.models import Encoder
from cutaway.training.objectives.masked import Masked, masked_loss

WEIGHT = 50.0  # of the discriminator's loss, in the paper: it is far smaller than the generator's


@dataclass(frozen=True)
class Replaced:
    """What a discriminator is shown, and what it is to find.

    Attributes:
        ids: (B, T) int64, with the gaps filled by a generator.
        replaced: (B, T) bool, where a token is another than it was; False where the generator was right.
    """

    ids: Int[Tensor, "B T"]
    replaced: Bool[Tensor, "B T"]


@torch.no_grad()
def replace_tokens(
    ids: Int[Tensor, "B T"],
    chosen: Bool[Tensor, "B T"],
    logits: Float[Tensor, "B T V"],
    generator: torch.Generator,
) -> Replaced:
    """Fill the chosen positions with what a generator draws.

    Args:
        ids: (B, T) int64, as they were.
        chosen: (B, T) bool, what the generator was asked for.
        logits: (B, T, V), its answer.
        generator: draws, on the CPU.
    """
    noise = torch.rand(logits[chosen].shape, generator=generator, dtype=torch.float64).to(logits.device)
    # the largest of logits plus Gumbel noise is a draw from their softmax; -log(0) is left out by the smallest number
    drawn = (logits[chosen].double() - (-noise.clamp(min=1e-300).log()).log()).argmax(dim=-1)
    filled = ids.masked_scatter(chosen, drawn)
    return Replaced(filled, filled != ids)


def replaced_loss(
    logits: Float[Tensor, "B T"], replaced: Bool[Tensor, "B T"], real: Bool[Tensor, "B T"] | None = None
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy over all tokens but padding, in nats.

    Args:
        logits: (B, T) of having been replaced.
        replaced: (B, T) bool, what is true.
        real: (B, T) bool, False where a token is padding; None: all are real.
    """
    losses = F.binary_cross_entropy_with_logits(logits.float(), replaced.float(), reduction="none")
    return losses.mean() if real is None else losses[real].mean()


def replaced_token_loss(
    generator: Encoder,
    discriminator: Encoder,
    ids: Int[Tensor, "B T"],
    masked: Masked,
    draws: torch.Generator,
    *,
    real: Bool[Tensor, "B T"] | None = None,
    weight: float = WEIGHT,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The loss of both networks together, and its parts.

    Args:
        generator: an encoder with a head for masked_lm, a quarter to half as wide.
        discriminator: one with a head for replaced_token. Both may share their embedding.
        ids: (B, T) int64, as they were.
        masked: what the generator is shown (`mask_tokens`; the paper hides all that it chooses).
        draws: for what the generator answers, on the CPU.
        real: (B, T) bool, False where a token is padding; None: all are real.
        weight: of the discriminator's loss.

    Returns:
        The loss; and "generator" and "discriminator" in nats, "replaced" as a share of the real tokens, and "found" as
        the share of those that the discriminator told right.
    """
    logits = generator(masked.ids, mask=real)
    shown = replace_tokens(ids, masked.chosen, logits, draws)
    judged = discriminator(shown.ids, mask=real)
    first, second = masked_loss(logits, ids, masked.chosen), replaced_loss(judged, shown.replaced, real)
    counted = torch.ones_like(shown.replaced) if real is None else real
    parts = {
        "generator": float(first.detach()),
        "discriminator": float(second.detach()),
        "replaced": float(shown.replaced[counted].float().mean()),
        "found": float(((judged > 0) == shown.replaced)[counted].float().mean()),
    }
    return first + weight * second, parts
