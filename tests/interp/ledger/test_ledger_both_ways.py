"""The ledger of recurrent networks under heads: what is pooled, and states that read from the end, down to tokens."""

from typing import Any

import pytest
import torch

from cutaway import record, replace
from cutaway.interp import ledger, look
from cutaway.models import Model, RecurrentConfig, build_network
from cutaway.tokenizers import Tokenizer, train_tokenizer

TEXT = "the cat sat on the mat"
LABELS: dict[str, Any] = {"head": "sequence_classification", "labels": ("a", "b", "c")}
VECTOR = {"head": "embedding", "pooling": "mean"}
SHAPES: dict[str, dict[str, Any]] = {
    "max": {**LABELS, "pooling": "max", "bidirectional": True},
    "mean of an lstm": {**LABELS, "pooling": "mean", "bidirectional": True, "cell": "lstm"},
    "last, one way": {**LABELS, "pooling": "last"},
    "cls": {**LABELS, "pooling": "cls", "bidirectional": True},
    "vector": {**VECTOR, "bidirectional": True},
    "vector of length 1": {**VECTOR, "bidirectional": True, "normalize": True},
    "tokens": {**LABELS, "head": "token_classification", "bidirectional": True},
    "states": {"head": "none", "bidirectional": True},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT * 3], "char", 300)


def made(shape: str, tokenizer: Tokenizer) -> Model:
    torch.manual_seed(0)
    network = build_network(RecurrentConfig(tokenizer.vocab_size, 32, 2, 8, 5, **SHAPES[shape])).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(network, tokenizer, "a test")


def adds_up(opened: Any, depth: int, breadth: int = 2) -> None:
    assert opened.error < 1e-9
    for term in [term for term in opened.terms if term.opens][:breadth] if depth else ():
        below = opened.expand(term.name)
        assert below.total == pytest.approx(term.value, abs=1e-12)
        adds_up(below, depth - 1, breadth)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_output_adds_up_down_to_the_tokens(shape: str, tokenizer: Tokenizer):
    model = made(shape, tokenizer)
    opened = ledger(model, TEXT, position=7)
    output = record(model, TEXT)[model.network.tap_names()[-1]][0]
    output = output if output.ndim == 1 else output[7]
    assert opened.total == pytest.approx(float(output.max()), abs=1e-12)
    adds_up(opened, 4)


@pytest.mark.parametrize("shape", ["max", "mean of an lstm", "tokens"])
def test_every_recorded_number_adds_up(shape: str, tokenizer: Tokenizer):
    model = made(shape, tokenizer)
    recording = record(model, TEXT)
    for name in model.network.tap_names()[:-1]:
        value = recording[name][0] if name == "head.pooled" else recording[name][0, 3]
        opened = recording.ledger(name, position=3, index=1)
        assert opened.total == pytest.approx(float(value[1]), abs=1e-12), name
        adds_up(opened, 2)


@pytest.mark.parametrize("shape", ["max", "mean of an lstm", "vector of length 1"])
def test_an_edited_run_adds_up_and_tells_where(shape: str, tokenizer: Tokenizer):
    model = made(shape, tokenizer)

    def push(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, 3] += 0.5
        return x

    state = "cell" if model.config.cell == "lstm" else "hidden"  # pyright: ignore[reportAttributeAccessIssue]
    places = ["layers.1.back.candidate", f"layers.0.back.{state}", "layers.1.states", "head.pooled"]
    for place in [*places, model.network.tap_names()[-1]]:
        edited = replace(model, TEXT, {place: push if place.startswith("layers") else lambda x: x + 1})
        opened = edited.ledger()
        adds_up(opened, 3)
        if place in ("head.pooled", "logits", "embedding"):
            assert f"{place}.edit" in {term.name for term in opened.terms}


def test_of_the_state_that_reads_from_the_end_the_last_token_is_the_first_step(tokenizer: Tokenizer):
    model = made("max", tokenizer)
    opened = ledger(model, TEXT, "layers.0.back.hidden", position=len(TEXT) - 3, index=2)
    assert [term.name for term in opened.terms] == [f"step.{t}" for t in (21, 20, 19)]
    forward = ledger(model, TEXT, "layers.0.hidden", position=2, index=2)
    assert [term.name for term in forward.terms] == [f"step.{t}" for t in (0, 1, 2)]


def test_a_text_among_longer_ones_is_opened_without_its_padding(tokenizer: Tokenizer):
    model = made("max", tokenizer)
    alone = ledger(model, TEXT[:9])
    both = record(model, [TEXT, TEXT[:9]])
    assert both.inputs.mask is not None
    padded = record(model, both.inputs.rows(1, 2)).ledger()
    assert [(term.name, pytest.approx(term.value)) for term in alone.terms] == [(t.name, t.value) for t in padded.terms]
    adds_up(padded, 3)


def test_a_look_has_all_its_parts_for_a_head_over_whole_texts(tokenizer: Tokenizer):
    shown = look(made("max", tokenizer), TEXT)
    assert "ledger" in shown.to_json()["parts"]
