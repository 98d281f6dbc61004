"""Texts and labels: from MiniLM, beside TF-IDF and logistic regression."""

import tempfile
from pathlib import Path
from typing import Any

import _bench
from _minilm import MINILM

from cutaway.tasks import TaskConfig, Trained, train_task


def trained(name: str, quick: bool, **settings: Any) -> Trained:
    """A model of one data set, on its own splits where it has them."""
    suffix = next(path for path in _bench.data(name).iterdir() if path.name.startswith("train.")).name[5:]
    splits = {split: str(_bench.data(name, split + suffix)) for split in ("valid", "test")
              if _bench.data(name).joinpath(split + suffix).exists()}  # fmt: skip
    with tempfile.TemporaryDirectory() as room:
        files = {"data": str(_bench.data(name, "train" + suffix)), **splits}
        length: dict[str, Any] = {"epochs": 0.05} if quick else {}
        return train_task(
            TaskConfig(out=str(Path(room, "model")), **{"task": "classify", **files, **settings, **length})
        )


def figure_of(made: Trained, name: str, goal: str) -> dict[str, Any]:
    """A figure of a report, beside the baseline's."""
    report = made.report
    assert report is not None
    found = report.figures[name]
    words: dict[str, Any] = {"cutaway": f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"}
    if report.baseline is not None:
        words |= {"peer": f"{report.baseline[name].value:.4f}", "peer_name": report.baseline_name, "p": report.p}
    return _bench.figure([found.value], goal, **words, seconds=round(made.seconds, 1))


def sms_spam(quick: bool) -> dict[str, Any]:
    made = trained("sms_spam", quick, start=MINILM, epochs=3)
    return {"sms_spam_f1": figure_of(made, "macro_f1", ">= 0.975")}


PARTS = [sms_spam]
