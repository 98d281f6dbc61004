"""Raw text first: a network of any kind goes on pre-training on it, and then learns the task."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from task_toys import reviews, write_base, write_reviews

from cutaway.models import load_model
from cutaway.tasks import TaskConfig, domain, open_task, train_task
from cutaway.training import TrainConfig

TEXTS = ["the film was superb", "a story with dreadful music"]


@pytest.fixture(autouse=True)
def _by_steps(monkeypatch: pytest.MonkeyPatch):
    """How long pre-training takes is counted in steps here, as a busy machine takes few in a time."""
    monkeypatch.setattr(domain, "TrainConfig", lambda **keys: TrainConfig(**{**keys, "minutes": None, "steps": 40}))


def run_of(folder: Path, **settings: Any) -> Any:
    data = write_reviews(folder / "reviews.tsv", 120)
    raw = folder / "raw"
    raw.mkdir()
    for number, (text, _) in enumerate(reviews(300, seed=7)):
        (raw / f"{number}.txt").write_text(f"{text}. It ran for {number} weeks, they say.\n", "utf-8")
    values: dict[str, Any] = {"epochs": 1, "batch": 16, "threads": 1, "evaluations": 1, "dtype": "fp32", "test": 0.0}
    values |= {"domain_minutes": 0.03, "size": 1, "vocab_size": 320, "domain": (str(raw),)}
    return train_task(TaskConfig("classify", str(data), str(folder / "model"), **{**values, **settings}))


@pytest.mark.parametrize(("kind", "how"), [("bert", "lora"), ("llama", "full")])
def test_a_checkpoint_goes_on_and_what_it_became_is_kept(kind: str, how: str, tmp_path: Path):
    write_base(tmp_path / "base", kind)
    made = run_of(tmp_path, start=str(tmp_path / "base"), how=how)
    folder = tmp_path / "model"
    rows = [json.loads(line) for line in (folder / "run/domain/run/metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows if "loss" in row][-1] < rows[0]["loss"]
    became: Any = load_model(folder / "run/domain/model")
    assert became.config.head == ("causal_lm" if kind == "llama" else "masked_lm")
    assert not (folder / "run/domain/own.jsonl").exists()
    base = load_model(tmp_path / "base").network.state_dict()
    now = became.network.state_dict()
    assert not torch.equal(base["layers.0.mlp.up_proj.weight"], now["layers.0.mlp.up_proj.weight"])
    ours = made.model.model.network
    if how == "lora":  # it stands on what it became, which lies beside it
        assert torch.equal(ours.layers[0].mlp.up_proj.base.weight, now["layers.0.mlp.up_proj.weight"])
        assert json.loads((folder / "task.json").read_text())["base"] == "base"
        (tmp_path / "base").rename(tmp_path / "gone")
        folder = folder.rename(tmp_path / "moved")
    said = [answer.to_json() for answer in made.model.predict(TEXTS)]
    assert [answer.to_json() for answer in open_task(folder).predict(TEXTS)] == said


def test_fresh_weights_read_the_tasks_own_training_texts_too(tmp_path: Path):
    run_of(tmp_path, domain=())
    folder = tmp_path / "model" / "run" / "domain"
    own = [json.loads(line)["text"] for line in (folder / "own.jsonl").read_text().splitlines()]
    assert len(own) == 108  # none that is held out
    assert load_model(tmp_path / "model").tokenizer.fingerprint == load_model(folder / "model").tokenizer.fingerprint
