"""GGUF files, against the gguf package; and files that were made to do harm."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from cutaway.errors import ConfigError, DamagedFile
from cutaway.models.formats.ggml import BY_NAME, dequantise
from cutaway.models.formats.gguf import read_gguf

QUANTISED = [name for name, kind in BY_NAME.items() if kind.decode is not None]


@pytest.mark.parametrize("name", QUANTISED)
def test_numbers_are_those_of_the_gguf_package_bit_for_bit(name: str):
    kind = BY_NAME[name]
    data = np.random.default_rng(0).integers(0, 256, (5000, kind.bytes), dtype=np.uint8)
    finite = np.frombuffer(np.array([0.01, 1.5], np.float16).tobytes(), dtype=np.uint8)
    halves = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "MXFP4": (), "Q4_1": (0, 2), "Q5_1": (0, 2)}
    for place in halves.get(name, (0, 2) if name in ("Q4_K", "Q5_K") else (0,)):
        data[::2, place : place + 2], data[1::2, place : place + 2] = finite[:2], finite[2:]
    if name == "MXFP4":
        data[:, 0] = 100 + data[:, 0] % 50
    theirs = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
    ours = dequantise(torch.from_numpy(data.reshape(-1)), name)
    assert np.array_equal(ours.numpy(), theirs.reshape(-1))


def write(path: Path, *, keys: Callable[[gguf.GGUFWriter], Any] = lambda w: None, tensors: dict | None = None) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    keys(writer)
    for name, value in (tensors or {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    def keys(writer: gguf.GGUFWriter) -> None:
        writer.add_uint32("a.count", 7)
        writer.add_float32("a.share", 0.5)
        writer.add_bool("a.truth", True)
        writer.add_string("a.text", "你好 🌍")
        writer.add_array("a.list", ["x", "yz", ""])
        writer.add_array("a.numbers", [1, -2, 3])

    random_ = np.random.default_rng(1)
    tensors = {
        "one": random_.standard_normal((3, 64)).astype(np.float32),
        "two": random_.standard_normal(5).astype(np.float16),
        "three": random_.standard_normal((2, 3, 32)).astype(np.float32),
    }
    return write(tmp_path / "sample.gguf", keys=keys, tensors=tensors)


def test_metadata_and_tensors_are_those_of_the_gguf_package(sample: Path):
    ours, theirs = read_gguf(sample), gguf.GGUFReader(sample)
    assert ours.metadata == {
        name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")
    }
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert mine.kind == tensor.tensor_type.name
        assert mine.shape == tuple(reversed(tensor.shape.tolist()))
        assert np.array_equal(mine.load(torch.float64).numpy().reshape(-1), tensor.data.reshape(-1))


def head(version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def entry(name: bytes = b"t", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)


def nested(depth: int) -> bytes:
    return struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 0, 1) + b"\1"


HUGE = 2**63
HOSTILE = {
    "no magic": b"GGML" + head()[4:],
    "more tensors than bytes": head(tensors=HUGE),
    "more keys than bytes": head(keys=2**40),
    "a text of 2**63 bytes": head(keys=1) + struct.pack("<Q", HUGE) + b"x" * 64,
    "a list of 2**61 numbers": head(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 10, 2**61) + b"x" * 64,
    "lists in lists": head(keys=1) + text(b"k") + struct.pack("<I", 9) + nested(2000),
    "a key twice": head(keys=2) + (text(b"k") + struct.pack("<IB", 0, 1)) * 2,
    "a type that is none": head(keys=1) + text(b"k") + struct.pack("<I", 99) + b"x" * 64,
    "an alignment of 0": head(keys=1) + text(b"general.alignment") + struct.pack("<II", 4, 0),
    "an alignment of 3": head(keys=1) + text(b"general.alignment") + struct.pack("<II", 4, 3),
    "no dimensions": head(tensors=1) + text(b"t") + struct.pack("<IIQ", 0, 0, 0) + b"x" * 64,
    "a dimension of 0": head(tensors=1) + entry(shape=(0,)) + b"x" * 64,
    "dimensions whose product overflows": head(tensors=1) + entry(shape=(2**40, 2**40, 2**40)) + b"x" * 64,
    "an offset beyond the end": head(tensors=1) + entry(offset=2**62) + b"x" * 256,
    "an offset that wraps around": head(tensors=1) + entry(offset=2**64 - 32) + b"x" * 256,
    "an offset that is not aligned": head(tensors=1) + entry(offset=8) + b"x" * 256,
    "a tensor cut short": head(tensors=1) + entry(shape=(1024,)) + b"x" * 64,
    "a tensor twice": head(tensors=2) + entry() * 2 + b"x" * 512,
    "tensors that overlap": head(tensors=2) + entry(b"a") + entry(b"b", offset=32) + b"x" * 512,
    "rows that are no blocks": head(tensors=1) + entry(shape=(33,), kind=2) + b"x" * 512,
    "a name that is no text": head(tensors=1) + entry(b"\xff\xfe") + b"x" * 512,
    "nothing": b"",
    "a truth value of 7": head(keys=1) + text(b"k") + struct.pack("<IB", 7, 7) + b"x" * 64,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_t5_files_made_to_do_harm_are_refused(name: str, tmp_path: Path):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(DamagedFile):
        read_gguf(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (head(version=1), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (head(tensors=1) + entry(kind=77) + b"x" * 512, "type 77"),
    ],
)
def test_what_is_not_supported_is_named(data: bytes, message: str, tmp_path: Path):
    path = tmp_path / "other.gguf"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read_gguf(path)
