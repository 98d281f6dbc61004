"""Hugging Face folders as they should not be: each is refused with its fault named, and nothing in them is run."""

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cutaway import load_model, save_model
from cutaway.errors import ConfigError, CutawayError, DamagedFile, InputError
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
        ({"architectures": ["Qwen3ForTokenClassification"]}, "Qwen3ForTokenClassification"),
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


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_t1_pickled_weights_are_refused_and_never_opened(name: str, folder: Path):
    (folder / "model.safetensors").unlink()
    mark = folder / "it-ran"
    # what torch.load or pickle would run: os.system("touch …")
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    with pytest.raises(InputError, match="convert it to safetensors"):
        load_model(folder)
    assert not mark.exists()


def test_t4_code_in_a_folder_is_never_run(folder: Path):
    mark = folder / "it-ran"
    (folder / "modeling_mine.py").write_text(f"open({str(mark)!r}, 'w')")
    (folder / "configuration_mine.py").write_text(f"open({str(mark)!r}, 'w')")
    change(folder, auto_map={"AutoConfig": "configuration_mine.Mine", "AutoModelForCausalLM": "modeling_mine.Mine"})
    load_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", ".hidden", "a/../b", "", "a\n"])
def test_t7_an_index_leads_nowhere_else(name: str, folder: Path):
    shutil.copy(folder / "model.safetensors", folder.parent / "outside.safetensors")
    shard(folder, name)
    with pytest.raises(DamagedFile, match="no plain file name"):
        open_huggingface(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_t7_a_link_out_of_the_folder_is_refused(name: str, folder: Path):
    shutil.move(folder / name, folder.parent / "outside")
    (folder / name).symlink_to(folder.parent / "outside")
    with pytest.raises(DamagedFile, match="outside its folder"):
        open_huggingface(folder)


def test_an_index_that_lies_is_refused(folder: Path):
    shard(folder, "model.safetensors")
    path = folder / INDEX
    index = json.loads(path.read_text())
    index["weight_map"]["not.there"] = "model.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(DamagedFile, match=r"not\.there"):
        open_huggingface(folder)


def test_t5_mutated_folders_are_opened_or_refused(made: Path, folder: Path):
    """CUTAWAY_FUZZ says how many; make fuzz runs the full number."""
    seed = random.Random(0)
    for _ in range(int(os.environ.get("CUTAWAY_FUZZ", "600"))):
        name = seed.choice(["config.json", "model.safetensors"])
        data = bytearray((made / name).read_bytes())
        for _ in range(seed.randint(1, 6)):
            place = seed.randrange(min(len(data), 3000))
            if seed.random() < 0.5:
                data[place] = seed.randrange(256)
            elif seed.random() < 0.5:
                del data[place : place + seed.randint(1, 30)]
            else:
                data[place:place] = seed.choice([b"9" * 12, b"-1", b"null", b"[[[[", b"1e999", bytes(8), b'"', b"{}"])
        (folder / name).write_bytes(data)
        with contextlib.suppress(CutawayError):
            open_huggingface(folder)
        (folder / name).write_bytes((made / name).read_bytes())
