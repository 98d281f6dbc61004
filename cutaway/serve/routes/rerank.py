"""/v1/rerank: documents in the order in which they answer a question."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Literal

import torch
from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError
from cutaway.serve.schema.base import errors
from cutaway.serve.schema.rerank import Document, Ranked, Ranking, RerankRequest
from cutaway.serve.server import Work, server_of
from cutaway.serve.texts import framed, told, usage

router = APIRouter(route_class=JsonRoute)


@router.post("/rerank", include_in_schema=False, response_model=Ranking)
@router.post("/v1/rerank", response_model=Ranking, responses=errors(404, 413, 504))
async def rerank(asked: RerankRequest, http: HttpRequest) -> Response:
    """Order documents by how well they answer a question, best first."""
    with await server_of(http).begin(http, asked.model) as work:
        documents = [one if isinstance(one, str) else one.text for one in asked.documents]
        how, scores = await _scores(work, asked.query, documents)
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[: asked.top_n]
        shown = [Document(text=documents[i]) if asked.return_documents is not False else None for i in order]
        results = [
            Ranked(index=i, relevance_score=scores[i], document=document)
            for i, document in zip(order, shown, strict=True)
        ]
        made = Ranking(
            id=f"rerank-{uuid.uuid4().hex}", model=asked.model, scored_by=how, results=results, usage=usage(work)
        )
        return told(made, exclude_none=True)


async def _scores(
    work: Work, query: str, documents: Sequence[str]
) -> tuple[Literal["cross_encoder", "cosine"], list[float]]:
    """How the documents were scored, and with what."""
    config = work.loaded.model.config
    head, labels = getattr(config, "head", None), getattr(config, "labels", ())
    if head == "sequence_classification" and len(labels) == 1:
        pairs = await framed(work, documents, "documents", beside=query)
        numbers = torch.stack(await work.read(pairs.ids, pairs.types))[:, 0].double()
        scores = numbers if getattr(config, "labelling", "one") == "number" else numbers.sigmoid()
        return "cross_encoder", scores.tolist()
    if head == "embedding":
        longest = getattr(config, "longest", 0)
        asked = await framed(work, [query], "query", longest=longest)
        texts = await framed(work, documents, "documents", longest=longest)
        vectors = torch.stack(await work.read(asked.ids + texts.ids)).double()
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return "cosine", (vectors[1:] @ vectors[0]).tolist()
    raise ApiError(
        400,
        "ranking needs a model that scores a pair of texts (a head for sequence_classification with one label) or "
        f"makes vectors, but {work.loaded.name} does neither",
        code="model_not_suitable",
        param="model",
    )
