"""Write GGUF files, the reverse of `gguf`: metadata and tensors in, a file that is whole or not there."""

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from cutaway.errors import ConfigError, unknown
from cutaway.files import atomic_file
from cutaway.models.formats.ggml import BY_NAME, KINDS, Blocks
from cutaway.models.formats.gguf import ARRAY, BOOL, MAGIC, MOST_DIMENSIONS, NUMBERS, STRING
from cutaway.models.formats.quantise import WRITABLE, quantise

ALIGNMENT, ALIGNMENTS = 32, [2**n for n in range(3, 17)]
LONGEST_NAME = 63  # bytes of a tensor's name that ggml has room for
OF_NUMPY = {np.dtype(form): number for number, form in NUMBERS.items()} | {np.dtype(bool): BOOL}
NUMBER_OF_KIND = {kind.name: number for number, kind in KINDS.items()}


def write_gguf(
    path: str | Path, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[Tensor, str] | Blocks]
) -> None:
    """Write a file; its tensors are encoded one by one as they are written.

    Args:
        path: where to.
        metadata: key -> value. Whole numbers become UINT32, or INT32, UINT64, INT64 where they need it, fractions
            FLOAT32, and lists of them INT32 (INT64) and FLOAT32, as llama.cpp expects; NumPy's scalars and arrays keep
            their type.
        tensors: name -> numbers, of one to four dimensions, and the kind to store them as (one of WRITABLE); or blocks,
            which are written as they are.

    Raises:
        ConfigError: a value or kind that the format cannot hold, or rows that are no whole number of blocks.
        NonFinite: a NaN or an infinity where blocks cannot hold it.
        InputError: the disk is full or the place cannot be written.
    """
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if alignment not in ALIGNMENTS:
        raise ConfigError(f"general.alignment is {alignment!r}; it must be a power of two from 8 to {ALIGNMENTS[-1]:,}")
    head = [MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        head += [_text(key), _value(key, value)]
    offset = 0
    for name, given in tensors.items():
        kind, size = _check(name, given)
        shape = tuple(reversed(size))
        head.append(_text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape))
        head.append(struct.pack("<IQ", NUMBER_OF_KIND[kind], offset))
        offset += _aligned(math.prod(size) // BY_NAME[kind].numbers * BY_NAME[kind].bytes, alignment)
    with atomic_file(Path(path)) as file:
        file.write(b"".join(head))
        _pad(file, alignment)
        for given in tensors.values():
            if isinstance(given, Blocks):
                file.write(given.data.contiguous().numpy().data)
            else:
                for piece in quantise(*given):
                    file.write(piece)
            _pad(file, alignment)


def _aligned(length: int, alignment: int) -> int:
    return -(-length // alignment) * alignment


def _pad(file: BinaryIO, alignment: int) -> None:
    file.write(bytes(-file.tell() % alignment))


def _check(name: str, given: tuple[Tensor, str] | Blocks) -> tuple[str, tuple[int, ...]]:
    """Kind and shape of a tensor."""
    kind, size = (given.kind, given.shape) if isinstance(given, Blocks) else (given[1], tuple(given[0].shape))
    if kind not in (BY_NAME if isinstance(given, Blocks) else WRITABLE):
        raise ConfigError(unknown(f"kind to write {name} as", str(kind), WRITABLE))
    if len(name.encode()) > LONGEST_NAME:
        raise ConfigError(f"a tensor's name has at most {LONGEST_NAME} bytes in a GGUF file, {name!r} has more")
    if not 1 <= len(size) <= MOST_DIMENSIONS or not math.prod(size):
        raise ConfigError(
            f"{name} has shape {size}; a GGUF file holds tensors of 1 to {MOST_DIMENSIONS} dimensions, none of them 0"
        )
    if size[-1] % BY_NAME[kind].numbers:
        raise ConfigError(
            f"{name} has rows of {size[-1]}, but the blocks of {kind} hold {BY_NAME[kind].numbers} numbers; "
            "choose another kind for it"
        )
    return kind, size


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(key: str, value: Any) -> bytes:
    """Type and value."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_text, value))
    data = _numbers(key, value)
    if data.dtype.newbyteorder("=") not in OF_NUMPY or data.ndim > 1:
        raise ConfigError(
            f"{key} = {value!r} cannot be written to a GGUF file; values are numbers, truth values, texts, or lists "
            "of one kind of them"
        )
    kind = OF_NUMPY[data.dtype.newbyteorder("=")]
    little = data.astype(data.dtype.newbyteorder("<")).tobytes()
    if data.ndim:
        return struct.pack("<IIQ", ARRAY, kind, len(data)) + little
    return struct.pack("<I", kind) + little


def _numbers(key: str, value: Any) -> np.ndarray:
    """Python's numbers, or lists of them, with the type that llama.cpp expects."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    single = not isinstance(value, list | tuple)
    items = [value] if single else list(value)
    kinds = {type(item) for item in items}
    if kinds <= {bool} and items:
        form = "?"
    elif kinds <= {int}:
        low, high = min(items, default=0), max(items, default=0)
        ladder = ("I", "i", "Q", "q") if single else ("i", "q", "Q")
        form = next((f for f in ladder if np.iinfo(f).min <= low and high <= np.iinfo(f).max), "O")
    elif kinds <= {int, float}:
        form = "f"
    else:
        form = "O"
    return np.array(value if form == "O" else items[0] if single else items, dtype=form)
