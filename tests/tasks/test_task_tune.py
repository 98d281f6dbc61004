"""A search for settings: bounded, by validation data alone, no worse than the usual values, and one that goes on."""

from pathlib import Path
from typing import Any

import pytest
from task_toys import write_base, write_reviews

from cutaway.errors import ConfigError, Interrupted
from cutaway.tasks import TaskConfig, repeat, resume_task, train_task


def config(folder: Path, out: str, **settings: Any) -> TaskConfig:
    if not (folder / "base").exists():
        write_base(folder / "base", "bert")
        write_reviews(folder / "reviews.tsv", 120)
    values: dict[str, Any] = {"epochs": 0.5, "batch": 16, "threads": 1, "dtype": "fp32", "evaluations": 1, "test": 0.0}
    values |= {"start": str(folder / "base"), "how": "lora", "trials": 6, "search": ("lr", "dropout"), "valid": 0.3}
    return TaskConfig("classify", str(folder / "reviews.tsv"), str(folder / out), **{**values, **settings})


def test_it_ends_with_the_best_and_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = train_task(config(tmp_path, "whole"))
    assert [trial.number for trial in whole.trials] == list(range(1, 7))
    assert whole.trials[0].settings == {"lr": 1e-3, "dropout": 0.1}  # the usual values
    assert all(1e-4 <= trial.settings["lr"] <= 5e-3 for trial in whole.trials)
    assert len({trial.settings["lr"] for trial in whole.trials}) == 6
    best = max(whole.trials, key=lambda trial: trial.figure)
    about = whole.model.about
    assert {name: about["config"][name] for name in best.settings} == best.settings
    assert about["training"]["accuracy"] == pytest.approx(best.figure, abs=1e-6)  # of the same run once more
    asked = 0

    def stopped(*words: Any, **more: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 6:
            raise Interrupted("stopped by Ctrl-C. Continue with: nothing")
        return original(*words, **more)

    original = repeat.figures_on
    monkeypatch.setattr(repeat, "figures_on", stopped)
    with pytest.raises(Interrupted, match="cutaway task train --resume"):
        train_task(config(tmp_path, "stopped"))
    files = sorted((tmp_path / "stopped/run").glob("trial-*/trial.json"))
    done = [path.stat().st_mtime_ns for path in files]
    again = resume_task(tmp_path / "stopped")
    assert [path.stat().st_mtime_ns for path in files] == done  # what was tried is not tried again
    assert len(done) == 5
    assert [(one.settings, one.figure) for one in again.trials] == [(one.settings, one.figure) for one in whole.trials]


def test_time_ends_it(tmp_path: Path):
    made = train_task(config(tmp_path, "short", trials=1000, minutes=0.001))
    assert len(made.trials) == 1


def test_what_cannot_be_searched_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="unknown setting to search"):
        config(tmp_path, "out", search=("lrr",))
    with pytest.raises(ConfigError, match="chooses by validation data"):
        train_task(config(tmp_path, "out", valid=0.0))
