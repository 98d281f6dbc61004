"""/v1/embeddings: a vector for each text."""

from __future__ import annotations

import base64
from typing import Any

import torch
from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from torch import Tensor

from cutaway.models.heads import width_of
from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError
from cutaway.serve.schema.base import errors
from cutaway.serve.schema.embeddings import Embedding, EmbeddingList, EmbeddingRequest
from cutaway.serve.server import Work, server_of
from cutaway.serve.texts import as_list, framed, needs, told, usage

FEW = 64  # vectors that are written at once: that takes less time than handing them to a thread
router = APIRouter(prefix="/v1", route_class=JsonRoute)


@router.post("/embeddings", response_model=EmbeddingList, responses=errors(404, 413, 504))
async def embeddings(asked: EmbeddingRequest, http: HttpRequest) -> Response:
    """One vector for each text, as sentence-transformers makes them of the model's files."""
    with await server_of(http).begin(http, asked.model) as work:
        config = needs(work.loaded.model, "embedding", "embedding texts")
        width = _width(work, config, asked.dimensions)
        texts = await framed(work, as_list(asked.input), "input", longest=config.longest)
        vectors = await work.read(texts.ids)
        write = _base64 if asked.encoding_format == "base64" else Tensor.tolist

        def tell() -> Response:
            data = [Embedding(index=i, embedding=write(_cut(vector, width))) for i, vector in enumerate(vectors)]
            return told(EmbeddingList(data=data, model=asked.model, usage=usage(work)))

        return tell() if len(vectors) <= FEW else await work.attended(work.server.bridge.aside(tell))


def _width(work: Work, config: Any, wanted: int | None) -> int:
    """How many numbers of each vector are told.

    The beginning of a vector means something by itself only where a model was trained for it (Kusupati et al. 2022);
    its files do not say whether it was, so whoever runs the server does.
    """
    width = width_of(config)
    if wanted is None or wanted == width:
        return width
    name = work.loaded.name
    if wanted > width:
        message = f"{name} makes vectors of {width} numbers, but {wanted} dimensions were asked for"
        raise ApiError(400, message, code="invalid_value", param="dimensions")
    if name not in work.server.settings.matryoshka:
        raise ApiError(
            400,
            f"{name} makes vectors of {width} numbers, and this server was not told that their first {wanted} "
            "mean something by themselves (--matryoshka says so); leave dimensions out",
            code="unsupported_value",
            param="dimensions",
        )
    return wanted


def _cut(vector: Tensor, width: int) -> Tensor:
    """The first numbers, scaled to length 1 again; all of them stay as they are."""
    return vector if len(vector) == width else torch.nn.functional.normalize(vector[:width], dim=0)


def _base64(vector: Tensor) -> str:
    return base64.b64encode(vector.numpy().astype("<f4", copy=False).tobytes()).decode()
