"""/v1/embeddings: a vector for each text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cutaway.serve.schema.base import Asked, ModelName, ReadUsage, Told, User
from cutaway.serve.schema.texts import Texts


class EmbeddingRequest(Asked):
    """What is asked of /v1/embeddings."""

    model: ModelName
    input: Texts
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        Field(description="base64: of the float32 numbers, little-endian. Default: float."),
    ] = None
    dimensions: Annotated[
        int | None,
        Field(
            ge=1,
            le=2**18,
            description="Only the first so many numbers, scaled to length 1 again; less than all where the server was "
            "told that the model is made for it (Matryoshka).",
        ),
    ] = None
    user: User = None


class Embedding(Told):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingList(Told):
    """The answer of /v1/embeddings."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: ReadUsage
