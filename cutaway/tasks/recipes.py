"""Recipes: settings of a task and of its training under the name of what they are for, as plain data.

A recipe's name stands for a task wherever one is given; what the user says himself comes before what a recipe says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cutaway.errors import ConfigError, unknown
from cutaway.settings import build
from cutaway.tasks.config import TaskConfig
from cutaway.tasks.registry import TASKS


@dataclass(frozen=True)
class Recipe:
    """Settings that go together.

    Attributes:
        purpose: a line for people.
        task: of the task, its name with them.
        training: fields of TaskConfig where it begins with a checkpoint.
    """

    purpose: str
    task: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)


RECIPES: dict[str, Recipe] = {
    "spam": Recipe(
        "messages that nobody asked for, by what they mean and by the words and numbers in them",
        {"name": "classify", "several": "no", "words": True, "favour": "macro_f1"},
        {"epochs": 3, "lr": 2e-4, "freeze": 1},
    ),
    "sentiment": Recipe(
        "reviews and comments, good or bad; long ones by their beginning and their end",
        {"name": "classify", "several": "no", "words": True, "long": "ends", "window": 192},
        {"epochs": 3, "lr": 1e-4, "freeze": 1},
    ),
    "topics": Recipe(
        "which subjects an article is about: none, one or several; long ones in windows",
        {"name": "classify", "words": True, "long": "windows", "window": 192},
        {"epochs": 3, "lr": 1e-4, "freeze": 1},
    ),
    "intents": Recipe(
        "what a customer wants; what is none of the known wishes is told, and not guessed at",
        {"name": "classify", "several": "no", "out_of_scope": "oos"},
        {"epochs": 6, "lr": 4e-4, "batch": 64, "label_smoothing": 0.1, "freeze": 1},
    ),
    "moderation": Recipe(
        "what breaks a rule, each by its own threshold, with a reason that a person can appeal against",
        {"name": "classify", "several": "yes", "words": True, "thresholds": "precise", "reach": 0.8},
        {"epochs": 3, "lr": 1e-4, "freeze": 1},
    ),
    "unfair-terms": Recipe(
        "sentences of a contract that may be unfair to a consumer, each with its categories and their levels",
        {"name": "classify", "several": "yes", "words": True},
        {"epochs": 3, "lr": 1e-4, "freeze": 1},
    ),
    "diseases": Recipe(
        "names of diseases in medical texts",
        {"name": "tag"},
        {"epochs": 4, "lr": 3e-4, "batch": 16, "context": 128, "evaluations": 4},
    ),
    "personal-data": Recipe(
        "names, addresses, numbers of cards and telephones …, and the text without them",
        {"name": "tag", "redact": True},
        {"epochs": 10, "lr": 3e-4, "batch": 16, "context": 128, "evaluations": 5},
    ),
    "medical-pairs": Recipe(
        "whether two questions of patients ask the same, from a checkpoint that makes vectors of texts",
        {"name": "pair", "reads": "apart"},
        {"epochs": 10, "lr": 1e-3, "how": "head", "evaluations": 10},
    ),
}


def task_config(values: Mapping[str, Any]) -> TaskConfig:
    """A config from plain data, in which a recipe's name may stand for a task.

    Args:
        values: field -> value; None is what was not said. A task is its name, or a table with "name" and settings.

    Raises:
        ConfigError: the name of neither a task nor a recipe, an unknown setting, or a value out of range.
    """
    return build(TaskConfig, _unfolded({name: value for name, value in values.items() if value is not None}))


def _unfolded(values: Mapping[str, Any]) -> dict[str, Any]:
    given = values.get("task")
    own = {"name": given} if isinstance(given, str) else dict(given) if isinstance(given, Mapping) else None
    if own is None or own.get("name") in TASKS:
        return dict(values)
    name = str(own.pop("name", ""))
    if name not in RECIPES:
        raise ConfigError(unknown("task or recipe", name, [*TASKS, *RECIPES]))
    recipe = RECIPES[name]
    training = dict(recipe.training) if values.get("start") else {}
    if "minutes" in values:
        training.pop("epochs", None)
    return {**training, **values, "task": {**recipe.task, **own}}
