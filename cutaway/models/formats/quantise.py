"""Numbers into ggml's blocks, the reverse of `ggml`.

The kinds of 32 round to the nearest level of a scale that the block's extremes set, as ggml's reference does, to the
bit. Q4_K and Q6_K hold eight and sixteen groups a block, whose scales are themselves quantised; each group's scale (and
minimum) is the best of some twenty that are tried, by the squared error that large weights count more in, as in ggml.

Shapes: N blocks, G groups, W numbers of a group.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cutaway.errors import ConfigError, NonFinite, unknown
from cutaway.models.formats.ggml import BY_NAME

LARGEST = 2.0**28  # what float16 scales can reach in any kind; squares stay finite
TOO_LARGE = (
    "not finite, or too large for the float16 scale of a block; store this tensor as F32, or find out where the NaN, "
    "infinity or huge number comes from"
)
CHUNK = 1 << 17  # numbers at a time: the steps between stay in the processor's cache


def quantise(tensor: Tensor, kind: str) -> Iterator[bytes]:
    """A tensor's numbers as the bytes of a kind, piece by piece, so that no second copy is ever whole in memory.

    Args:
        tensor: of any shape; each row, the last dimension, is cut into blocks.
        kind: one of WRITABLE.

    Raises:
        ConfigError: a kind that cannot be written, or rows that are no whole number of blocks.
        NonFinite: a NaN or an infinity, which blocks cannot hold; also a number too large for float16 scales.
    """
    if kind not in WRITABLE:
        raise ConfigError(unknown("kind to write", str(kind), WRITABLE))
    how, encode = BY_NAME[kind], WRITABLE[kind]
    if tensor.ndim == 0 or tensor.shape[-1] % how.numbers:
        raise ConfigError(
            f"a tensor of shape {tuple(tensor.shape)} cannot be stored as {kind}, "
            f"whose blocks hold {how.numbers} numbers of a row"
        )
    numbers = tensor.detach().cpu().contiguous().view(-1)
    for start in range(0, len(numbers), CHUNK):
        piece = numbers[start : start + CHUNK]
        if encode is None:
            yield piece.to(how.dtype).contiguous().view(torch.uint8).numpy().tobytes()
            continue
        piece = piece.float()
        if not bool(piece.abs().max() < LARGEST):
            raise NonFinite(f"a weight is {TOO_LARGE}")
        yield encode(piece.view(-1, how.numbers)).numpy().tobytes()


def half(scale: Tensor) -> Tensor:
    """(N, 1) float32 -> (N, 2) bytes of float16.

    Raises:
        NonFinite: a number too large for float16.
    """
    stored = scale.to(torch.float16)
    if not bool(stored.isfinite().all()):
        raise NonFinite(f"a weight is {TOO_LARGE}")
    return stored.contiguous().view(torch.uint8)


def worth(stored: Tensor) -> Tensor:
    """(N, 2) bytes of float16 -> (N, 1) float32."""
    return stored.contiguous().view(torch.float16).float()


def inverse(scale: Tensor) -> Tensor:
    """1 / scale, and 0 where that is 0."""
    return torch.where(scale == 0, 0.0, 1 / scale)


def _round(x: Tensor) -> Tensor:
    """To the nearest whole number, halves away from zero."""
    size = x.abs()
    whole = size.floor()
    return (whole + ((size - whole) * 2).floor()).copysign(x)


def _packed(levels: Tensor) -> Tensor:
    """(N, …, 2, W) levels below 16 -> (N, …, W) bytes: the first in the low half, the second in the high one."""
    levels = levels.to(torch.uint8)
    return levels[..., 0, :] | (levels[..., 1, :] << 4)


def _q8_0(x: Tensor) -> Tensor:
    scale = x.abs().amax(dim=1, keepdim=True) / 127
    return pack_q8_0(half(scale), _round(x * inverse(scale)))


def pack_q8_0(scale: Tensor, levels: Tensor) -> Tensor:
    """Bytes of scales (N, 2) and levels -127 … 127 (N, 32), as (N, 34) bytes; so do the others below."""
    return torch.cat((scale, levels.to(torch.int8).view(torch.uint8)), dim=1)


def _q4_0(x: Tensor) -> Tensor:
    scale = x.gather(1, x.abs().argmax(dim=1, keepdim=True)) / -8
    return pack_q4_0(half(scale), (x * inverse(scale) + 8.5).trunc().clamp(0, 15) - 8)


def pack_q4_0(scale: Tensor, levels: Tensor) -> Tensor:
    """Levels -8 … 7."""
    return torch.cat((scale, _packed((levels + 8).view(-1, 2, 16))), dim=1)


def _q4_1(x: Tensor) -> Tensor:
    least = x.amin(dim=1, keepdim=True)
    scale = (x.amax(dim=1, keepdim=True) - least) / 15
    return pack_q4_1(half(scale), half(least), ((x - least) * inverse(scale) + 0.5).trunc().clamp(0, 15))


def pack_q4_1(scale: Tensor, least: Tensor, levels: Tensor) -> Tensor:
    """Levels 0 … 15 above the least number."""
    return torch.cat((scale, least, _packed(levels.view(-1, 2, 16))), dim=1)


def _q5_0(x: Tensor) -> Tensor:
    scale = x.gather(1, x.abs().argmax(dim=1, keepdim=True)) / -16
    return pack_q5_0(half(scale), (x * inverse(scale) + 16.5).trunc().clamp(0, 31) - 16)


def pack_q5_0(scale: Tensor, levels: Tensor) -> Tensor:
    """Levels -16 … 15."""
    levels = (levels + 16).to(torch.uint8)
    fifth = (levels >> 4).view(-1, 4, 8) << torch.arange(8, dtype=torch.uint8)  # a bit of each number
    return torch.cat((scale, fifth.sum(dim=2).to(torch.uint8), _packed((levels & 15).view(-1, 2, 16))), dim=1)


def _q6_k(x: Tensor) -> Tensor:
    scale, steps, width = scales_q6_k(x)
    levels = (x.view(-1, 16, 16) * inverse(width).unsqueeze(-1)).round().clamp(-32, 31)
    return pack_q6_k(scale, steps, levels.flatten(1))


def scales_q6_k(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 256) numbers -> bytes of the scales (N, 2), steps of each group (N, 16), and what its levels are worth."""
    scales = _signed_scales(x.view(-1, 16, 16))  # (N, 16)
    extreme = scales.gather(1, scales.abs().argmax(dim=1, keepdim=True))
    scale = extreme / -128  # (N, 1)
    stored = half(scale)
    steps = (scales * inverse(scale)).round().clamp(-128, 127)
    return stored, steps, worth(stored) * steps


def pack_q6_k(scale: Tensor, steps: Tensor, levels: Tensor) -> Tensor:
    """Levels -32 … 31, of 16 groups."""
    levels = (levels + 32).to(torch.uint8).view(-1, 2, 4, 32)  # halves of a block, quarters of a half
    low = _packed((levels & 15).view(-1, 2, 2, 64))
    high = levels >> 4
    high = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
    return torch.cat((low.flatten(1), high.flatten(1), steps.to(torch.int8).view(torch.uint8), scale), dim=1)


def _signed_scales(groups: Tensor) -> Tensor:
    """(N, G, W) numbers -> (N, G): the best worth of a level, of levels -32 … 31."""
    extreme = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))  # (N, G, 1)
    weight = groups * groups
    best, found = torch.full_like(extreme[..., 0], -1.0), torch.zeros_like(extreme[..., 0])
    for step in range(-9, 10):
        levels = (groups * (-(32 + 0.1 * step) * inverse(extreme))).round_().clamp_(-32, 31)
        weighted = weight * levels
        along, square = (weighted * groups).sum(dim=2), (weighted * levels).sum(dim=2)
        scale = torch.where(square > 0, along / square, 0.0)
        better = along * scale > best
        best, found = torch.where(better, along * scale, best), torch.where(better, scale, found)
    return found


def _q4_k(x: Tensor) -> Tensor:
    halves, steps, falls, width, lift = scales_q4_k(x)
    levels = ((x.view(-1, 8, 32) + lift.unsqueeze(-1)) * inverse(width).unsqueeze(-1)).round().clamp(0, 15)
    return pack_q4_k(halves, steps, falls, levels.flatten(1))


def scales_q4_k(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(N, 256) numbers -> bytes of both scales (N, 4), steps and falls of each group (N, 8), and what they make.

    The last two are what a level is worth and how far below zero the levels begin, (N, 8) each.
    """
    scales, depths = _scales_and_depths(x.view(-1, 8, 32))  # (N, 8), (N, 8)
    scale, depth = scales.amax(dim=1, keepdim=True) / 63, depths.amax(dim=1, keepdim=True) / 63
    halves = torch.cat((half(scale), half(depth)), dim=1)
    steps = (scales * inverse(scale)).round().clamp(0, 63)
    falls = (depths * inverse(depth)).round().clamp(0, 63)
    return halves, steps, falls, worth(halves[:, :2]) * steps, worth(halves[:, 2:]) * falls


def pack_q4_k(halves: Tensor, steps: Tensor, falls: Tensor, levels: Tensor) -> Tensor:
    """Levels 0 … 15, of 8 groups."""
    s, m = steps.to(torch.uint8), falls.to(torch.uint8)
    first = s[:, :4] | ((s[:, 4:] >> 4) << 6)
    second = m[:, :4] | ((m[:, 4:] >> 4) << 6)
    both = (s[:, 4:] & 15) | ((m[:, 4:] & 15) << 4)
    return torch.cat((halves, first, second, both, _packed(levels.view(-1, 4, 2, 32)).flatten(1)), dim=1)


def _scales_and_depths(groups: Tensor) -> tuple[Tensor, Tensor]:
    """(N, G, W) numbers -> (N, G) twice: x is about scale · level - depth, of levels 0 … 15.

    For each scale tried, the levels are fixed and the best scale and depth for them follow by weighted least squares.
    """
    weight = (groups * groups).mean(dim=2, keepdim=True).sqrt() + groups.abs()
    low, high = groups.amin(dim=2, keepdim=True).clamp(max=0), groups.amax(dim=2, keepdim=True)
    span = (high - low).clamp(min=0)
    total, sum_x = weight.sum(dim=2), (weight * groups).sum(dim=2)

    scale, depth = span[..., 0] / 15, -low[..., 0]
    best = torch.full_like(scale, torch.inf)
    for step in range(-1, 21):
        stretch = 15.0 if step < 0 else 14 + 0.1 * step
        levels = ((groups - low) * (stretch * inverse(span))).round_().clamp_(0, 15)
        weighted = weight * levels
        sum_l, sum_l2 = weighted.sum(dim=2), (weighted * levels).sum(dim=2)
        sum_xl = (weighted * groups).sum(dim=2)
        spread = total * sum_l2 - sum_l * sum_l
        tried = torch.where(spread > 0, (total * sum_xl - sum_x * sum_l) / spread, span[..., 0] / 15)
        bottom = torch.where(spread > 0, (sum_l2 * sum_x - sum_l * sum_xl) / spread, low[..., 0])
        # a group that lies above zero altogether has no depth
        above = bottom > 0
        tried = torch.where(above, sum_xl * inverse(sum_l2), tried)
        bottom = torch.where(above, 0.0, bottom)
        off = tried.unsqueeze(-1) * levels + bottom.unsqueeze(-1) - groups
        error = (weight * off * off).sum(dim=2)
        better = (error < best) & (tried >= 0)
        best = torch.where(better, error, best)
        scale, depth = torch.where(better, tried, scale), torch.where(better, -bottom, depth)
    return scale, depth


WRITABLE: dict[str, Callable[[Tensor], Tensor] | None] = {
    "F32": None,
    "F16": None,
    "BF16": None,
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q4_K": _q4_k,
    "Q6_K": _q6_k,
}
