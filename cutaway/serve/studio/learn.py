"""The lesson that needs no model: two classes by hand. Those about a text are analyses (`look`)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.interp.lessons import sigmoid_by_hand
from cutaway.serve.body import JsonRoute
from cutaway.serve.schema.base import Asked, errors
from cutaway.serve.studio.frames import answered
from cutaway.serve.studio.look import IN_FRAMES
from cutaway.serve.studio.studio import studio_of

router = APIRouter(prefix="/studio", route_class=JsonRoute)
Several = Annotated[list[float], Field(min_length=1, max_length=32)]


class SigmoidRequest(Asked):
    """One example of a two-class model (`cutaway.interp.sigmoid_by_hand`)."""

    features: Several
    weights: Several
    bias: float = 0.0
    target: int = 1
    lr: float = 0.1
    names: Annotated[list[Annotated[str, Field(max_length=80)]], Field(max_length=32)] | None = None


@router.post("/learn/sigmoid", response_class=Response, responses={**errors(413), **IN_FRAMES})
async def sigmoid(asked: SigmoidRequest, http: HttpRequest) -> Response:
    """Its chance, its loss, its gradient, and what one step makes of them."""
    studio = studio_of(http)

    def compute(reports: object) -> object:
        made = sigmoid_by_hand(asked.features, asked.weights, asked.bias, asked.target, lr=asked.lr, names=asked.names)
        return studio.keep(made)

    return answered(studio, None, compute, "quick")
