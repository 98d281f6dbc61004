"""Texts and labels: from MiniLM, beside TF-IDF and logistic regression.

What is chosen (how much is learned, rates, passes, thresholds, the weights of network and words) was chosen on
validation data: the set's own, or a tenth of what is trained on.
"""

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import _bench
from _minilm import MINILM

from cutaway.tasks import Trained, train_task
from cutaway.tasks.recipes import task_config

EVERY = 20  # of the lines of a file, one is read in quick mode


def trained(name: str, quick: bool, *, folder: Path | None = None, **settings: Any) -> Trained:
    """A model of one data set, on its own splits where it has them."""
    folder = folder or _bench.data(name)
    suffix = next(path for path in folder.iterdir() if path.name.startswith("train.")).name[5:]
    names = [split for split in ("train", "valid", "test") if (folder / (split + suffix)).exists()]
    with tempfile.TemporaryDirectory() as room:
        files = {split: str(folder / (split + suffix)) for split in names}
        if quick:
            files = {split: fewer(Path(path), Path(room)) for split, path in files.items()}
            settings["epochs"] = 1
        files["data"] = files.pop("train")
        task = settings.pop("task", {})
        task = {"name": task} if isinstance(task, str) else task
        task = task if "name" in task else {"name": "classify", "several": "no", **task}
        values = {"start": MINILM, **files, **settings}
        return train_task(task_config({"task": task, "out": str(Path(room, "model")), **values}))


def fewer(path: Path, room: Path) -> str:
    """A file with some of the lines, and the first of a table, which names its columns."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        lines = file.readlines()
    kept = lines[::EVERY]
    if ".tsv" not in path.name:
        kept = lines[1::EVERY]
    made = room / path.name.removesuffix(".gz")
    made.write_text("".join(kept), "utf-8")
    return str(made)


def figure_of(made: Trained, name: str, goal: str) -> dict[str, Any]:
    """A figure of a report, beside the baseline's."""
    report = made.report
    assert report is not None
    found = report.figures[name]
    words: dict[str, Any] = {"cutaway": f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"}
    if report.baseline is not None:
        words |= {
            "peer": f"{report.baseline[name].value:.4f}",
            "peer_name": report.baseline_name,
            "p": report.p_values[name],
        }
    return _bench.figure([found.value], goal, **words, seconds=round(made.seconds, 1))


def sms_spam(quick: bool) -> dict[str, Any]:
    made = trained("sms_spam", quick, probe="only", task={"words": True, "favour": "macro_f1"})
    return {"sms_spam_f1": figure_of(made, "macro_f1", ">= 0.975")}


def sst2(quick: bool) -> dict[str, Any]:
    made = trained("sst2", quick, probe="first", epochs=2, lr=1e-4, freeze=1, evaluations=2, task={"words": True})
    return {"sst2_accuracy": figure_of(made, "accuracy", ">= 0.89")}


def imdb(quick: bool) -> dict[str, Any]:
    task = {"words": True, "long": "ends", "window": 192}
    return {"imdb_accuracy": figure_of(trained("imdb_subset", quick, probe="only", task=task), "accuracy", ">= 0.89")}


def banking77(quick: bool) -> dict[str, Any]:
    made = trained("banking77", quick, probe="only", task={"words": True})
    return {"banking77_accuracy": figure_of(made, "accuracy", ">= 0.935")}


def clinc150(quick: bool) -> dict[str, Any]:
    made = trained("clinc150", quick, probe="only", task={"out_of_scope": "oos"})
    return {"clinc150_accuracy": figure_of(made, "accuracy", ">= 0.87")}


def davidson(quick: bool) -> dict[str, Any]:
    made = trained("davidson_hate_offensive", quick, probe="only", task={"words": True, "favour": "macro_f1"})
    return {"davidson_f1": figure_of(made, "macro_f1", ">= 0.75")}


def unfair_tos(quick: bool) -> dict[str, Any]:
    """A sentence is unfair where a tag of it is of level 2 or 3 (potentially, or clearly unfair)."""
    with tempfile.TemporaryDirectory() as room:
        for split in ("train", "test"):
            with gzip.open(_bench.data("unfair_tos_en", split + ".jsonl.gz"), "rt", encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
            told = [{"text": row["text"], "label": "unfair" if _unfair(row["tags"]) else "fair"} for row in rows]
            Path(room, split + ".jsonl").write_text("".join(json.dumps(one) + "\n" for one in told), "utf-8")
        task = {"words": True, "favour": "macro_f1"}
        made = trained("unfair_tos_en", quick, folder=Path(room), probe="only", context=128, task=task)
    return {"unfair_tos_f1": figure_of(made, "macro_f1", ">= 0.80")}


def _unfair(tags: list[str]) -> bool:
    return any(tag[-1] in "23" for tag in tags)


PARTS = [sms_spam, sst2, imdb, banking77, clinc150, davidson, unfair_tos]
