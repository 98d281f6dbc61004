"""/v1/rerank: which documents answer a question."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cutaway.serve.schema.base import Asked, ModelName, ReadUsage, Told, User
from cutaway.serve.schema.texts import wanted


class AskedDocument(Asked):
    """A document as an object."""

    text: str


class RerankRequest(Asked):
    """What is asked of /v1/rerank."""

    model: ModelName
    query: Annotated[str, Field(min_length=1, description="What the documents should answer.")]
    documents: Annotated[
        list[Annotated[str | AskedDocument, wanted('must be a text, or {"text": …} and nothing else')]],
        Field(
            fail_fast=True,
            min_length=1,
            description="What is to be ordered, each a text or an object with one. At most `max_inputs`.",
        ),
    ]
    top_n: Annotated[int | None, Field(ge=1, lt=2**31, description="How many of the best are told; null: all.")] = None
    return_documents: Annotated[bool | None, Field(description="Whether their texts are told too. Default: true.")] = (
        None
    )
    user: User = None


class Document(Told):
    """A document in the answer."""

    text: str


class Ranked(Told):
    """One document in its place."""

    index: Annotated[int, Field(description="In the request.")]
    relevance_score: float
    document: Document | None = None


class Ranking(Told):
    """The answer of /v1/rerank, the best first."""

    id: str
    model: str
    scored_by: Annotated[
        Literal["cross_encoder", "cosine"],
        Field(
            description="cross_encoder: the model read the query and each document together, and the score is the "
            "sigmoid of its number, or the number where it was trained to say one. cosine: it read each by itself, and "
            "the score is the cosine between their vectors, -1 to 1."
        ),
    ]
    results: list[Ranked]
    usage: ReadUsage
