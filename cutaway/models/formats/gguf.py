"""GGUF files as bytes, metadata and tensors; what a model is, they do not know.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every count, length and offset is checked against
the size of the file before anything of that size is made: the parsers of others were attacked through exactly these.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.models.formats.ggml import KINDS, dequantise

MAGIC = b"GGUF"
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}  # type -> struct
BOOL, STRING, ARRAY = 7, 8, 9
MOST_KEYS, MOST_TENSORS, LONGEST_NAME, DEEPEST = 65_536, 65_536, 65_535, 2
MOST_VALUES, LONGEST_TEXT = 2**21, 2**24  # in all lists together; the largest published vocabularies need half of it
# the kinds that llama.cpp knows and this does not, by ggml's numbers
UNSUPPORTED = {9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S"}
UNSUPPORTED |= {23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M"}
UNSUPPORTED |= {34: "TQ1_0", 35: "TQ2_0", 40: "NVFP4", 41: "Q1_0"}
MOST_DIMENSIONS, LARGEST_DIMENSION, LARGEST_ALIGNMENT = 4, 2**40, 2**16


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor as the file holds it.

    Attributes:
        name: in the file.
        kind: how its numbers are stored, such as "Q4_K".
        shape: as torch counts dimensions, the last one lying together.
        data: its bytes, memory-mapped, (n,) uint8.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    data: Tensor

    def load(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Its numbers; a view of the file where they are stored in that dtype."""
        return dequantise(self.data, self.kind, dtype).view(self.shape)


@dataclass(frozen=True)
class GGUF:
    """An open file.

    Attributes:
        path: where it is.
        metadata: key -> number, text, truth value or list of these.
        tensors: by name, in the file's order.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]
    _map: mmap.mmap

    def release(self) -> None:
        """Let go of the memory that reading the file took; what is read again comes from the file again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def read_gguf(path: str | Path) -> GGUF:
    """Open a file; its tensors stay in it until they are loaded.

    Raises:
        InputError: no such file.
        ConfigError: a version, byte order or kind of tensor that is not supported, named.
        DamagedFile: anything that does not fit the format or the size of the file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a .gguf file")
    with path.open("rb") as file:
        if path.stat().st_size < 24:
            raise DamagedFile(f"{path} has {path.stat().st_size} bytes, too few for a GGUF file")
        # a private copy-on-write map, so that torch may share the memory and nothing is ever written back
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    reader = _Reader(data, path)
    if reader.take(4) != MAGIC:
        raise DamagedFile(f"{path} is not a GGUF file: it does not begin with {MAGIC.decode()}")
    version = reader.number("I")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        if swapped in (1, 2, 3):
            raise ConfigError(f"{path} is a big-endian GGUF file, which is not supported; convert it to little-endian")
        raise ConfigError(f"{path} is GGUF version {version}; versions 2 and 3 are supported")
    tensor_count, key_count = reader.number("Q"), reader.number("Q")
    if tensor_count > MOST_TENSORS or key_count > MOST_KEYS or 24 * tensor_count + 13 * key_count > reader.left:
        raise reader.damage(f"{tensor_count:,} tensors and {key_count:,} keys do not fit the file")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = reader.text(LONGEST_NAME)
        if key in metadata:
            raise reader.damage(f"the key {key!r} is there twice")
        metadata[key] = reader.value(reader.number("I"), 0)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise reader.damage(f"general.alignment is {alignment!r}, not a power of two up to {LARGEST_ALIGNMENT}")
    entries = [_entry(reader) for _ in range(tensor_count)]
    return GGUF(path, metadata, _tensors(reader, entries, alignment), data)


def _entry(reader: "_Reader") -> tuple[str, str, tuple[int, ...], int]:
    """Name, kind, shape and offset of a tensor."""
    name = reader.text(LONGEST_NAME)
    dimensions = reader.number("I")
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise reader.damage(f"{name!r} has {dimensions} dimensions; 1 to {MOST_DIMENSIONS} are possible")
    shape = tuple(reversed([reader.number("Q") for _ in range(dimensions)]))
    if not all(0 < size <= LARGEST_DIMENSION for size in shape):
        raise reader.damage(f"{name!r} has the shape {shape}")
    number = reader.number("I")
    if number not in KINDS:
        kind = UNSUPPORTED.get(number, f"type {number}")
        known = ", ".join(sorted(kind.name for kind in KINDS.values()))
        raise ConfigError(f"{reader.path}: {name} is stored as {kind}, which is not supported; supported are {known}")
    return name, KINDS[number].name, shape, reader.number("Q")


def _tensors(
    reader: "_Reader", entries: list[tuple[str, str, tuple[int, ...], int]], alignment: int
) -> dict[str, GGUFTensor]:
    start = -(-reader.position // alignment) * alignment
    whole = torch.frombuffer(reader.data, dtype=torch.uint8)
    kinds = {kind.name: kind for kind in KINDS.values()}
    tensors: dict[str, GGUFTensor] = {}
    places: list[tuple[int, int, str]] = []
    for name, kind, shape, offset in entries:
        if name in tensors:
            raise reader.damage(f"the tensor {name!r} is there twice")
        count = 1
        for size in shape:
            count *= size  # Python's integers do not overflow
        if shape[-1] % kinds[kind].numbers:
            raise reader.damage(f"{name!r} has rows of {shape[-1]}, not a multiple of {kinds[kind].numbers} for {kind}")
        length = count // kinds[kind].numbers * kinds[kind].bytes
        begin, end = start + offset, start + offset + length
        if offset % alignment or end > len(reader.data):
            raise reader.damage(f"{name!r} should lie at {begin:,} … {end:,} of {len(reader.data):,} bytes")
        places.append((begin, end, name))
        tensors[name] = GGUFTensor(name, kind, shape, whole[begin:end])
    places.sort()
    for (_, end, name), (begin, _, other) in pairwise(places):
        if begin < end:
            raise reader.damage(f"the tensors {name!r} and {other!r} overlap")
    return tensors


class _Reader:
    """Takes a file's head apart, never reading past its end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.position, self.values = data, path, 0, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def damage(self, what: str) -> DamagedFile:
        return DamagedFile(f"{self.path} is damaged: {what}; download or copy it again")

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise self.damage(f"{count:,} bytes are expected at {self.position:,}, but {self.left:,} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self, longest: int | None = None) -> str:
        length = self.number("Q")
        if length > min(longest or LONGEST_TEXT, self.left):
            raise self.damage(f"a text of {length:,} bytes is expected at {self.position:,}")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise self.damage(f"a text at {self.position - length:,} is not UTF-8") from error

    def value(self, kind: int, depth: int) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == BOOL:
            byte = self.take(1)[0]
            if byte > 1:
                raise self.damage(f"a truth value is {byte}")
            return bool(byte)
        if kind == STRING:
            return self.text()
        if kind == ARRAY and depth < DEEPEST:
            return self._array(depth + 1)
        raise self.damage(f"a value has the type {kind}" if kind != ARRAY else f"lists lie more than {DEEPEST} deep")

    def _array(self, depth: int) -> list[Any]:
        kind, count = self.number("I"), self.number("Q")
        least = struct.calcsize(f"<{NUMBERS[kind]}") if kind in NUMBERS else {BOOL: 1, STRING: 8}.get(kind, 12)
        if count * least > self.left:
            raise self.damage(f"a list of {count:,} values is expected at {self.position:,}")
        self.values += count
        if self.values > MOST_VALUES:  # each becomes an object that is larger than its bytes
            raise self.damage(f"its lists hold more than {MOST_VALUES:,} values")
        if kind in NUMBERS:
            return list(struct.unpack(f"<{count}{NUMBERS[kind]}", self.take(count * least)))
        if kind == STRING:
            return self._texts(count)
        return [self.value(kind, depth) for _ in range(count)]

    def _texts(self, count: int) -> list[str]:
        """As `count` times `text`, in one go: vocabularies have hundreds of thousands of them."""
        data, position, length_at = self.data, self.position, struct.Struct("<Q").unpack_from
        start, end, texts = position, len(data), []
        add = texts.append
        try:
            for _ in range(count):
                start = position + 8
                position = start + length_at(data, position)[0]
                if position > end or position - start > LONGEST_TEXT:
                    self.position = start
                    raise self.damage(f"a text of {position - start:,} bytes is expected at {start:,}")
                add(data[start:position].decode())
        except UnicodeDecodeError as error:
            raise self.damage(f"a text at {start:,} is not UTF-8") from error
        except struct.error as error:
            raise self.damage(f"8 bytes are expected at {position:,}, but {end - position:,} are left") from error
        self.position = position
        return texts
