"""Every result of probes and features has all its faces, and its receipt the code that makes it."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from cutaway.interp import (
    Panel,
    Result,
    attribution_graph,
    check,
    erase,
    evaluate_features,
    feature_dashboard,
    interchange,
    probe,
    train_features,
)
from cutaway.interp.analyses import analyse
from cutaway.models import Model

TEXTS = ["the cat sat", "a cat sat there", "the hat", "eat the tea"] * 3
LABELS = [[token in "aeiou" for token in text] for text in TEXTS]


def results(model: Model) -> dict[str, Result]:
    features = train_features(model, TEXTS, "layers.1.resid_post", width=16, k=2, samples=1_000, batch=32)
    transcoder = train_features(model, TEXTS, "layers.1.mlp", width=16, k=2, samples=1_000, batch=32, transcoder=True)
    answers, two = ["a"] * len(TEXTS), torch.eye(32)[:, :2]
    return {
        "probe": probe(model, TEXTS, LABELS, sparse=[1]),
        "erase": erase(model, TEXTS, LABELS, "layers.1.resid_post"),
        "interchange": interchange(model, TEXTS, TEXTS[::-1], answers, "layers.1.resid_post", subspace=two),
        "evaluate_features": evaluate_features(model, features, TEXTS, planted=torch.randn(20, 32)),
        "feature_dashboard": feature_dashboard(model, features, TEXTS),
        "attribution_graph": attribution_graph(model, TEXTS[0], [transcoder]),
    }  # fmt: skip


def test_every_result_prints_and_becomes_json_and_a_page(model: Model):
    for name, result in results(model).items():
        json.dumps(result.to_json(), allow_nan=False)
        assert "<main" in result.to_html(), name
        compile(result.receipt.code, "receipt", "exec")
        assert f"from cutaway.interp import {name}" in result.receipt.code
        assert result.receipt.milliseconds > 0
        for width in (50, 100):
            console = Console(file=io.StringIO(), width=width)
            console.print(result)
            assert isinstance(console.file, io.StringIO)
            lines = console.file.getvalue().splitlines()
            assert all(cell_len(line) <= width for line in lines), name


def test_what_a_probe_suggests_can_be_tried(model: Model):
    found = check(probe(model, TEXTS, LABELS))
    assert len(found["claims"].rows) == 3
    assert any(abs(row[2]) > 1e-3 for row in found["claims"].rows)
    assert -1 <= found.figures["Pearson correlation"] <= 1


def test_saved_transcoders_are_given_by_their_folders(model: Model, tmp_path: Path):
    made = train_features(model, TEXTS, "layers.1.mlp", width=16, k=2, samples=1_000, batch=32, transcoder=True)
    folder = str(made.save(tmp_path / "of layer 1"))
    found = analyse("attribution_graph", model, TEXTS[0], {"transcoders": [folder], "token": "a"})
    assert isinstance(found, Panel)
    assert found.figures == attribution_graph(model, TEXTS[0], [made], token="a").figures
    bare = attribution_graph(model, TEXTS[0])
    assert bare.figures["active features"] == 0
    assert bare.weights[0].sum() == pytest.approx(float(bare.values[-len(bare.rows)]), abs=1e-4)
