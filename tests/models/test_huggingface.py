"""Hugging Face folders as they should not be: each is refused with its fault named, and nothing in them is run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cutaway import load_model, save_model
from cutaway.errors import ConfigError, DamagedFile
from cutaway.models import DecoderConfig, Model, build_network
from cutaway.models.formats.huggingface import INDEX, open_huggingface
from cutaway.tokenizers import train_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "m"
    tokenizer = train_tokenizer(["the cat sat on the mat"], "char", 300)
    torch.manual_seed(0)
    network = build_network(
        DecoderConfig(vocab_size=tokenizer.vocab_size, context=16, layers=2, width=16, heads=2, tied=False)
    )
    return save_model(Model(network, tokenizer), folder, "huggingface")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "m"))


def change(folder: Path, **keys: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def rename(folder: Path, how: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    how(state)
    save_file(state, folder / "model.safetensors")


def shard(folder: Path, name: str) -> None:
    """An index that says every tensor is in a file of this name."""
    weights = dict.fromkeys(load_file(folder / "model.safetensors"), name)
    (folder / INDEX).write_text(json.dumps({"weight_map": weights}))


def test_what_was_saved_opens(folder: Path):
    model = load_model(folder)
    assert model.origin is not None
    assert model.origin.family == "qwen3"
    again = load_model(save_model(model, folder.parent / "again"))
    assert torch.equal(again.logits("the cat"), model.logits("the cat"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_type": "qwen33"}, "did you mean qwen3"),
        ({"model_type": None}, "model_type"),
        ({"secret_gate": 3}, "secret_gate = 3"),
        ({"hidden_act": "swoosh"}, "hidden_act = 'swoosh'"),
        ({"architectures": ["Qwen3ForMultipleChoice"]}, "Qwen3ForMultipleChoice"),
        ({"rope_scaling": {"rope_type": "warp", "factor": 2.0}}, "warp"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3}}, "beta_fast"),
        ({"head_dim": 2, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "more than one pair"),
        ({"hidden_act": ["silu"]}, "hidden_act"),
        ({"rope_theta": "many"}, "rope_theta|rotary_base"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers = 1000000000000"),
        ({"vocab_size": 2**62}, "vocab_size"),
        ({"head_dim": 2**40}, "head_dim"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers"),
        ({"hidden_size": 1.5}, "hidden_size|width"),
    ],
)
def test_t3_a_key_or_value_that_is_not_supported_is_named(keys: dict, message: str, folder: Path):
    change(folder, **keys)
    with pytest.raises(ConfigError, match=message):
        open_huggingface(folder)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda state: state.pop("model.norm.weight"), r"missing: model\.norm\.weight"),
        (lambda state: state.update(extra=torch.ones(2)), "left over: extra"),
        (lambda state: state.update({"model.norm.weight": torch.ones(7)}), r"\(7,\) instead of \(16,\)"),
    ],
)
def test_every_tensor_has_its_place(how: Callable, message: str, folder: Path):
    rename(folder, how)
    with pytest.raises(DamagedFile, match=message):
        open_huggingface(folder)


def test_a_tied_output_that_is_another_matrix_is_refused(folder: Path):
    change(folder, tie_word_embeddings=True)
    rename(folder, lambda state: state.update({"lm_head.weight": state["lm_head.weight"] + 1}))
    with pytest.raises(DamagedFile, match="the embedding once more"):
        open_huggingface(folder)


def test_an_index_that_lies_is_refused(folder: Path):
    shard(folder, "model.safetensors")
    path = folder / INDEX
    index = json.loads(path.read_text())
    index["weight_map"]["not.there"] = "model.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(DamagedFile, match=r"not\.there"):
        open_huggingface(folder)


@pytest.mark.parametrize(
    ("features", "named"), [({"mlp": False}, "mlp is False"), ({"norm": "none"}, "norm is 'none'")]
)
@pytest.mark.parametrize("format", ["huggingface", "gguf"])
def test_what_no_family_says_is_refused(features: dict, named: str, format: str, tmp_path: Path):
    tokenizer = train_tokenizer(["the cat sat on the mat"], "bpe", 300)
    config = DecoderConfig(tokenizer.vocab_size, context=16, layers=2, width=16, heads=2, tied=False, **features)
    model = Model(build_network(config), tokenizer)
    with pytest.raises(ConfigError, match=named):
        save_model(model, tmp_path / "m", format)
    again = load_model(save_model(model, tmp_path / "m"))
    assert torch.equal(again.logits("the cat"), model.logits("the cat"))
