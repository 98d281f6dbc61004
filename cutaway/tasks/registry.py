"""Every task by its name. A new task is one file and one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cutaway.errors import ConfigError, unknown
from cutaway.settings import build
from cutaway.tasks.answer import AnswerQuestions
from cutaway.tasks.classify import Classify
from cutaway.tasks.embed import Embed
from cutaway.tasks.pair import Pair
from cutaway.tasks.summarise import Summarise
from cutaway.tasks.tag import Tag
from cutaway.tasks.task import Task
from cutaway.tasks.translate import Translate
from cutaway.tasks.zero import Nearest, Score

TASKS: dict[str, type[Task]] = {
    "classify": Classify,
    "nearest": Nearest,
    "score": Score,
    "tag": Tag,
    "answer": AnswerQuestions,
    "embed": Embed,
    "pair": Pair,
    "summarise": Summarise,
    "translate": Translate,
}


def task_from(value: Any) -> Task:
    """A task from its name, a table with its name and settings, or itself.

    Raises:
        ConfigError: an unknown name or setting, or a value of the wrong type.
    """
    if isinstance(value, Task):
        return value
    settings = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else None
    if settings is None:
        raise ConfigError(f"a task must be a name or a table with a name and settings, but {value!r} was given")
    name = settings.pop("name", None)
    if name not in TASKS:
        raise ConfigError(unknown("task", str(name), TASKS))
    return build(TASKS[name], settings, where=f"task {name}")
