"""How ggml stores numbers: in blocks of 32 or 256, with scales of their own.

The layouts follow ggml's published structures (https://github.com/ggml-org/ggml, ggml-common.h); tests hold the values
against the gguf package, bit for bit.

Shapes: N blocks; a block's numbers lie together.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

# numbers at a time: the steps between stay in the processor's cache, and torch gives each of them to one thread, as it
# does below this bound; threads that wait for each other after every step crawl where other programs compute too
CHUNK = 32_767
PARALLEL = 64  # chunks from which on they are shared among threads


@dataclass(frozen=True)
class Kind:
    """A way to store numbers.

    Attributes:
        name: as ggml has it.
        numbers: in a block.
        bytes: of a block.
        decode: (N, bytes) uint8 -> (N, numbers) float32; None where torch has such numbers.
        dtype: those of torch.
    """

    name: str
    numbers: int
    bytes: int
    decode: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype = torch.float32


def dequantise(data: Tensor, kind: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bytes (n,) of a tensor as its numbers, a view where they are stored in that dtype."""
    how = BY_NAME[kind]
    if how.decode is None:
        aligned = data if data.storage_offset() % how.bytes == 0 else data.clone()
        return aligned.view(how.dtype).to(dtype)
    blocks = data.view(-1, how.bytes)
    numbers = torch.empty(blocks.shape[0], how.numbers, dtype=dtype)
    decode, step = how.decode, CHUNK // how.numbers

    inference = torch.is_inference_mode_enabled()  # a thread does not have it from the one that starts it

    def fill(start: int) -> None:
        with torch.inference_mode(inference):
            numbers[start : start + step] = decode(blocks[start : start + step])

    starts = range(0, blocks.shape[0], step)
    if len(starts) < PARALLEL:
        for start in starts:
            fill(start)
    else:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in pool.map(fill, starts):
                pass
    return numbers.view(-1)


def _half(blocks: Tensor, start: int) -> Tensor:
    """(N, 1) float32 of the float16 at a byte."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def _shifted(data: Tensor, shifts: tuple[int, ...], mask: int) -> Tensor:
    """(N, G, W) bytes, shifted right by each shift: (N, G, shifts, W), masked."""
    by = torch.tensor(shifts, dtype=torch.uint8).view(1, 1, -1, 1)
    return (data.unsqueeze(2) >> by) & mask


def _nibbles(data: Tensor) -> Tensor:
    """(N, 16) bytes -> (N, 32): the low halves, then the high ones."""
    return torch.cat((data & 15, data >> 4), dim=1)


def _fifth_bits(data: Tensor) -> Tensor:
    """(N, 4) bytes, a bit for each number -> (N, 32) of 0 or 16."""
    by = torch.arange(8, dtype=torch.uint8)
    return ((data.unsqueeze(-1) >> by) & 1).flatten(1) << 4


def _q4_0(b: Tensor) -> Tensor:
    return _half(b, 0) * (_nibbles(b[:, 2:]).float() - 8)


def _q4_1(b: Tensor) -> Tensor:
    return (_half(b, 0) * _nibbles(b[:, 4:])).add_(_half(b, 2))


def _q5_0(b: Tensor) -> Tensor:
    return _half(b, 0) * ((_nibbles(b[:, 6:]) | _fifth_bits(b[:, 2:6])).float() - 16)


def _q5_1(b: Tensor) -> Tensor:
    return _half(b, 0) * (_nibbles(b[:, 8:]) | _fifth_bits(b[:, 4:8])) + _half(b, 2)


def _q8_0(b: Tensor) -> Tensor:
    return _half(b, 0) * b[:, 2:].contiguous().view(torch.int8)


def _q2_k(b: Tensor) -> Tensor:
    scales = b[:, :16]
    numbers = _shifted(b[:, 16:80].reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 16, 16)
    scale = (_half(b, 80) * (scales & 15)).unsqueeze(-1)
    least = (_half(b, 82) * (scales >> 4)).unsqueeze(-1)
    return (scale * numbers - least).flatten(1)


def _q3_k(b: Tensor) -> Tensor:
    low = _shifted(b[:, 96:104].reshape(-1, 1, 8), (0, 4), 15).reshape(-1, 16)
    high = _shifted(b[:, 104:108].reshape(-1, 1, 4), (0, 2, 4, 6), 3).reshape(-1, 16)
    scale = _half(b, 108) * ((low | (high << 4)).float() - 32)
    numbers = _shifted(b[:, 32:96].reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 16, 16).float()
    missing = _shifted(b[:, :32].reshape(-1, 1, 32), tuple(range(8)), 1).reshape(-1, 16, 16).float()
    return (scale.unsqueeze(-1) * (numbers - 4 * (1 - missing))).flatten(1)


def _six_bit_scales(data: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 12) bytes -> the 8 scales and the 8 minima of Q4_K and Q5_K, (N, 8, 1) each."""
    first, second, both = data[:, :4], data[:, 4:8], data[:, 8:]
    scale = torch.cat((first & 63, (both & 15) | ((first >> 2) & 48)), dim=1)
    least = torch.cat((second & 63, (both >> 4) | ((second >> 2) & 48)), dim=1)
    return scale.unsqueeze(-1), least.unsqueeze(-1)


def _q4_k(b: Tensor) -> Tensor:
    scale, least = _six_bit_scales(b[:, 4:16])
    numbers = _shifted(b[:, 16:].reshape(-1, 4, 32), (0, 4), 15).reshape(-1, 8, 32)
    d, least = _half(b, 0).unsqueeze(-1) * scale, _half(b, 2).unsqueeze(-1) * least
    return (d * numbers - least).flatten(1)


def _q5_k(b: Tensor) -> Tensor:
    scale, least = _six_bit_scales(b[:, 4:16])
    low = _shifted(b[:, 48:].reshape(-1, 4, 32), (0, 4), 15).reshape(-1, 8, 32)
    high = _shifted(b[:, 16:48].reshape(-1, 1, 32), tuple(range(8)), 1).reshape(-1, 8, 32)
    d, least = _half(b, 0).unsqueeze(-1) * scale, _half(b, 2).unsqueeze(-1) * least
    return (d * (low | (high << 4)) - least).flatten(1)


def _q6_k(b: Tensor) -> Tensor:
    low = _shifted(b[:, :128].reshape(-1, 2, 64), (0, 4), 15).reshape(-1, 8, 32)
    high = _shifted(b[:, 128:192].reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 8, 32)
    numbers = (low | (high << 4)).reshape(-1, 16, 16).float() - 32
    scale = _half(b, 208) * b[:, 192:208].contiguous().view(torch.int8)
    return (scale.unsqueeze(-1) * numbers).flatten(1)


IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
MXFP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # twice the numbers


def _iq4_nl(b: Tensor) -> Tensor:
    return _half(b, 0) * torch.tensor(IQ4_NL, dtype=torch.float32)[_nibbles(b[:, 2:]).long()]


def _mxfp4(b: Tensor) -> Tensor:
    exponent = b[:, :1].to(torch.int32) - 128  # half of 2 ** (e - 127), as the table holds doubles
    scale = torch.ldexp(torch.ones(exponent.shape), exponent)
    return scale * torch.tensor(MXFP4, dtype=torch.float32)[_nibbles(b[:, 1:]).long()]


KINDS = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2, dtype=torch.float16),
    2: Kind("Q4_0", 32, 18, _q4_0),
    3: Kind("Q4_1", 32, 20, _q4_1),
    6: Kind("Q5_0", 32, 22, _q5_0),
    7: Kind("Q5_1", 32, 24, _q5_1),
    8: Kind("Q8_0", 32, 34, _q8_0),
    10: Kind("Q2_K", 256, 84, _q2_k),
    11: Kind("Q3_K", 256, 110, _q3_k),
    12: Kind("Q4_K", 256, 144, _q4_k),
    13: Kind("Q5_K", 256, 176, _q5_k),
    14: Kind("Q6_K", 256, 210, _q6_k),
    20: Kind("IQ4_NL", 32, 18, _iq4_nl),
    30: Kind("BF16", 1, 2, dtype=torch.bfloat16),
    39: Kind("MXFP4", 32, 17, _mxfp4),
}
BY_NAME = {kind.name: kind for kind in KINDS.values()}


@dataclass(frozen=True)
class Blocks:
    """A matrix, or several of one shape, as blocks.

    Attributes:
        kind: how its numbers are stored, such as "Q4_K".
        data: the bytes of each row, (…, N, bytes) uint8.
        dtype: of its numbers once they are dequantised.
    """

    kind: str
    data: UInt8[Tensor, "*S N bytes"]
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its numbers."""
        how = BY_NAME[self.kind]
        return (*self.data.shape[:-1], self.data.shape[-1] // how.bytes * how.numbers)

    def __getitem__(self, which: Any) -> Float[Tensor, "*S C"]:
        """The numbers of some rows, or of one of several matrices."""
        data = self.data[which]
        return dequantise(data.reshape(-1), self.kind, self.dtype).view(*data.shape[:-1], self.shape[-1])

    def numbers(self) -> Float[Tensor, "*S C"]:
        """All of them."""
        return self[...]
