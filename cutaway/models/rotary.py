"""Rotary positions (Su et al. 2021), and the ways to stretch them over longer contexts.

Pairs of channels, i and i + R/2, are turned by an angle that grows with the position; each pair has a rate of its own.
All is computed in float64 and rounded once: float32 angles are already off at position 10,000.

Shapes: B batch, T tokens, D head dim, R channels of a head that are turned.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cutaway.models.config import RotaryScaling

FIRST_TABLE = 2048  # positions computed at first; the table grows when a longer text comes
WIDE = 256  # channels of a head from which on the first table is shorter


class Rotary(nn.Module):
    """Cosines and sines by position.

    Args:
        head_dim: D.
        context: most positions.
        base: of the rates, base ** -(2i / R).
        turned: R; the other channels of a head stay.
        scaling: how the rates are stretched.
    """

    def __init__(
        self, head_dim: int, context: int, base: float, turned: int = 0, scaling: RotaryScaling | None = None
    ) -> None:
        super().__init__()
        self.head_dim, self.context, self.base, self.scaling = head_dim, context, base, scaling
        self.turned = turned or head_dim
        self.table: Tensor
        self.register_buffer("table", torch.empty(2, 0, 1, head_dim), persistent=False)
        if not self.table.is_meta:  # a network of shapes alone computes it when it is given its weights
            self.reset(self._first)

    @property
    def _first(self) -> int:
        """Positions of the first table, which must not cost more because a file states wide heads."""
        return min(FIRST_TABLE, FIRST_TABLE * WIDE // self.head_dim)

    @property
    def _switch(self) -> int:
        """Texts longer than this have rates of their own; the context if none do."""
        if self.scaling is None or self.scaling.kind not in ("dynamic", "longrope"):
            return self.context
        return self.scaling.original_context or self.context

    def reset(self, length: int) -> None:
        """Compute the angles anew, rounded once to the table's dtype, as is right after a change of dtype."""
        self.table = self._angles(min(length, self._switch), 0).to(self.table)

    def restore(self, like: Tensor) -> None:
        """Compute the table in the dtype and on the device of another tensor."""
        self.table = like.new_empty(2, 0, 1, self.head_dim)
        self.reset(self._first)

    def angles(self, length: int) -> Float[Tensor, "2 T 1 D"]:
        """Cosines and signed sines of positions 0 … length - 1 in float64, of a text that is no longer than that."""
        return self._angles(length, length)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Rotary":
        length = self.table.shape[1]
        super()._apply(fn, recurse)
        self.reset(length)
        return self

    def _angles(self, length: int, seen: int) -> Tensor:
        """(2, T, 1, D) float64 cosines and signed sines of positions 0 … length - 1, for a text of `seen` tokens."""
        rates, factor = rotary_rates(self.base, self.turned, self.scaling, self.context, seen)
        angles = torch.outer(torch.arange(length, dtype=torch.float64), rates)  # (T, R/2)
        cos = torch.cat((angles.cos(), angles.cos()), dim=1) * factor
        sin = torch.cat((-angles.sin(), angles.sin()), dim=1) * factor  # signed as `fused.heads` expects
        still = (0, self.head_dim - self.turned)
        cos = nn.functional.pad(cos, still, value=1.0)
        sin = nn.functional.pad(sin, still)
        return torch.stack((cos, sin)).unsqueeze(2)

    def forward(
        self, start: int, end: int, positions: Int[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "*BT 1 D"], Float[Tensor, "*BT 1 D"]]:
        """The cosines and signed sines that turn new tokens.

        Args:
            start: tokens before the new ones.
            end: tokens in all.
            positions: (B, T) int64 of the new tokens where they are not start … end - 1, as with padding.

        Returns:
            (T, 1, D) twice, or (B, T, 1, D) twice.
        """
        table = self.table
        if end > self._switch:
            table = self._angles(end, end).to(table)
        elif end > table.shape[1]:
            self.reset(2 * end)
            table = self.table
        if positions is not None:
            return table[0, positions], table[1, positions]
        return table[0, start:end], table[1, start:end]


def rotary_rates(
    base: float, turned: int, scaling: RotaryScaling | None, context: int, seen: int
) -> tuple[Float[Tensor, " pairs"], float]:
    """How fast each pair of channels turns.

    Args:
        base: of the rates.
        turned: R.
        scaling: how they are stretched.
        context: the config's, which is the original one where the scaling does not say.
        seen: tokens of the text.

    Returns:
        (R/2,) float64 radians a position, and the factor on cosines and sines.
    """
    exponents = torch.arange(0, turned, 2, dtype=torch.float64) / turned
    rates = base**-exponents
    if scaling is None:
        return rates, 1.0
    factor, original = scaling.factor, scaling.original_context or context
    if scaling.kind == "linear":
        return rates / factor, scaling.attention_factor or 1.0
    if scaling.kind == "dynamic":
        if seen > original:
            rates = (base * (factor * seen / original - (factor - 1)) ** (turned / (turned - 2))) ** -exponents
        return rates, scaling.attention_factor or 1.0
    if scaling.kind == "llama3":
        waves = 2 * math.pi / rates
        smooth = (original / waves - scaling.low_factor) / (scaling.high_factor - scaling.low_factor)
        return rates * torch.lerp(torch.ones_like(rates) / factor, torch.ones_like(rates), smooth.clamp(0, 1)), 1.0
    if scaling.kind == "yarn":
        keep = 1 - _ramp(base, turned, scaling, original)
        return rates * (keep + (1 - keep) / factor), scaling.attention_factor or _yarn_attention(factor)
    divisors = torch.tensor(scaling.long if seen > original else scaling.short, dtype=torch.float64)
    stretch = scaling.factor
    sharpen = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    return rates / divisors, scaling.attention_factor or sharpen


def _yarn_attention(factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def _ramp(base: float, turned: int, scaling: RotaryScaling, original: int) -> Tensor:
    """(R/2,) from 0, where a pair turns often within the original context, to 1, where it hardly does."""

    def pair(turns: float) -> float:
        return turned * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, turned - 1)
    width = high - low or 0.001  # a step, where both bounds are one
    return ((torch.arange(turned // 2, dtype=torch.float64) - low) / width).clamp(0, 1)
