"""Changes that were made are the changes that are found."""

import copy
from pathlib import Path

import pytest
import torch
from kinds import TEXT, letters, made

from cutaway import train
from cutaway.errors import ConfigError, InputError
from cutaway.interp import checkpoint_differences, head_detectors, over_training, weight_difference
from cutaway.models import Model, load_model
from cutaway.models.model import checkpoints
from cutaway.tokenizers import TokenStore
from cutaway.training import Run, TrainConfig


def test_a_change_of_rank_one_is_seen_as_such():
    model = made("llama", letters())
    other = Model(copy.deepcopy(model.network), model.tokenizer, "another test")
    name = "layers.1.self_attn.q_proj.weight"
    weight = other.network.blocks[1].self_attn.q_proj.weight  # pyright: ignore
    torch.manual_seed(1)
    with torch.no_grad():
        added = torch.outer(torch.randn(len(weight)), torch.randn(weight.shape[1]))
        weight.add_(0.01 * weight.norm() / added.norm() * added)
        other.network.norm.weight.mul_(2)  # pyright: ignore
    found = weight_difference(model, other)
    rows = {row[0]: row[2:] for row in found.rows}
    assert rows[name][0] == pytest.approx(0.01, rel=1e-3)
    assert rows[name][2] == pytest.approx(1, rel=1e-2)
    assert rows["norm.weight"][:2] == pytest.approx([1, 1], rel=1e-6)
    assert [row[0] for row in found.rows[:2]] == ["norm.weight", name]
    assert all(row[2] == 0 and row[3] == pytest.approx(1) for row in found.rows[2:])
    only = weight_difference(model, other, "*q_proj*", rank=False)
    assert len(only.rows) == 2
    assert only.rows[0][4] is None


def test_models_that_differ_otherwise_are_refused():
    tokenizer = letters()
    with pytest.raises(ConfigError, match=r"q_norm\.weight is of shape \(8,\) in the first and missing in the second"):
        weight_difference(made("qwen3", tokenizer, tied=False), made("llama", tokenizer))
    with pytest.raises(ConfigError, match="the two models differ"):
        weight_difference(made("llama", tokenizer), made("llama", tokenizer, width=40))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    tokenizer = letters()
    TokenStore.from_texts({"train": [TEXT * 40], "valid": [TEXT * 10]}, tokenizer, folder / "data")
    network = {"layers": 2, "width": 16, "heads": 2}
    config = TrainConfig(
        data=str(folder / "data"),
        out=str(folder / "run"),
        network=network,
        context=32,
        batch=4,
        steps=12,
        save_every=4,
        keep=9,
        dtype="fp32",
        compile="off",
        baseline=False,
        tensorboard="off",
    )
    return train(config)


def test_the_checkpoints_of_a_run_move(run: Run):
    found = checkpoint_differences(run)
    steps = found["all weights"].at  # pyright: ignore[reportAttributeAccessIssue]
    assert steps == [float(int(place.name[5:])) for place in checkpoints(run.folder)[::-1]]
    assert len(steps) >= 3
    lines = found["all weights"].lines  # pyright: ignore[reportAttributeAccessIssue]
    assert lines["since the first"][0] == lines["since the one before"][0] == 0
    assert lines["since the first"][-1] > lines["since the first"][1] > 0
    last = load_model(checkpoints(run.folder)[0])
    first = load_model(checkpoints(run.folder)[-1])
    own = {row[0]: row[2] for row in weight_difference(first, last).rows}
    for row in found["first to last"].rows:  # pyright: ignore[reportAttributeAccessIssue]
        assert row[1] == pytest.approx(own[row[0]], rel=1e-9)
    code = found.receipt.code
    assert "checkpoint_differences('" in code
    assert checkpoint_differences(str(run.folder), "*q_proj*")["first to last"].rows[0][0].endswith("q_proj.weight")  # pyright: ignore


def test_scores_over_a_run_are_those_of_its_checkpoints(run: Run):
    found = over_training(run, scores=("previous", "induction"), seed=3)
    last = load_model(checkpoints(run.folder)[0])
    detected = head_detectors(last, seed=3)
    for score in ("previous", "induction"):
        ours = found[score].values[-1]  # pyright: ignore[reportAttributeAccessIssue]
        torch.testing.assert_close(ours, detected[score].values.flatten())  # pyright: ignore[reportAttributeAccessIssue]
    losses = found["loss"].lines["loss"]  # pyright: ignore[reportAttributeAccessIssue]
    assert losses[-1] == pytest.approx(detected.figures["bits of repeated tokens"], abs=1e-6)
    lens = found["lens"].values  # pyright: ignore[reportAttributeAccessIssue]
    assert lens.shape == (len(losses), 3)
    assert lens[:, -1].tolist() == pytest.approx(losses, abs=1e-5)
    text = over_training(run.folder, TEXT, scores=())
    assert text.figures["last loss in bits"] < text["loss"].lines["loss"][0]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match="did you mean induction"):
        over_training(run, scores="inductions")


def test_what_is_no_run_is_refused(run: Run, tmp_path: Path):
    with pytest.raises(InputError, match="is no run folder"):
        checkpoint_differences(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="has 0 checkpoints, but 2 are needed"):
        checkpoint_differences(tmp_path)
