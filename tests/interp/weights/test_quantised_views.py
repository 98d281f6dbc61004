"""Weights kept quantised are looked into as any others: within half a step, under the same names."""

from pathlib import Path

import pytest
import torch
from kinds import TEXT, made

from cutaway import load_model, record, save_model
from cutaway.errors import ConfigError
from cutaway.interp import (
    attention,
    copying_scores,
    fourier,
    loss_landscape,
    neighbours,
    spectra,
    weight_difference,
)
from cutaway.models import Model
from cutaway.models.formats.gguf import read_gguf
from cutaway.tokenizers import train_tokenizer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    model = made("llama", train_tokenizer([TEXT * 9], "bpe", 300), width=64, mlp_width=96)
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    save_model(model, path, "gguf", kind="Q8_0")
    return model, path


def test_dequantised_weights_are_within_half_a_step(files: tuple[Model, Path]):
    model, path = files
    kept = load_model(path, quantised=True)
    own, count = model.network.state_dict(), 0
    for name, tensor in kept.network.state_dict().items():
        if tensor.ndim != 2:
            continue
        blocks = own[name].view(-1, 32)  # Q8_0: 32 numbers of one scale, the largest of them / 127, in float16
        scale = (blocks.abs().amax(-1) / 127).half().float()
        off = (tensor.reshape(-1, 32) - blocks).abs()
        rounding = 127 * scale * 2.0**-11  # of the scale itself
        assert bool((off <= (scale / 2 + rounding)[:, None]).all())
        assert float(off.max()) > 0
        count += 1
    assert count == 2 + 7 * 2  # embedding, output, and seven matrices of each layer
    assert {tensor.kind for name, tensor in read_gguf(path).tensors.items() if "attn_q" in name} == {"Q8_0"}


def test_names_are_the_same(files: tuple[Model, Path]):
    model, path = files
    kept = load_model(path, quantised=True)
    assert kept.network.tap_names() == model.network.tap_names()
    whole, other = record(model, TEXT), record(kept, TEXT)
    assert list(whole) == list(other)
    assert all(whole[name].shape == other[name].shape for name in whole)


def test_views_of_weights_are_those_of_the_dequantised(files: tuple[Model, Path]):
    _, path = files
    opened, kept = load_model(path), load_model(path, quantised=True)
    assert all(row[2] == 0 for row in weight_difference(opened, kept).rows)
    one, two = spectra(opened), spectra(kept)
    assert list(one.values) == list(two.values)
    assert all(torch.equal(one.values[name], two.values[name]) for name in one.values)
    assert neighbours(opened, "cat").rows == neighbours(kept, "cat").rows
    assert fourier(opened).figures == fourier(kept).figures
    torch.testing.assert_close(copying_scores(opened).values, copying_scores(kept).values)
    torch.testing.assert_close(attention(opened, TEXT).patterns, attention(kept, TEXT).patterns)
    with pytest.raises(ConfigError, match="kept quantised cannot be moved"):
        loss_landscape(kept, TEXT)
