"""/v1/tag: the labels of a text's tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cutaway.serve.schema.base import Asked, ModelName, ReadUsage, Told, User
from cutaway.serve.schema.texts import wanted


class TagRequest(Asked):
    """What is asked of /v1/tag."""

    model: ModelName
    input: Annotated[
        str | Annotated[list[str], Field(fail_fast=True, min_length=1)],
        wanted("must be a text or a list of texts"),
        Field(description="One text or several. At most `max_inputs`."),
    ]
    user: User = None


class TaggedToken(Told):
    """One token of a text."""

    start: Annotated[int, Field(description="Where it begins, in characters (Unicode code points) of the text.")]
    end: Annotated[int, Field(description="Where it ends: the first character behind it.")]
    label: Annotated[str, Field(description="The likeliest.")]
    score: Annotated[float, Field(description="Its probability.")]


class Span(Told):
    """Tokens beside each other that belong together: of one label, B- beginning and I- continuing it."""

    start: int
    end: int
    text: str
    label: Annotated[str, Field(description="Without B- or I-; what is labelled O is in no span.")]
    score: Annotated[float, Field(description="The mean of its tokens'; of a task's model its probability.")]


class Tagged(Told):
    """One text."""

    index: int
    tokens: Annotated[list[TaggedToken], Field(description="None of a task's model, which answers with spans.")]
    spans: list[Span]


class Tagging(Told):
    """The answer of /v1/tag."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    labels: list[str]
    data: list[Tagged]
    usage: ReadUsage
