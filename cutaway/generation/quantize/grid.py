"""The levels that a block can hold, apart from the bytes: scales are fitted first, then numbers take their levels.

A number of a group is `worth · level + least`, of whole levels between two bounds; what differs between kinds is how
many numbers share a scale, whether there is a least number, and how both are stored. Everything here uses the scales as
they are stored, rounded to float16 or to six or eight bits.

Shapes: N blocks, W numbers of a block, G groups of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cutaway.models.formats import quantise
from cutaway.models.formats.quantise import half, inverse, worth

SHRINK = 20  # how many stretches of the levels are tried for a group, a hundredth apart


@dataclass(frozen=True)
class Scales:
    """Of N blocks.

    Attributes:
        worth: (N, G) of one level.
        least: (N, G) the number of level 0.
        stored: what a kind packs, beside the levels.
    """

    worth: Float[Tensor, "N G"]
    least: Float[Tensor, "N G"]
    stored: tuple[Tensor, ...]

    def of_column(self, column: int, width: int) -> tuple[Tensor, Tensor]:
        """What a level is worth, and the least number, (N,) each, for one number of every block."""
        return self.worth[:, column // width], self.least[:, column // width]


@dataclass(frozen=True)
class Grid:
    """A kind.

    Attributes:
        kind: its name.
        numbers: of a block.
        width: numbers of a group.
        low: the least level.
        high: the greatest level.
        fit: numbers (N, W), and how much an error in each counts (N, W), to scales.
        pack: what `Scales.stored` holds, and levels (N, W), to bytes.
    """

    kind: str
    numbers: int
    width: int
    low: int
    high: int
    fit: Callable[[Tensor, Tensor], Scales]
    pack: Callable[..., Tensor]

    def levels(self, x: Float[Tensor, "N W"], scales: Scales) -> Float[Tensor, "N W"]:
        """The nearest levels."""
        groups = x.view(len(x), -1, self.width)
        up = (groups - scales.least.unsqueeze(-1)) * inverse(scales.worth).unsqueeze(-1)
        return up.round_().clamp_(self.low, self.high).view_as(x)

    def numbers_of(self, levels: Float[Tensor, "N W"], scales: Scales) -> Float[Tensor, "N W"]:
        """What levels stand for."""
        groups = levels.view(len(levels), -1, self.width)
        return (groups * scales.worth.unsqueeze(-1) + scales.least.unsqueeze(-1)).view_as(levels)

    def bytes_of(self, levels: Float[Tensor, "N W"], scales: Scales) -> UInt8[Tensor, "N bytes"]:
        """As they are stored."""
        return self.pack(*scales.stored, levels)


def _stored(scale: Tensor) -> tuple[Tensor, Tensor]:
    """Bytes (N, 2), and what is read from them (N, 1)."""
    data = half(scale)
    return data, worth(data)


def _symmetric(low: int, high: int, top: int) -> Callable[[Tensor, Tensor], Scales]:
    """Scales without a least number. The number farthest from zero takes a level near `top`.

    Each stretch that is tried fixes the levels, for which the best scale follows by weighted least squares.
    """

    def fit(x: Tensor, weight: Tensor) -> Scales:
        extreme = x.gather(1, x.abs().argmax(dim=1, keepdim=True))
        if high == -low:
            extreme = extreme.abs()
        best = torch.full_like(extreme, torch.inf)
        data, scale = _stored(extreme / top)
        step = 0.1 if abs(top) < 64 else 0.25
        for number in range(-1, SHRINK):
            tried = extreme / top if number < 0 else extreme / (top + (number - SHRINK // 2) * step)
            if number >= 0:
                levels = (x * inverse(tried)).round_().clamp_(low, high)
                weighted = weight * levels
                square = (weighted * levels).sum(dim=1, keepdim=True)
                tried = torch.where(square > 0, (weighted * x).sum(dim=1, keepdim=True) / square, tried)
            stored, value = _stored(tried)
            levels = (x * inverse(value)).round_().clamp_(low, high)
            error = (weight * (levels * value - x) ** 2).sum(dim=1, keepdim=True)
            better = error < best
            best, scale = torch.where(better, error, best), torch.where(better, value, scale)
            data = torch.where(better, stored, data)
        return Scales(scale, torch.zeros_like(scale), (data,))

    return fit


def _fit_q4_1(x: Tensor, weight: Tensor) -> Scales:
    """A scale and a least number, both by weighted least squares for the levels that each stretch fixes."""
    low, high = x.amin(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
    span, total, sum_x = high - low, weight.sum(dim=1, keepdim=True), (weight * x).sum(dim=1, keepdim=True)
    (data, scale), (bottom, least) = _stored(span / 15), _stored(low)
    best = torch.full_like(scale, torch.inf)
    for number in range(-1, SHRINK + 1):
        tried, under = span / 15, low
        if number >= 0:
            stretch = 14 + number / 10
            levels = ((x - low) * inverse(span) * stretch - (stretch - 15) / 2).round_().clamp_(0, 15)
            weighted = weight * levels
            sum_l, sum_l2 = weighted.sum(dim=1, keepdim=True), (weighted * levels).sum(dim=1, keepdim=True)
            sum_xl = (weighted * x).sum(dim=1, keepdim=True)
            spread = total * sum_l2 - sum_l * sum_l
            solved = spread > 1e-12 * total * sum_l2
            tried = torch.where(solved, (total * sum_xl - sum_x * sum_l) / spread, tried)
            under = torch.where(solved, (sum_l2 * sum_x - sum_l * sum_xl) / spread, under)
        (stored, value), (stored_under, value_under) = _stored(tried), _stored(under)
        levels = ((x - value_under) * inverse(value)).round_().clamp_(0, 15)
        error = (weight * (levels * value + value_under - x) ** 2).sum(dim=1, keepdim=True)
        better = (error < best) & (value >= 0)
        best, scale = torch.where(better, error, best), torch.where(better, value, scale)
        least = torch.where(better, value_under, least)
        data, bottom = torch.where(better, stored, data), torch.where(better, stored_under, bottom)
    return Scales(scale, least, (data, bottom))


def _fit_q4_k(x: Tensor, weight: Tensor) -> Scales:
    halves, steps, falls, width, lift = quantise.scales_q4_k(x)
    return Scales(width, -lift, (halves, steps, falls))


def _fit_q6_k(x: Tensor, weight: Tensor) -> Scales:
    scale, steps, width = quantise.scales_q6_k(x)
    return Scales(width, torch.zeros_like(width), (scale, steps))


GRIDS = {
    grid.kind: grid
    for grid in (
        Grid("Q8_0", 32, 32, -127, 127, _symmetric(-127, 127, 127), quantise.pack_q8_0),
        Grid("Q5_0", 32, 32, -16, 15, _symmetric(-16, 15, -16), quantise.pack_q5_0),
        Grid("Q4_0", 32, 32, -8, 7, _symmetric(-8, 7, -8), quantise.pack_q4_0),
        Grid("Q4_1", 32, 32, 0, 15, _fit_q4_1, quantise.pack_q4_1),
        Grid("Q4_K", 256, 32, 0, 15, _fit_q4_k, quantise.pack_q4_k),
        Grid("Q6_K", 256, 16, -32, 31, _fit_q6_k, quantise.pack_q6_k),
    )
}
