"""Lenses: the table, a token's way through the layers, two runs beside each other, and lenses that are fitted here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.interp.lenses import FittedLens, Translators, fit_lens, lens_difference, lens_ranks, read_lens
from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError
from cutaway.serve.schema.base import Asked, ModelName, errors
from cutaway.serve.server import server_of
from cutaway.serve.studio.frames import answered
from cutaway.serve.studio.look import IN_FRAMES
from cutaway.serve.studio.schema import Id, OfText, StudioText
from cutaway.serve.studio.studio import Studio, studio_of

router = APIRouter(prefix="/studio", route_class=JsonRoute)
Token = Annotated[str, Field(max_length=200)] | int
Texts = Annotated[list[StudioText], Field(max_length=1000)]


class LensRequest(OfText):
    """The table of a lens: of a fitted one by the name under which it is kept, or the logit lens."""

    lens: Id | None = None
    token: Token | None = None
    top: Annotated[int, Field(ge=1, le=50)] = 5


class RanksRequest(OfText):
    """Tokens through the layers, after one position."""

    lens: Id | None = None
    tokens: Annotated[list[Token], Field(max_length=16)]
    position: int = -1


class DifferenceRequest(OfText):
    """Two runs beside each other."""

    other: OfText
    lens: Id | None = None
    other_lens: Id | None = None


class FitRequest(Asked):
    """Fit a lens to some texts; it is kept under the name of the answer."""

    model: ModelName
    kind: Literal["tuned", "jacobian"]
    texts: Texts
    sources: Texts | None = None
    steps: Annotated[int, Field(ge=1, le=2000)] = 60
    probes: Annotated[int, Field(ge=1, le=512)] = 32


@router.post("/lens", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def lens(asked: LensRequest, http: HttpRequest) -> Response:
    """What each layer would say after each token."""
    studio, fitted = studio_of(http), lens_kept(studio_of(http), asked.lens)
    work = await server_of(http).begin(http, asked.model)

    def compute(reports: Any) -> Any:
        run = studio.study(work.loaded, asked.read, asked.source).recording
        return studio.keep(read_lens(run, lens=fitted, top=asked.top, token=asked.token, progress=reports))

    return answered(studio, work, compute)


@router.post("/lens/ranks", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def ranks(asked: RanksRequest, http: HttpRequest) -> Response:
    """The rank and the probability of some tokens, layer by layer."""
    studio, fitted = studio_of(http), lens_kept(studio_of(http), asked.lens)
    work = await server_of(http).begin(http, asked.model)

    def compute(reports: Any) -> Any:
        run = studio.study(work.loaded, asked.read, asked.source).recording
        return studio.keep(lens_ranks(run, lens=fitted, tokens=asked.tokens, position=asked.position))

    return answered(studio, work, compute)


@router.post("/lens/difference", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def difference(asked: DifferenceRequest, http: HttpRequest) -> Response:
    """Where two runs part: two texts, two models, or two steps of one."""
    studio, other = studio_of(http), asked.other
    fitted, beside = lens_kept(studio, asked.lens), lens_kept(studio, asked.other_lens)
    work = await server_of(http).begin(http, asked.model)
    peer = work
    if other.model != asked.model:
        try:
            peer = await server_of(http).begin(http, other.model)
        except BaseException:
            work.close()
            raise
        work.closing = peer.close

    def compute(reports: Any) -> Any:
        run = studio.study(work.loaded, asked.read, asked.source).recording
        second = studio.study(peer.loaded, other.read, other.source).recording
        found = lens_difference(
            run, other=second, lens=fitted,
            other_lens=beside, progress=reports,
        )  # fmt: skip
        return studio.keep(found)

    return answered(studio, work, compute)


@router.post("/lens/fit", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def fit(asked: FitRequest, http: HttpRequest) -> Response:
    """Fit a lens, and try it on texts that it was not fitted to."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)

    def compute(reports: Any) -> Any:
        texts, sources = list(asked.texts), asked.sources
        options: dict[str, Any] = {"steps": asked.steps, "probes": asked.probes, "sources": sources}
        return studio.keep(fit_lens(work.loaded.model, texts, asked.kind, **options, progress=reports))

    return answered(studio, work, compute)


def lens_kept(studio: Studio, name: str | None) -> Translators | None:
    """A lens that was fitted here.

    Raises:
        ApiError: 404, it was let go; 400, the name is of another result.
    """
    if name is None:
        return None
    found = studio.kept(name)
    if not isinstance(found, FittedLens):
        raise ApiError(400, "this result is no fitted lens", code="invalid_value", param="lens")
    return found.lens
