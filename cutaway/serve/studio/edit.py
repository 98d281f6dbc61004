"""Edits of weights, on a copy: the model that is loaded stays as it is for everyone."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.interp.steering import rome
from cutaway.serve.body import JsonRoute
from cutaway.serve.schema.base import Asked, ModelName, errors
from cutaway.serve.server import server_of
from cutaway.serve.studio.frames import answered
from cutaway.serve.studio.look import IN_FRAMES
from cutaway.serve.studio.schema import StudioText
from cutaway.serve.studio.studio import studio_of

router = APIRouter(prefix="/studio", route_class=JsonRoute)
Texts = Annotated[list[StudioText], Field(max_length=200)]


class EditRequest(Asked):
    """Make a model answer a prompt with another token, by a rank-one change of one matrix (`cutaway.interp.rome`)."""

    model: ModelName
    prompt: StudioText
    subject: StudioText
    target: Annotated[str, Field(max_length=200)]
    texts: Texts
    paraphrases: Texts = Field(default_factory=list)
    neighbours: Texts = Field(default_factory=list)
    layer: int | None = None
    steps: Annotated[int, Field(ge=1, le=400)] = 25


@router.post("/edit", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def edit(asked: EditRequest, http: HttpRequest) -> Response:
    """Edit one fact; what is said before and after. Its copy shares every matrix but one with the model."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)

    def compute(reports: Any) -> Any:
        made = rome(
            work.loaded.model, asked.prompt, subject=asked.subject, target=asked.target, texts=asked.texts,
            paraphrases=asked.paraphrases, neighbours=asked.neighbours, layer=asked.layer, steps=asked.steps,
            contexts=2, shared=True, progress=reports,
        )  # fmt: skip
        return studio.keep(made)

    return answered(studio, work, compute)
