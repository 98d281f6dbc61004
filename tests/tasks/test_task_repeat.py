"""Several seeds, cross-validation and learning curves: what is counted, and that no text is on both sides."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_toys import reviews, write_base, write_reviews

from cutaway.errors import ConfigError, InputError
from cutaway.tasks import Example, TaskConfig, read_data, task_from, train_task
from cutaway.tasks.classify import Classify
from cutaway.tasks.repeat import T95, folds_of, mean_interval, smaller


def config(folder: Path, **settings: Any) -> TaskConfig:
    if not (folder / "base").exists():
        write_base(folder / "base", "bert")
        write_reviews(folder / "reviews.tsv", 120)
    values: dict[str, Any] = {"epochs": 2, "lr": 0.01, "batch": 16, "dropout": 0.0, "threads": 1, "dtype": "fp32"}
    values |= {"evaluations": 1, "start": str(folder / "base"), "how": "lora"}
    return TaskConfig("classify", str(folder / "reviews.tsv"), str(folder / "model"), **{**values, **settings})


def test_the_interval_over_seeds_is_students():
    stats = import_module("scipy.stats")
    assert pytest.approx([stats.t.ppf(0.975, n) for n in range(1, 31)], abs=6e-4) == list(T95)
    values = [0.81, 0.84, 0.79, 0.86]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    found = mean_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((0.825, low, high), abs=1e-4)
    assert mean_interval([0.5]).low == 0.5


def test_folds_share_no_text_and_are_alike():
    task = Classify(several="no")
    texts = [f"text {number // 2}" + " " * (number % 2) for number in range(60)]  # each twice, but for white space
    examples = [Example(f"t:{n}", {"text": text}, (("a", "b")[n % 6 == 0],)) for n, text in enumerate(texts)]
    folds = folds_of(task, examples, 5)
    assert sorted(np.concatenate(folds).tolist()) == list(range(60))
    said = [{texts[number].strip() for number in fold.tolist()} for fold in folds]
    assert all(not a & b for n, a in enumerate(said) for b in said[:n])
    assert [len(fold) for fold in folds] == [12] * 5
    assert [sum(examples[number].truth == ("b",) for number in fold.tolist()) for fold in folds] == [2] * 5
    assert [fold.tolist() for fold in folds_of(task, examples, 5)] == [fold.tolist() for fold in folds]
    with pytest.raises(InputError, match="30 different texts cannot be divided into 31 folds"):
        folds_of(task, examples, 31)


def test_a_smaller_part_is_inside_a_larger_one(tmp_path: Path):
    data = read_data(Classify(), write_reviews(tmp_path / "reviews.tsv", 200))
    parts = [{one.source for one in smaller(data.task, data, share).splits["train"]} for share in (0.1, 0.25, 0.5)]
    assert [len(part) for part in parts] == [16, 40, 80]
    assert parts[0] < parts[1] < parts[2]


def test_the_best_seed_is_kept_and_all_are_told(tmp_path: Path):
    made = train_task(config(tmp_path, seeds=2, curve=(0.5, 1.0), test=0.2))
    assert [row["seed"] for row in made.repeated.seeds] == [0, 1]
    record = json.loads((tmp_path / "model" / "task.json").read_text())["about"]
    best = max(made.repeated.seeds, key=lambda row: row["valid"])
    assert record["run"] == f"run/seed-{best['seed']}"
    assert made.report
    assert made.report.figures["accuracy"].value == best["test"]
    tests = [row["test"] for row in made.repeated.seeds]
    assert record["over_seeds"]["test"]["value"] == pytest.approx(np.mean(tests))
    (few, first), (all_of_them, last) = made.repeated.curve
    assert (few, all_of_them) == (42, 84)
    assert last["accuracy"].value == best["test"]
    assert set(first) == set(last)


def test_every_example_is_answered_by_a_model_that_has_not_seen_it(tmp_path: Path):
    made = train_task(config(tmp_path, folds=2, epochs=1))
    records = [json.loads(line) for line in (tmp_path / "model" / "folds.jsonl").read_text().splitlines()]
    assert len({record["source"] for record in records}) == len(records) == 120
    assert made.report
    assert made.report.examples == 120
    assert made.report.split == "2 folds"
    assert made.report.figures["accuracy"].value == pytest.approx(np.mean([record["right"] for record in records]))
    assert made.report.baseline
    assert [fold["examples"] for fold in made.repeated.folds] == [60, 60]


def test_what_makes_no_sense_is_refused():
    cases: list[tuple[dict[str, Any], str]] = [
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"folds": 1}, "folds must be 2 or more"),
        ({"curve": (2.0,)}, "curve holds shares"),
        ({"folds": 3, "domain_minutes": 1.0}, "show each model the texts"),
    ]
    for settings, words in cases:
        with pytest.raises(ConfigError, match=words):
            TaskConfig("classify", "a.csv", "out", **settings)


def test_time_is_kept_for_what_follows_the_training(tmp_path: Path):
    told: list[str] = []
    made = train_task(config(tmp_path, minutes=0.02, epochs=None, test=0.2), on_note=told.append)
    assert any("are kept for calibration and measuring" in text for text in told)
    assert made.report
    planned = next(text for text in told if " steps fit " in text)
    minutes = float(planned.split(" fit ")[1].split(" minutes")[0])
    assert minutes < 0.02  # of the time for all of it


def test_what_belongs_together_is_in_one_fold():
    task = task_from("pair")
    given = [{"first": f"question {n // 3}", "second": f"answer {n}"} for n in range(60)]
    examples = [Example(f"t:{n}", values, (("yes", "no")[n % 2],)) for n, values in enumerate(given)]
    folds = folds_of(task, examples, 4)
    asked = [{given[number]["first"] for number in fold.tolist()} for fold in folds]
    assert all(not a & b for n, a in enumerate(asked) for b in asked[:n])
    assert [len(fold) for fold in folds] == [15] * 4


def test_answers_that_are_compared_with_each_other_have_no_folds():
    with pytest.raises(ConfigError, match="leave folds out"):
        TaskConfig("embed", "t.csv", "out", folds=2)


def test_a_fold_without_a_label_is_learned_too(tmp_path: Path):
    rows = "".join(f"{text}\t{label}\n" for text, label in reviews(30)) + "an odd film\tstrange\n"
    (tmp_path / "t.tsv").write_text("text\tlabel\n" + rows, "utf-8")
    fresh: dict[str, Any] = {"size": 1, "vocab_size": 300, "epochs": 1, "threads": 1}
    task = {"name": "classify", "balance": True}
    made = train_task(TaskConfig(task, str(tmp_path / "t.tsv"), str(tmp_path / "model"), folds=2, **fresh))
    assert sum(fold["examples"] for fold in made.repeated.folds) == 31


def test_without_validation_data_no_seed_is_called_the_best(tmp_path: Path):
    notes: list[str] = []
    train_task(config(tmp_path, seeds=2, valid=0.0, epochs=1), on_note=notes.append)
    (said,) = [note for note in notes if "seed" in note]
    assert said == "without validation data the first seed counts: its model is kept"


def test_folds_of_questions_are_written_too(tmp_path: Path):
    lines = [{"question": f"who is {n}?", "context": f"{n} is Ada, or Bo", "answer": "Ada"} for n in range(20)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    fresh: dict[str, Any] = {"size": 1, "vocab_size": 300, "epochs": 1, "threads": 1}
    train_task(TaskConfig("answer", str(tmp_path / "t.jsonl"), str(tmp_path / "model"), folds=2, **fresh))
    told = [json.loads(line) for line in (tmp_path / "model" / "folds.jsonl").read_text("utf-8").splitlines()]
    assert len(told) == 20
    assert all(one["truth"][0]["text"] == "Ada" for one in told)
