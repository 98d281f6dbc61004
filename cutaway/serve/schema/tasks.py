"""/v1/tasks: what tasks' models read, and what they answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cutaway.serve.schema.base import Asked, ModelName, Told, Usage, User
from cutaway.serve.schema.texts import wanted

Value = str | int | float | bool | Annotated[list[str], Field(fail_fast=True)] | None
Input = Annotated[
    str | Annotated[dict[str, Value], Field(max_length=64)],
    wanted("must be a text, or an object of role -> value, as /v1/tasks lists them"),
]


class PredictRequest(Asked):
    """What is asked of /v1/tasks/predict."""

    model: ModelName
    inputs: Annotated[
        list[Input],
        Field(
            fail_fast=True,
            min_length=1,
            description="Each a text, for the first role of the task, or an object of role -> value. At most "
            "`max_inputs`.",
        ),
    ]
    why: Annotated[bool, Field(description="Tell what each answer is owed to; of few inputs at a time.")] = False
    method: Annotated[
        str, Field(max_length=64, description="By which way that is found; the task's usual one if left out.")
    ] = ""
    part: Annotated[int, Field(ge=0, lt=2**31, description="Of which of an answer's parts (spans, sentences).")] = 0
    user: User = None


class Predicted(Told):
    """The answer to one input."""

    index: int
    answer: Annotated[
        Any, Field(description="A label, labels, spans, a text …, as the task has it; null where it abstains.")
    ]
    probability: Annotated[float | None, Field(description="That it is right, calibrated; null: the task gives none.")]
    more: Annotated[dict[str, Any], Field(description="What else the task tells: probabilities, offsets, sources …")]
    why: Annotated[
        dict[str, Any] | None,
        Field(description="What the answer is owed to, with its receipt; null where it was not asked for."),
    ] = None


class Prediction(Told):
    """The answer of /v1/tasks/predict."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    task: str
    data: list[Predicted]
    usage: Usage


class TaskRole(Told):
    """What an input gives."""

    name: str
    what: str
    needed: bool


class TaskCard(Told):
    """A model that was made for a task."""

    id: str
    object: Literal["task"] = "task"
    task: str
    summary: str
    roles: list[TaskRole]
    labels: list[str]


class TaskList(Told):
    """The answer of /v1/tasks."""

    object: Literal["list"] = "list"
    data: list[TaskCard]
