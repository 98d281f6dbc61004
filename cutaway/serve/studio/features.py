"""Dictionaries of features: learned from texts, kept in the studio's folder, looked at; graphs made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.errors import InputError
from cutaway.interp.features import (
    AttributionGraph,
    attribution_graph,
    evaluate_features,
    feature_dashboard,
    feature_overview,
    graph_intervention,
    open_features,
    stored_features,
    train_features,
)
from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError
from cutaway.serve.schema.base import Asked, ModelName, Told, errors
from cutaway.serve.server import Work, caller_of, server_of
from cutaway.serve.studio.examples import Texts
from cutaway.serve.studio.frames import answered
from cutaway.serve.studio.look import IN_FRAMES
from cutaway.serve.studio.schema import Id, OfText
from cutaway.serve.studio.studio import Studio, studio_of

router = APIRouter(prefix="/studio/features", route_class=JsonRoute)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$", description="Of a dictionary.")]
Token = Annotated[str, Field(max_length=200)] | Annotated[int, Field(ge=0)] | None


class FeaturesRequest(Asked):
    """The dictionaries of a model."""

    model: ModelName


class ListedFeatures(Told):
    """A dictionary in the studio's folder."""

    name: str
    activation: str
    width: int
    kind: str
    k: int
    transcoder: bool


class ListOfFeatures(Told):
    """All of them, newest first."""

    features: list[ListedFeatures]
    folder: str


class LearnRequest(Asked):
    """Learn a dictionary (`cutaway.interp.train_features`), and keep it."""

    model: ModelName
    name: Name
    texts: Texts
    activation: Annotated[str, Field(max_length=64)]
    transcoder: bool = False
    width: Annotated[int, Field(ge=2, le=16384)] = 256
    kind: Literal["topk", "jumprelu", "l1"] = "topk"
    k: Annotated[int, Field(ge=1, le=1024)] = 8
    samples: Annotated[int, Field(ge=256, le=4_000_000)] = 60_000
    batch: Annotated[int, Field(ge=16, le=8192)] = 256
    seed: Annotated[int, Field(ge=0)] = 0


class OverviewRequest(Asked):
    """What a dictionary holds, in these texts."""

    model: ModelName
    name: Name
    texts: Texts


class DashboardRequest(OverviewRequest):
    """One feature; None is the strongest."""

    feature: Annotated[int, Field(ge=0)] | None = None
    top: Annotated[int, Field(ge=1, le=50)] = 6


class GraphRequest(OfText):
    """Which features led to the next token (`cutaway.interp.attribution_graph`)."""

    names: Annotated[list[Name], Field(max_length=256, description="Of transcoders.")] = Field(default_factory=list)
    neurons: Annotated[int, Field(ge=0, le=2000)] = 0
    token: Token = None
    minus: Token = None
    position: int = -1
    keep_nodes: Annotated[float, Field(gt=0, le=1)] = 0.8
    keep_edges: Annotated[float, Field(gt=0, le=1)] = 0.95


class InterveneRequest(Asked):
    """Multiply what nodes of an open graph write: 0 takes one out, 2 doubles it."""

    id: Id
    factors: Annotated[dict[str, float], Field(min_length=1, max_length=400)]


@router.post("/list", responses=errors(404))
async def listed(asked: FeaturesRequest, http: HttpRequest) -> ListOfFeatures:
    """The dictionaries that lie in the studio's folder for a model."""
    studio = studio_of(http)
    server_of(http).models.check(asked.model, caller_of(http))
    found = await studio.quick(lambda: stored_features(_folder(studio, asked.model)))
    made = [
        ListedFeatures(
            name=one.name, activation=one.config.name, width=one.config.width, kind=one.config.kind, k=one.config.k,
            transcoder=one.config.transcoder,
        )
        for one in found
    ]  # fmt: skip
    return ListOfFeatures(features=made, folder=f"features/{asked.model}")


@router.post("/learn", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def learn(asked: LearnRequest, http: HttpRequest) -> Response:
    """Learn a dictionary from texts; the answer is what it holds in them."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)

    def compute(reports: Any) -> Any:
        model, place = work.loaded.model, _folder(studio, work.loaded.name) / asked.name
        how = {name: getattr(asked, name) for name in ("transcoder", "width", "kind", "k", "samples", "batch", "seed")}
        features = train_features(model, asked.texts, asked.activation, **how, progress=reports)
        features.save(place)
        return studio.keep(feature_overview(model, features, asked.texts))

    return answered(studio, work, compute)


@router.post("/overview", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def overview(asked: OverviewRequest, http: HttpRequest) -> Response:
    """All features of a dictionary."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)
    return answered(
        studio,
        work,
        lambda _: studio.keep(feature_overview(work.loaded.model, _open(studio, work, asked.name), asked.texts)),
    )


@router.post("/evaluate", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def evaluate(asked: OverviewRequest, http: HttpRequest) -> Response:
    """What a dictionary is worth: what the model loses when it speaks through it."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)
    return answered(
        studio,
        work,
        lambda _: studio.keep(evaluate_features(work.loaded.model, _open(studio, work, asked.name), asked.texts)),
    )


@router.post("/dashboard", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def dashboard(asked: DashboardRequest, http: HttpRequest) -> Response:
    """One feature in plain sight."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)

    def compute(_: Any) -> Any:
        features = _open(studio, work, asked.name)
        how = {"feature": asked.feature, "top": asked.top}
        return studio.keep(feature_dashboard(work.loaded.model, features, asked.texts, **how))

    return answered(studio, work, compute)


@router.post("/graph", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def graph(asked: GraphRequest, http: HttpRequest) -> Response:
    """Which features and neurons led to the next token."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)

    def compute(reports: Any) -> Any:
        transcoders = [_open(studio, work, name) for name in asked.names]
        names = ("neurons", "token", "minus", "position", "keep_nodes", "keep_edges")
        how = {name: getattr(asked, name) for name in names}
        return studio.keep(attribution_graph(work.loaded.model, asked.text, transcoders, **how, progress=reports))

    return answered(studio, work, compute)


@router.post("/intervene", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def intervene(asked: InterveneRequest, http: HttpRequest) -> Response:
    """Run the model with nodes of an open graph taken out or doubled: predicted beside actual."""
    studio = studio_of(http)
    found = studio.kept(asked.id)
    if not isinstance(found, AttributionGraph):
        raise ApiError(400, "this result is no attribution graph", code="invalid_value", param="id")
    return answered(studio, None, lambda _: studio.keep(graph_intervention(found, asked.factors)))


def _folder(studio: Studio, model: str) -> Path:
    """Where the dictionaries of a model lie. A model's name is one of the catalogue's, never a path.

    Raises:
        InputError: one that could lead elsewhere, or a link that does.
    """
    if "/" in model or "\\" in model or model.startswith("."):
        raise InputError(f"{model!r:.100} cannot name a folder of features; give the model a plain name (NAME=…)")
    place = studio.folder / "features" / model
    if place.is_symlink() or place.parent.is_symlink():
        raise InputError(f"the folder of features of {model} is a link, which is not followed")
    return place


def _open(studio: Studio, work: Work, name: str) -> Any:
    return open_features(_folder(studio, work.loaded.name), name)
