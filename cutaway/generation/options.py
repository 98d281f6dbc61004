"""The options of how the next token is chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cutaway.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen. The steps apply in the order of the fields.

    Raises:
        ConfigError: a number of the wrong type or out of its range; the message gives the range.
    """

    suppress: tuple[int, ...] = ()  # tokens that never come
    logit_bias: dict[int, float] = field(default_factory=dict, hash=False)  # token -> what is added to its logit
    repetition_penalty: float = 1.0  # above 1: tokens of prompt and text become less likely (Keskar et al. 2019, CTRL)
    frequency_penalty: float = 0.0  # taken off a logit each time that its token was written
    presence_penalty: float = 0.0  # taken off once if it was written at all
    temperature: float = 0.8  # divides the logits; 0 takes the likeliest token, and the steps below change nothing
    top_k: int | None = None  # keep the k likeliest
    top_p: float | None = None  # keep the likeliest that together reach p (Holtzman et al. 2020, nucleus)
    min_p: float | None = None  # keep those at least this share of the likeliest (Nguyen et al. 2024)
    typical_p: float | None = None  # keep the most typical that together reach p (Meister et al. 2022)

    def __post_init__(self) -> None:
        for name, least, most, allowed in (
            ("repetition_penalty", 1e-9, 1e9, "above 0 (1 changes nothing)"),
            ("frequency_penalty", -2, 2, "in -2 … 2 (0 changes nothing)"),
            ("presence_penalty", -2, 2, "in -2 … 2 (0 changes nothing)"),
            ("temperature", 0, 1e9, "a number from 0 (always the likeliest token) up"),
            ("top_k", 1, 2**63, "at least 1 and a whole number"),
            ("top_p", 1e-9, 1, "above 0 and at most 1"),
            ("min_p", 0, 1, "in 0 … 1"),
            ("typical_p", 1e-9, 1, "above 0 and at most 1"),
        ):
            value = getattr(self, name)
            if value is None and name in ("top_k", "top_p", "min_p", "typical_p"):
                continue
            kinds = int if name == "top_k" else int | float
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
                raise ConfigError(f"{name} must be {allowed}, but {value!r} was given")
        if not isinstance(self.suppress, tuple | list) or not all(map(_is_id, self.suppress)):
            raise ConfigError(f"suppress must hold token ids, whole numbers from 0 up, but {self.suppress!r} was given")
        if not isinstance(self.logit_bias, Mapping):
            raise ConfigError(f"logit_bias must give token ids numbers, but {self.logit_bias!r} was given")
        for id, bias in self.logit_bias.items():
            good = isinstance(bias, int | float) and not isinstance(bias, bool) and abs(bias) < math.inf
            if not _is_id(id) or not good:
                raise ConfigError(f"logit_bias must give token ids finite numbers, but {id!r}: {bias!r} was given")

    @cached_property
    def penalises(self) -> bool:
        """Whether it matters which tokens were seen."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0

    @cached_property
    def edits(self) -> bool:
        """Whether single logits are changed before the steps that look at all of them."""
        return bool(self.penalises or self.suppress or self.logit_bias)

    def check(self, vocab_size: int) -> None:
        """Check the ids against a vocabulary.

        Raises:
            ConfigError: an id outside the vocabulary, or no token is left.
        """
        if max((*self.suppress, -1)) >= vocab_size or len(set(self.suppress)) == vocab_size:
            raise ConfigError(f"tokens to suppress must lie in 0 … {vocab_size - 1}, and leave one")
        if max((*self.logit_bias, -1)) >= vocab_size:
            raise ConfigError(f"logit_bias must name tokens in 0 … {vocab_size - 1}, not {max(self.logit_bias)}")


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
