"""From the logits of the next token to the next token.

Shapes: V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, NonFinite


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The steps apply in the order of the fields.

    Raises:
        ConfigError: a number out of its range; the message gives the range.
    """

    repetition_penalty: float = 1.0  # above 1: tokens seen before become less likely (Keskar et al. 2019, CTRL)
    temperature: float = 0.8  # divides the logits; 0 takes the likeliest token
    top_k: int | None = None  # keep the k likeliest
    top_p: float | None = None  # keep the likeliest that together reach p (Holtzman et al. 2020, nucleus)
    min_p: float | None = None  # keep those at least this share of the likeliest (Nguyen et al. 2024)
    suppress: tuple[int, ...] = ()  # tokens that never come (before all the other steps)

    def __post_init__(self) -> None:
        for name, holds, allowed in (
            ("temperature", 0 <= self.temperature < math.inf, "a number from 0 (always the likeliest token) up"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0 (1 changes nothing)"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", self.min_p is None or 0 <= self.min_p <= 1, "in 0 … 1"),
        ):
            if not holds:
                raise ConfigError(f"{name} must be {allowed}, but {getattr(self, name)} was given")


def suppress(logits: Float[Tensor, " V"], ids: Sequence[int]) -> Float[Tensor, " V"]:
    """Logits (V,) with those of `ids` at minus infinity.

    Raises:
        ConfigError: an id outside the vocabulary, or none is left.
    """
    if not all(0 <= id < len(logits) for id in ids) or len(set(ids)) == len(logits):
        raise ConfigError(f"tokens to suppress must lie in 0 … {len(logits) - 1}, and leave one")
    return logits.index_fill(0, torch.tensor(ids, device=logits.device), -math.inf)


def penalise(logits: Float[Tensor, " V"], seen: Sequence[int], penalty: float) -> Float[Tensor, " V"]:
    """Logits (V,) with those of `seen` tokens divided by the penalty if positive, else multiplied by it."""
    if penalty == 1.0 or not seen:
        return logits
    ids = torch.tensor(sorted(set(seen)), device=logits.device)
    values = logits[ids]
    return logits.index_put((ids,), torch.where(values > 0, values / penalty, values * penalty))


def keep_top_k(logits: Float[Tensor, " V"], k: int) -> Float[Tensor, " V"]:
    """Logits (V,) with all below the k-th largest at minus infinity; ties with it stay."""
    if k >= logits.numel():
        return logits
    return logits.masked_fill(logits < logits.topk(k).values[-1], -math.inf)


def keep_top_p(logits: Float[Tensor, " V"], p: float) -> Float[Tensor, " V"]:
    """Logits (V,) with only the smallest set of likeliest tokens left whose probabilities reach p."""
    ordered, places = logits.sort(descending=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # what the likelier ones already hold
    gone = before >= p
    gone[0] = False
    return logits.masked_fill(torch.zeros_like(gone).scatter(0, places, gone), -math.inf)


def keep_min_p(logits: Float[Tensor, " V"], share: float) -> Float[Tensor, " V"]:
    """Logits (V,) without tokens less likely than `share` times the likeliest."""
    if share == 0:
        return logits
    return logits.masked_fill(logits < logits.max() + math.log(share), -math.inf)


def distribution(logits: Float[Tensor, " V"], how: Sampling, seen: Sequence[int] = ()) -> Float[Tensor, " V"]:
    """The probabilities (V,) that the next token is drawn from; temperature 0 puts all on the likeliest.

    Args:
        logits: (V,) float32.
        how: the steps.
        seen: tokens that the repetition penalty applies to.

    Raises:
        NonFinite: a logit is NaN or infinite.
    """
    if not torch.isfinite(logits).all():
        raise NonFinite("a logit of the next token is NaN or infinite: the weights are damaged, or training diverged")
    if how.suppress:
        logits = suppress(logits, how.suppress)
    logits = penalise(logits, seen, how.repetition_penalty)
    if how.temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    logits = logits / how.temperature
    if how.top_k is not None:
        logits = keep_top_k(logits, how.top_k)
    if how.top_p is not None:
        logits = keep_top_p(logits, how.top_p)
    if how.min_p is not None:
        logits = keep_min_p(logits, how.min_p)
    return logits.softmax(-1)


def pick(logits: Float[Tensor, " V"], how: Sampling, seen: Sequence[int], generator: torch.Generator) -> int:
    """Draw one token; at temperature 0 no random number is used."""
    probabilities = distribution(logits, how, seen)
    if how.temperature == 0:
        return int(probabilities.argmax())
    return int(torch.multinomial(probabilities, 1, generator=generator))
