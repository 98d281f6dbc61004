"""/v1/classify: the labels of texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cutaway.serve.schema.base import Asked, ModelName, ReadUsage, Told, User
from cutaway.serve.schema.texts import Texts


class ClassifyRequest(Asked):
    """What is asked of /v1/classify."""

    model: ModelName
    input: Texts
    user: User = None


class Classified(Told):
    """What one text is."""

    index: int
    label: Annotated[
        str | None,
        Field(
            description="The likeliest; of a task's model what it answers: null where it abstains, and where several "
            "labels may hold and none does."
        ),
    ]
    probs: Annotated[list[float], Field(description="Of each label, in the order of `labels`.")]
    num_classes: int
    said: Annotated[
        list[str] | None,
        Field(description="Of a task's model, the labels that it says hold, by its thresholds; null of other models."),
    ] = None


class Classification(Told):
    """The answer of /v1/classify."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    labels: list[str]
    labelling: Annotated[
        Literal["one", "several"],
        Field(description="one: a text has one of the labels, their probabilities sum to 1; several: each by itself."),
    ]
    data: list[Classified]
    usage: ReadUsage
