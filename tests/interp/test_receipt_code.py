"""The code in a receipt runs, gives the same numbers, and leaves out no option that was given.

A person who copies it must get what the picture shows: every analysis, on networks of every kind.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from kinds import TEXT, given, letters, made

import cutaway
from cutaway.errors import CutawayError
from cutaway.interp import (
    attention,
    attribution_graph,
    check,
    feature_dashboard,
    fit_lens,
    graph_intervention,
    lens_difference,
    read_lens,
    rome,
    sigmoid_by_hand,
    train_features,
)
from cutaway.interp.analyses import ANALYSES, options_of, takes_recording
from cutaway.interp.receipt import Receipt
from cutaway.interp.study import Study
from cutaway.models import save_model

CORRUPT = "the hat sat on the cat"
PAIRS = ("attribution_patching", "circuit", "patch_map", "patch_site", "patch_sweep", "path_patching")
TEXTS = {"positive": ["the cat", "a mat"], "negative": ["on", "sat"]}
NEEDS: dict[str, dict[str, Any]] = {
    **{name: {"corrupt": CORRUPT} for name in PAIRS},
    "causal_trace": {"subject": "cat", "samples": 2},
    "counterfactual": {"changes": [[0, "a"]]},
    "dose_response": TEXTS,
    "steer": TEXTS,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "decoder": ("qwen3", {}),
    "encoder": ("bert", {}),
    "classifier": ("bert", {"head": "sequence_classification", "labels": ("no", "yes")}),
    "encoder–decoder": ("t5", {}),
    "gru": ("gru", {}),
}
LEAST = {"decoder": 57, "encoder": 46, "classifier": 42, "encoder–decoder": 54, "gru": 38}  # analyses that apply
WORDS = ("a", "word", "logprob", "cross", "encoder", "residual", "heads", "max", "value", "mlps", "midpoint", "pad")
TRIED: tuple[Any, ...] = (1, 2, 0.3, 0, 1.5, *WORDS, True, False, [0], [0.5], ["the cat sat", "on a mat"])
APART = {"source", "lens", "transcoders", "batch"}  # which are tried elsewhere, or change no number
SEEN = {("ledger", "samples"), ("ledger", "seed")}  # only read where something is drawn


def plain(value: Any) -> Any:
    """Without receipts, and without what is measured anew at every run."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items() if key not in ("receipt", "source", "sums")}
    return [plain(one) for one in value] if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-5)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def run(code: str) -> Any:
    names: dict[str, Any] = {}
    exec(compile(code, "receipt", "exec"), names)  # noqa: S102 (our own)
    return names["result"]


LONG = {"classifier", "encoder–decoder"}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in LONG)) for kind in KINDS])
def test_the_code_makes_the_same_numbers(kind: str, tmp_path: Path) -> None:
    shape, config = KINDS[kind]
    model = cutaway.load_model(save_model(made(shape, letters(), **config), tmp_path / "model"))
    study = Study(model, TEXT, given(model).get("source"))
    ids = Study(model, tuple(study.inputs.ids[0].tolist()), given(model).get("source"))
    applied = 0
    for name in ANALYSES:
        try:
            found = (ids if name in ("attention", "ledger") else study).analyse(name, NEEDS.get(name))
        except CutawayError:
            continue
        assert same(plain(found.to_json()), plain(run(found.receipt.code).to_json())), (name, found.receipt.code)
        assert found.receipt.source == model.source
        applied += 1
    assert applied >= LEAST[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decoder", "encoder–decoder", "gru"])
def test_the_code_names_every_option_that_was_given(kind: str) -> None:
    model = made(KINDS[kind][0], letters(), **KINDS[kind][1])
    study = Study(model, TEXT, given(model).get("source"))
    left, named = [], 0
    for name, function in ANALYSES.items():
        try:
            code = study.analyse(name, NEEDS.get(name)).receipt.code
        except CutawayError:
            continue
        reads = takes_recording(name) or "source" in options_of(name)
        if reads and study.source is not None and "source=" not in code:
            left.append((name, "source"))
        for option in options_of(name).keys() - APART - NEEDS.get(name, {}).keys():
            usual = inspect.signature(function).parameters[option].default
            for value in TRIED:
                if value == usual:
                    continue
                try:
                    code = study.analyse(name, {**NEEDS.get(name, {}), option: value}).receipt.code
                except CutawayError:
                    continue
                named += 1
                if f"{option}=" not in code and (name, option) not in SEEN:
                    left.append((name, option))
                break
    assert not left
    assert named > 50


def test_the_code_of_an_edit_names_how_it_was_made(tmp_path: Path) -> None:
    model = cutaway.load_model(save_model(made("qwen3", letters()), tmp_path / "model"))
    how = {"subject": "cat", "target": "a", "texts": ["on the mat", "a mat"], "layer": 0}
    found = rome(model, "the cat sat", **how, steps=3, contexts=2, shared=True)
    assert same(plain(found.to_json()), plain(run(found.receipt.code).to_json()))


def test_the_code_of_what_is_made_of_another_result_makes_both(tmp_path: Path) -> None:
    model = cutaway.load_model(save_model(made("qwen3", letters()), tmp_path / "model"))
    other = cutaway.load_model(save_model(made("qwen3", letters(), tied=True), tmp_path / "other"))
    texts = [TEXT, CORRUPT, "a mat that the cat sat on"] * 2
    one, two, third = Study(model, TEXT).recording, Study(model, CORRUPT).recording, Study(other, CORRUPT).recording
    fitted = fit_lens(model, texts, "tuned", steps=2)
    graph = attribution_graph(model, TEXT, [], neurons=6)
    neuron = next(node.name for node in graph["graph"].nodes if "neuron" in node.name)
    dictionary = train_features(model, texts, "layers.0.mlp", transcoder=True, width=8, k=2, samples=300, batch=32)
    dictionary.save(tmp_path / "features")
    results = {
        "check": check(attention(one), most=5, seed=1),
        "fitted lens": fitted,
        "lens": read_lens(one, lens=fitted.lens),
        "difference": lens_difference(one, other=two),
        "lenses": lens_difference(one, other=two, lens=fitted.lens),
        "models": lens_difference(one, other=third),
        "intervention": graph_intervention(graph, {neuron: 0.0}),
        "dashboard": feature_dashboard(model, dictionary, texts, top=3),
        "sigmoid": sigmoid_by_hand([1.0, 2.0], [0.5, 0.1], names=["a", "b"]),
    }
    for name, result in results.items():
        assert same(plain(result.to_json()), plain(run(result.receipt.code).to_json())), (name, result.receipt.code)


def test_places_are_put_in_where_models_are_opened_and_nowhere_else() -> None:
    said = "load_model('m') and \"load_model('n')\""
    code = f"model = cutaway.load_model('m')\nresult = f(model, {said!r}, other=cutaway.load_model('n'))\n"
    receipt = Receipt(0.0, 0.0, 0, "float32", "m", code=code)
    put = receipt.code_for({"m": "/a/m", "n": "it's"})
    assert put == code.replace("model = cutaway.load_model('m')", "model = cutaway.load_model('/a/m')").replace(
        "other=cutaway.load_model('n')", 'other=cutaway.load_model("it\'s")'
    )
    assert repr(said) in put
