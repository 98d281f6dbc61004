"""GGUF files that Cutaway writes, opened with the gguf package; its blocks against the package's own."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.models.formats.ggml import BY_NAME, dequantise
from cutaway.models.formats.gguf import read_gguf
from cutaway.models.formats.gguf_write import write_gguf
from cutaway.models.formats.quantise import WRITABLE, quantise

SAME_BITS = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"]  # those that the package can encode too


def blocks_of(tensor: torch.Tensor, kind: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(b"".join(quantise(tensor, kind))), dtype=torch.uint8)


def weights(rows: int = 700, width: int = 768, seed: int = 0) -> torch.Tensor:
    """Numbers of many sizes, with rows of zeros, of one number, and of one sign among them."""
    random = torch.Generator().manual_seed(seed)
    sizes = 10 ** torch.empty(rows, 1).uniform_(-3, 1, generator=random)
    found = torch.randn(rows, width, generator=random) * sizes
    found[1], found[2], found[3], found[4] = 0.0, 0.25, found[3].abs(), -found[4].abs()
    found[5, 1:] = 0.0
    return found


@pytest.mark.parametrize("kind", SAME_BITS)
def test_blocks_are_those_of_the_gguf_package_bit_for_bit(kind: str):
    tensor = weights()
    theirs = gguf.quants.quantize(tensor.numpy(), gguf.GGMLQuantizationType[kind])
    assert blocks_of(tensor, kind).numpy().tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
    ("kind", "bound"), [("Q8_0", 0.006), ("Q6_K", 0.018), ("Q5_0", 0.045), ("Q4_K", 0.075), ("Q4_1", 0.085)]
)
def test_error_of_the_blocks_is_small(kind: str, bound: float):
    """Relative to the numbers' size, read by the gguf package; the better kinds stay below the bounds of the worse."""
    tensor = weights()[6:]
    read = gguf.quants.dequantize(blocks_of(tensor, kind).numpy(), gguf.GGMLQuantizationType[kind])
    off = torch.from_numpy(read).view_as(tensor) - tensor
    relative = off.pow(2).mean(dim=1).sqrt() / tensor.pow(2).mean(dim=1).sqrt()
    assert bound / 3 < relative.mean() < bound


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q4_K", "Q6_K"])
def test_zeros_stay_zeros_and_one_sign_keeps_it(kind: str):
    read = dequantise(blocks_of(weights(), kind), kind).view(700, 768)
    assert not read[1].any()
    assert (read[2] - 0.25).abs().max() < 0.02
    assert (read[5, 256:] == 0).all()
    assert read.isfinite().all()


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K"])
def test_searched_scales_beat_plain_rounding(kind: str):
    """Against scales that the extremes alone set: what the search is for."""
    tensor = weights(200)[6:]
    if kind == "Q4_K":
        groups = tensor.view(-1, 32)
        low = groups.amin(dim=1, keepdim=True)
        step = (groups.amax(dim=1, keepdim=True) - low) / 15
    else:
        groups, low = tensor.view(-1, 16), 0
        step = groups.abs().amax(dim=1, keepdim=True) / 31
    plain = ((groups - low) / step).round() * step + low  # and the scales are exact here
    found = dequantise(blocks_of(tensor, kind), kind).view_as(groups)
    size = groups.abs()  # large weights count more
    assert (size * (found - groups) ** 2).sum() < (size * (plain - groups) ** 2).sum()


@pytest.mark.parametrize("kind", WRITABLE)
def test_files_are_what_the_gguf_package_reads(kind: str, tmp_path: Path):
    numbers = {"two": weights(6, 512), "one": weights(6, 256)[0], "four": weights(8, 256).view(2, 2, 2, 256)}
    metadata = {"general.architecture": "test", "a.text": "你好 🌍", "a.truth": True, "a.share": 0.5, "a.count": 7}
    metadata |= {"a.less": -7, "a.more": 2**40, "a.texts": ["x", "", "é"], "a.numbers": [3, -1], "a.shares": [0.5, 2]}
    metadata |= {"a.truths": [True, False], "a.typed": np.arange(3, dtype=np.uint16), "a.byte": np.int8(-3)}
    path = tmp_path / "new" / "file.gguf"
    write_gguf(path, metadata, {name: (tensor, kind) for name, tensor in numbers.items()})

    theirs = gguf.GGUFReader(path)
    types = {name: [t.name for t in field.types] for name, field in theirs.fields.items()}
    of_numbers = {"a.count": "UINT32", "a.less": "INT32", "a.more": "UINT64", "a.share": "FLOAT32", "a.byte": "INT8"}
    of_lists = {
        "a.numbers": "INT32",
        "a.shares": "FLOAT32",
        "a.typed": "UINT16",
        "a.truths": "BOOL",
        "a.texts": "STRING",
    }
    for name, expected in of_numbers.items():
        assert types[name] == [expected]
    for name, expected in of_lists.items():
        assert types[name] == ["ARRAY", expected]
    ours = read_gguf(path)
    for name in metadata:
        plain = metadata[name].tolist() if hasattr(metadata[name], "tolist") else metadata[name]
        assert theirs.fields[name].contents() == ours.metadata[name] == plain
    assert [t.name for t in theirs.tensors] == list(numbers)
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert (mine.kind, mine.shape) == (tensor.tensor_type.name, tuple(numbers[tensor.name].shape))
        read = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(mine.load().numpy(), read.reshape(mine.shape))
        if kind == "F32":
            assert torch.equal(mine.load(), numbers[tensor.name])
    assert list((tmp_path / "new").iterdir()) == [path]  # nothing is left beside it


def test_the_gguf_packages_files_with_every_kind_are_read(tmp_path: Path):
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "test")
    expected = {}
    for name, kind in BY_NAME.items():
        if name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"):  # the package reads them only
            continue
        quantised = gguf.quants.quantize(weights(6, 256).numpy(), gguf.GGMLQuantizationType[name])
        writer.add_tensor(name, quantised, raw_dtype=gguf.GGMLQuantizationType[name])
        expected[name] = gguf.quants.dequantize(quantised, gguf.GGMLQuantizationType[name]).reshape(6, 256)
        assert kind.name == name
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = read_gguf(tmp_path / "theirs.gguf")
    assert file.tensors.keys() == expected.keys()
    for name, numbers in expected.items():
        assert np.array_equal(file.tensors[name].load().numpy(), numbers)


def test_a_failed_write_changes_nothing(tmp_path: Path):
    path = tmp_path / "file.gguf"
    write_gguf(path, {}, {"a": (torch.ones(2, 32), "F32")})
    before = path.read_bytes()
    bad = torch.ones(2, 32)
    bad[1, 3] = torch.nan
    with pytest.raises(NonFinite, match="not finite"):
        write_gguf(path, {}, {"a": (torch.ones(64, 64), "F32"), "b": (bad, "Q8_0")})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf, 1e38])
def test_numbers_that_blocks_cannot_hold_are_refused(kind: str, number: float):
    tensor = torch.ones(4, 256)
    tensor[2, 9] = number
    with pytest.raises(NonFinite):
        blocks_of(tensor, kind)


@pytest.mark.parametrize(
    ("metadata", "tensor", "kind", "message"),
    [
        ({}, torch.ones(2, 100), "Q8_0", "rows of 100"),
        ({}, torch.ones(2, 32), "Q3_K", "did you mean"),
        ({}, torch.tensor(1.0), "F32", "1 to 4 dimensions"),
        ({}, torch.ones(0, 32), "F32", "none of them 0"),
        ({"a": {"b": 1}}, torch.ones(32), "F32", "cannot be written"),
        ({"a": ["x", 1]}, torch.ones(32), "F32", "cannot be written"),
        ({"a": 2**70}, torch.ones(32), "F32", "cannot be written"),
        ({"general.alignment": 3}, torch.ones(32), "F32", "power of two"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(
    metadata: dict, tensor: torch.Tensor, kind: str, message: str, tmp_path
):
    with pytest.raises(ConfigError, match=message):
        write_gguf(tmp_path / "file.gguf", metadata, {"a": (tensor, kind)})
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="disk is full"):
        write_gguf(tmp_path / "file.gguf", {}, {"a": (torch.ones(32), "F32")})
