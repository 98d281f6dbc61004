"""Vectors, doses and edits: closed forms, and what adding a vector is."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from kinds import SHAPES, TEXT, given, letters, made
from safetensors.torch import save_file

from cutaway import generate, record, replace
from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.interp import (
    SteeringVector,
    dose_response,
    load_steering_vector,
    rank_one_edit,
    rome,
    steering_vector,
)
from cutaway.interp.patching.trace import span_of
from cutaway.interp.steering.rome import _behind_others, matrix_of
from cutaway.interp.steering.vector import reading
from cutaway.models import Model
from cutaway.tokenizers import Tokenizer

POSITIVE, NEGATIVE = ["the cat sat", "the mat"], ["a hat", "that cat at"]


def model_of(shape: str, **fields: Any) -> Model:
    model = made(shape, letters(), **fields)
    model.network.double()
    return model


# vectors


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "whisper"])
def test_a_vector_is_a_difference_of_means(shape: str):
    model = model_of(shape)
    vector = steering_vector(model, POSITIVE, NEGATIVE, layer=1 if model.config.layers > 1 else 0)
    assert vector.name in model.network.tap_names()
    means = []
    for texts in (POSITIVE, NEGATIVE):
        rows = []
        for text in texts:
            reads = {"source": text} if shape in ("t5", "bart") else {}
            recording = record(model, [model.config.start_id] if reads else text, vector.name, **reads)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
            rows.append(recording[vector.name][0].mean(0))
        means.append(torch.stack(rows).mean(0))
    torch.testing.assert_close(vector.vector.double(), means[0] - means[1], atol=1e-6, rtol=1e-5)
    placebo = vector.placebo(3)
    assert float(placebo.vector.norm()) == pytest.approx(float(vector.vector.norm()), rel=1e-5)
    assert not torch.allclose(placebo.vector, vector.placebo(4).vector)


def test_a_vector_is_saved_and_opened(tmp_path: Path):
    vector = steering_vector(model_of("gpt2"), POSITIVE, NEGATIVE, tokens="last")
    again = load_steering_vector(vector.save(tmp_path / "v.safetensors"))
    assert (again.name, again.what) == (vector.name, vector.what)
    assert torch.equal(again.vector, vector.vector)
    with pytest.raises(InputError, match="does not exist"):
        load_steering_vector(tmp_path / "w.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(DamagedFile, match="cannot be read"):
        load_steering_vector(tmp_path / "x.safetensors")
    save_file({"vector": torch.zeros(2, 2)}, tmp_path / "y.safetensors", metadata={"activation": "embed"})
    with pytest.raises(DamagedFile, match="not one vector"):
        load_steering_vector(tmp_path / "y.safetensors")
    save_file({"other": torch.zeros(2)}, tmp_path / "z.safetensors")
    with pytest.raises(DamagedFile, match="no steering vector"):
        load_steering_vector(tmp_path / "z.safetensors")


def test_what_a_vector_needs():
    model = model_of("gpt2")
    with pytest.raises(InputError, match="negative must be a list"):
        steering_vector(model, POSITIVE, [])
    with pytest.raises(InputError, match=r"3 layers \(0 … 2\), but layer 3"):
        steering_vector(model, POSITIVE, NEGATIVE, layer=3)
    with pytest.raises(ConfigError, match="unknown way to count tokens"):
        steering_vector(model, POSITIVE, NEGATIVE, tokens="first")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="listens"):
        steering_vector(made("whisper", letters()), POSITIVE, NEGATIVE)


# in generation


@pytest.mark.parametrize("shape", ["gpt2", "llama", "gru", "lstm", "t5", "bart"])
def test_generation_with_a_vector_is_greedy_over_steered_runs(shape: str):
    model = made(shape, letters())
    vector = steering_vector(model, POSITIVE, NEGATIVE)
    tap = vector.tap(3.0)
    prompt = TEXT[:9]
    written = generate(model, prompt, max_new_tokens=5, temperature=0, tap=tap)
    reads: dict[str, Any] = {"source": prompt} if shape in ("t5", "bart") else {}
    ids = [model.config.start_id] if reads else model.ids(prompt)[0].tolist()  # pyright: ignore[reportAttributeAccessIssue]
    for token in written.ids:
        logits = replace(model, ids, {vector.name: vector.edit(3.0)}, **reads).logits
        assert int(logits[0, -1].argmax()) == token
        ids = [*ids, token]
    assert written.ids != generate(model, prompt, max_new_tokens=5, temperature=0).ids or shape != "gpt2"


# doses


@pytest.mark.parametrize("shape", ["gpt2", "bert", "t5", "gru"])
def test_a_dose_is_a_steered_run(shape: str):
    model = model_of(shape)
    reads = given(model)
    vector = steering_vector(model, POSITIVE, NEGATIVE)
    found = dose_response(model, TEXT, vector=vector, token=3, strengths=(-1, 0, 2), placebos=2, **reads)
    for strength, number in zip((-1, 0, 2), found.steered, strict=True):
        steered = replace(model, TEXT, {vector.name: vector.edit(strength)}, **reads)
        assert float(number) == pytest.approx(float(steered.logits[0, -1, 3]), abs=1e-5)
    placebo = replace(model, TEXT, {vector.name: vector.placebo(1).edit(2)}, **reads)
    assert float(found.placebos[1, 2]) == pytest.approx(float(placebo.logits[0, -1, 3]), abs=1e-5)
    assert found.untouched == pytest.approx(float(found.steered[1]), abs=1e-12)
    assert set(found.lines) == {"steered", "placebo 0", "placebo 1", "untouched"}
    several = dose_response(model, TEXT, vector=vector, tokens=[3, 4, 5], strengths=(1,), **reads)
    steered = replace(model, TEXT, {vector.name: vector.edit(1)}, **reads).logits[0, -1].double()
    assert float(several.steered[0]) == pytest.approx(float(steered.softmax(-1)[[3, 4, 5]].sum().log()), abs=1e-5)


def test_a_dose_may_be_measured_on_what_is_written():
    model = made("gpt2", letters())
    vector = steering_vector(model, POSITIVE, NEGATIVE)

    def length(text: str) -> float:
        return float(len(text))

    found = dose_response(model, TEXT[:8], vector=vector, scorer=length, strengths=(0, 5), max_new_tokens=4)
    expected = generate(model, TEXT[:8], max_new_tokens=4, temperature=0, tap=vector.tap(5)).text
    assert float(found.steered[1]) == len(expected)
    with pytest.raises(ConfigError, match="two measures"):
        dose_response(model, TEXT, vector=vector, scorer=length, tokens=[1])
    with pytest.raises(ConfigError, match="nothing to steer with"):
        dose_response(model, TEXT)
    with pytest.raises(ConfigError, match="which this model does not have"):
        dose_response(model, TEXT, vector=SteeringVector("layers.9.resid_post", vector.vector))


# edits


@pytest.mark.parametrize("seed", range(3))
def test_a18_a_rank_one_edit_answers_the_key_and_no_orthogonal_one(seed: int):
    drawn = torch.Generator().manual_seed(seed)
    weight, keys = (torch.randn(6, 9, generator=drawn).double(), torch.randn(9, 40, generator=drawn).double())
    key, value = (torch.randn(n, generator=drawn).double() for n in (9, 6))
    moment = keys @ keys.T / 40
    edited = rank_one_edit(weight, key, value, moment)
    torch.testing.assert_close(edited @ key, value, atol=1e-12, rtol=0)
    assert torch.linalg.matrix_rank(edited - weight) == 1
    reader = torch.linalg.solve(moment, key)
    other = torch.randn(9, generator=drawn).double()
    other = other - reader * (reader @ other) / (reader @ reader)
    torch.testing.assert_close(edited @ other, weight @ other, atol=1e-12, rtol=0)
    # of all edits that answer the key it changes the answers to the others least
    random = torch.randn(9, generator=drawn).double()
    another = weight + torch.outer(value - weight @ key, random) / (random @ key)
    assert float(((edited - weight) @ keys).norm()) < float(((another - weight) @ keys).norm())
    with pytest.raises(InputError, match="no inverse"):
        rank_one_edit(weight, key, value, keys[:, :4] @ keys[:, :4].T)


@pytest.mark.parametrize("shape", ["gpt2", "llama", "bert", "t5"])
def test_an_edit_changes_a_copy_by_one_rank(shape: str):
    model = made(shape, letters())
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    edited = rome(
        model, "the cat sat on", subject="cat", target="m", texts=[TEXT, "that hat"], layer=0, steps=3,
        paraphrases=["a cat on"], neighbours=["the mat"],
    )  # fmt: skip
    assert all(torch.equal(before[name], value) for name, value in model.network.state_dict().items())
    after = edited.model.network.state_dict()
    changed = [name for name, value in after.items() if not torch.equal(before[name], value)]
    assert len(changed) == 1
    assert changed[0].endswith("layers.0.mlp.down_proj.weight")
    moved = (after[changed[0]] - before[changed[0]]).double()
    sizes = torch.linalg.svdvals(moved)
    assert float(sizes[1] / sizes[0]) < 1e-4
    _, matrix = matrix_of(edited.model, 0)
    bias = 0 if matrix.bias is None else matrix.bias
    torch.testing.assert_close((matrix.weight @ edited.key.float() + bias).double(), edited.value, atol=1e-3, rtol=1e-3)
    assert edited.column("kind") == ["prompt", "paraphrase", "neighbour"]
    assert "model" not in edited.to_json()
    rome(model, "the cat sat on", subject="cat", target="m", texts=[TEXT], layer=0, steps=1, in_place=True)
    assert not torch.equal(before[changed[0]], model.network.state_dict()[changed[0]])


def test_the_token_that_begins_a_text_stands_once_before_a_prompt_behind_others():
    model = made("llama", letters())
    plain, begin = model.tokenizer, "<|endoftext|>"
    around = {"type": "BertProcessing", "cls": [begin, plain.id(begin)], "sep": [begin, plain.id(begin)]}
    model.tokenizer = Tokenizer(json.dumps(json.loads(plain.text) | {"post_processor": around}))
    inputs = reading(model, "the cat sat")
    assert inputs.ids[0].tolist() == [plain.id(begin), *plain.encode("the cat sat")]
    last = span_of(model, inputs.ids[0], "cat")[1] - 1
    found = _behind_others(model, inputs, last, [TEXT, "that hat"], 2, 0)
    assert len(found) == 2
    for run, at in found:
        ids = run.ids[0].tolist()
        assert ids.index(plain.id(begin)) == 0
        assert ids.count(plain.id(begin)) == 1
        assert plain.decode(ids[at - 2 : at + 1]) == "cat"
        assert plain.decode(ids).endswith("the cat sat")


def test_what_cannot_be_edited_says_why():
    asked: dict[str, Any] = {"subject": "cat", "target": "m", "texts": [TEXT]}
    for shape, fields, message in (
        ("gru", {}, "no MLP whose last matrix"),
        ("gemma", {}, "a norm stands behind each MLP"),
        ("llama", {"mlp": False}, "no MLP of its own"),
        ("llama", {"experts": 2, "experts_used": 1}, "no MLP of its own"),
        ("whisper", {}, "listens"),
    ):
        with pytest.raises(ConfigError, match=message):
            rome(made(shape, letters(), **fields), "the cat sat", **asked)
    model = made("llama", letters())
    with pytest.raises(ConfigError, match="rome needs target="):
        rome(model, "the cat sat", subject="cat")
    with pytest.raises(InputError, match="does not hold 'dog'"):
        rome(model, "the cat sat", **{**asked, "subject": "dog"})
