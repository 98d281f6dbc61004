"""Histograms hold every entry, and the gradients at a checkpoint are those that the run took next."""

import shutil
from pathlib import Path

import pytest
import torch
from kinds import TEXT, letters
from saved_page import Page, give_script

from cutaway import train
from cutaway.errors import InputError
from cutaway.interp import ridgelines, training_report
from cutaway.interp.results import Matrix
from cutaway.interp.weights.ridgelines import group_of
from cutaway.models import load_model
from cutaway.models.model import checkpoints
from cutaway.tokenizers import TokenStore
from cutaway.training import Run, TrainConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Twelve steps, three checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    TokenStore.from_texts({"train": [TEXT * 40], "valid": [TEXT * 10]}, letters(), folder / "data")
    config = TrainConfig(
        data=str(folder / "data"), out=str(folder / "run"), network={"layers": 2, "width": 16, "heads": 2},
        context=32, batch=4, steps=12, save_every=4, keep=9, dtype="fp32", compile="off", tensorboard="off",
        samples=("the",), sample_tokens=8,
    )  # fmt: skip
    return train(config)


def test_gradients_are_those_of_the_step_that_followed(run: Run) -> None:
    norms = {record["step"]: record["grad_norm"] for record in run.history if "grad_norm" in record}
    curve = ridgelines(run)["gradient norms"]
    assert curve.at == [4, 8, 12]
    assert curve.lines["all"][:2] == pytest.approx([norms[5], norms[9]], rel=1e-5)
    assert curve.lines["all"][0] != pytest.approx(norms[4], rel=1e-3)  # the control: another step's batch
    parts = [line for name, line in curve.lines.items() if name != "all"]
    assert [sum(line[i] ** 2 for line in parts) ** 0.5 for i in range(3)] == pytest.approx(curve.lines["all"])


def test_every_entry_of_a_layer_is_in_a_bin(run: Run) -> None:
    panel = ridgelines(run, bins=20)
    assert [name for name in panel.parts if name.startswith("weights of layer")] == [
        "weights of layer 0",
        "weights of layer 1",
    ]
    for name, part in panel.parts.items():
        if isinstance(part, Matrix):
            assert " of " in name
            assert part.values.shape == (3, 20)
            assert part.values.sum(1) == pytest.approx([1, 1, 1])
    shown = panel["weights of layer 1"]
    network = load_model(checkpoints(run.folder)[0]).network
    entries = torch.cat(
        [p.flatten() for name, p in network.named_parameters() if p.ndim > 1 and group_of(name) == "layer 1"]
    )
    centres = [float(column) for column in shown.columns]
    edge = (centres[9] + centres[10]) / 2
    assert float(shown.values[-1, 10:].sum()) == pytest.approx(float((entries > edge).double().mean()), abs=1e-3)


def test_without_its_corpus_a_run_has_weights_and_says_so(run: Run, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run.folder, copied)
    config = copied / "config.json"
    config.write_text(
        config.read_text("utf-8").replace(str(run.folder.parent / "data"), str(tmp_path / "none")), "utf-8"
    )
    panel = ridgelines(copied)
    assert panel.notes[0].startswith("no gradients: ")
    assert all(name.startswith("weights of ") for name in panel.parts)
    assert "gradient norms" not in ridgelines(run, gradients=False).parts


def test_groups_of_matrices() -> None:
    names = ["layers.11.mlp.up_proj.weight", "rnn.weight_hh_l1", "embed_tokens.weight", "lm_head.weight", "head.x"]
    assert [group_of(name) for name in names] == ["layer 11", "layer 1", "embedding", "output", "head"]


def test_a_report_holds_what_was_recorded_and_opens_without_a_server(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_script(tmp_path, monkeypatch)
    report = training_report(run, TEXT[:30])
    losses = [record["loss"] for record in run.history if "loss" in record]
    assert report["loss"].lines["training loss"] == losses
    assert report["samples"].rows[-1][:2] == [12, "the"]
    assert report["valid loss"].lines["n-gram model"][0] == pytest.approx(run.metrics["ngram_loss"])
    assert {"best heads", "lens", "weights of layer 0", "gradient norms"} <= report.parts.keys()
    assert report.figures["steps"] == 12
    held = Page(report.to_html()).parts[0]
    assert held["parts"]["loss"]["lines"] == report["loss"].lines
    assert held["parts"].keys() == report.parts.keys()
    assert not {"best heads", "weights of layer 0"} & training_report(run, inside=False).parts.keys()
    empty = tmp_path / "empty"
    (empty / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match="has recorded nothing yet"):
        training_report(empty)
