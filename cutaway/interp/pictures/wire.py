"""How results travel to a page: a head of JSON, and behind it the numbers of its tensors as they lie in memory.

The bytes are: the length of the head (4 bytes, little endian), the head in UTF-8, blanks up to a multiple of 8, and the
numbers. In the head a tensor is `{"$tensor": {"dtype", "shape", "at"}}`, where `at` is the first byte of its numbers
behind the head, a multiple of 8. Complex numbers are pairs. A tensor that is too large to be sent whole has no `at`: a
page asks for the part of it that it shows (`tile`).

Shapes: R rows, C columns of a picture.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import InputError
from cutaway.interp.results import Result

ALIGNED = 8
WHOLE = 4 * 2**20  # bytes of a tensor that is sent as it is
# what JavaScript has arrays of; everything else becomes one of these
KINDS = {torch.float32: "f4", torch.float64: "f8", torch.int32: "i4", torch.uint8: "u1"}
NEAREST = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.bool: torch.uint8}


def packed(value: Any, *, whole: int = WHOLE) -> bytes:
    """A result, or data that holds results and tensors, as bytes.

    Args:
        value: dataclasses, mappings and lists of what JSON holds, tensors and results.
        whole: bytes of the largest tensor that is sent; of a larger one only its shape is.
    """
    tensors: list[Tensor] = []
    size = 0

    def laid(tensor: Tensor) -> dict[str, Any]:
        nonlocal size
        numbers = _sent(tensor)
        head = {"dtype": KINDS[numbers.dtype], "shape": list(numbers.shape), "at": None}
        bytes_ = numbers.numel() * numbers.element_size()
        if bytes_ <= whole:
            head["at"] = size
            tensors.append(numbers)
            size += bytes_ + -bytes_ % ALIGNED
        return {"$tensor": head}

    head = json.dumps(_plain(value, laid), ensure_ascii=False, allow_nan=False).encode()
    parts = [struct.pack("<I", len(head)), head, b" " * (-(4 + len(head)) % ALIGNED)]
    for tensor in tensors:
        bytes_ = tensor.numpy().tobytes()
        parts += [bytes_, bytes(-len(bytes_) % ALIGNED)]
    return b"".join(parts)


def tile(
    tensor: Tensor, index: tuple[int, ...], rows: int, columns: int, window: Sequence[int] | None = None
) -> Float[Tensor, "R C"]:
    """One matrix of a tensor, shrunk to at most so many rows and columns: each cell is the strongest of what it covers.

    Args:
        tensor: at least two dimensions; the last two are those of the picture.
        index: which of the dimensions before them.
        rows: at the most.
        columns: at the most.
        window: the part of the matrix to show: first row, behind the last one, first column, behind the last one;
            None: all.

    Raises:
        InputError: the index does not fit the tensor, or the window the matrix.
    """
    before = tensor.shape[:-2]
    if tensor.ndim < 2 or len(index) != len(before) or not all(0 <= i < n for i, n in zip(index, before, strict=True)):
        raise InputError(f"a picture of a tensor of shape {tuple(tensor.shape)} is chosen by {len(before)} indices "
                         f"within {tuple(before)}, but {index} was given")  # fmt: skip
    found = tensor[index].float()
    if window is not None:
        top, bottom, left, right = window
        if not (0 <= top < bottom <= found.shape[0] and 0 <= left < right <= found.shape[1]):
            raise InputError(f"the window {tuple(window)} is no part of a picture of {tuple(found.shape)}")
        found = found[top:bottom, left:right]
    for dim, most in ((0, rows), (1, columns)):
        found = _shrunk(found, dim, most)
    return found


def _shrunk(matrix: Tensor, dim: int, most: int) -> Tensor:
    size = matrix.shape[dim]
    if size <= most:
        return matrix
    places = (torch.arange(size, device=matrix.device) * most) // size  # which of the cells each goes into
    shape = list(matrix.shape)
    shape[dim] = most
    spread = places.view([-1 if d == dim else 1 for d in range(matrix.ndim)]).expand_as(matrix)
    high = torch.full(shape, -math.inf, device=matrix.device).scatter_reduce(dim, spread, matrix, "amax")
    low = torch.full(shape, math.inf, device=matrix.device).scatter_reduce(dim, spread, matrix, "amin")
    return torch.where(high.abs() >= low.abs(), high, low)


def _sent(tensor: Tensor) -> Tensor:
    """The same numbers in a kind that JavaScript has."""
    made = tensor.detach().cpu().contiguous()
    if made.is_complex():
        made = torch.view_as_real(made)
    if made.dtype in KINDS:
        return made
    if made.dtype in NEAREST:
        return made.to(NEAREST[made.dtype])
    return made.to(torch.int32 if made.numel() == 0 or int(made.abs().max()) < 2**31 else torch.float64)


@cache
def _shown(kind: type) -> list[str]:
    """Names of the fields that are sent; a ledger has thousands of terms of one kind."""
    return [f.name for f in fields(kind) if f.repr or f.compare]


def _plain(value: Any, laid: Any) -> Any:
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, Tensor):
        return laid(value)
    if isinstance(value, Result):
        return {"picture": value.picture} | _plain(value.data(), laid)
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name), laid) for name in _shown(type(value))}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, laid) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, laid) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
