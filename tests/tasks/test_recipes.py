"""Recipes: a name that stands for a task with settings; and decisions on the command line."""

import json
from pathlib import Path

import pytest

from cutaway.cli._frame import run_verb
from cutaway.errors import ConfigError
from cutaway.tasks import RECIPES, task_config, task_from


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_task_and_a_training_that_can_be(name: str):
    config = task_config({"task": name, "data": "x", "out": "y", "start": "checkpoint"})
    assert config.task == task_from(dict(RECIPES[name].task))
    assert all(getattr(config, field) == value for field, value in RECIPES[name].training.items())


def test_what_the_user_says_comes_first():
    given = {"task": {"name": "moderation", "reach": 0.5}, "data": "x", "out": "y", "start": "checkpoint", "lr": 1e-5}
    config = task_config(given)
    assert (config.task.reach, config.task.thresholds, config.lr) == (0.5, "precise", 1e-5)
    assert task_config({**given, "minutes": 3.0}).epochs is None  # the time says how many
    assert task_config({**given, "start": ""}).freeze == 0  # rates of a checkpoint are not those of fresh weights


def test_what_is_neither_task_nor_recipe_is_told():
    with pytest.raises(ConfigError, match="moderation"):
        task_config({"task": "moderatoin", "data": "x", "out": "y"})


def test_tasks_and_recipes_are_listed(capsys: pytest.CaptureFixture[str]):
    assert run_verb("task", ["list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recipes"].keys() == RECIPES.keys()
    assert "classify" in told["tasks"]


def test_a_recipe_is_trained_and_decides_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [(("好 房间", "差 房间")[n % 2] + f" 第{n}", ("good", "bad")[n % 2]) for n in range(80)]
    table = tmp_path / "reviews.tsv"
    table.write_text("文本\t标签\n" + "".join(f"{text}\t{label}\n" for text, label in rows), "utf-8")
    sets = ["size=1", "vocab_size=300", "threads=1", "dropout=0"]
    words = ["train", "sentiment", "--data", str(table), "--out", str(tmp_path / "model"), "--epochs", "8", "--json"]
    assert run_verb("task", words + [word for one in sets for word in ("--set", one)]) == 0
    assert json.loads(capsys.readouterr().out)["report"]["figures"]["accuracy"]["value"] > 0.95
    assert run_verb("task", ["decide", str(tmp_path / "model"), "差 房间", "--json", "--language", "zh"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["answer"] == "bad"
    assert record["grounds"][0]["words"][0][0] == "差"
    assert record["sentence"].startswith("您的文本被标记为“bad”")
