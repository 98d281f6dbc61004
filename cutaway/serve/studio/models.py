"""Which models there are, and what each is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway import __version__
from cutaway.interp.about import about
from cutaway.interp.pictures.wire import packed
from cutaway.models.hub import is_repository
from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError
from cutaway.serve.schema.base import Asked, ModelName, Told, errors
from cutaway.serve.server import Server, server_of
from cutaway.serve.studio.catalogue import Entry, Kind, catalogue, given_entry, named, step_folder
from cutaway.serve.studio.schema import PACKED
from cutaway.serve.studio.studio import studio_of

router = APIRouter(prefix="/studio", route_class=JsonRoute)
MOST_ADDED = 64  # names of hub models that a page may add


class ListedModel(Told):
    """A model that can be opened."""

    name: str
    kind: str
    about: str
    changed: float
    steps: list[int]
    task: bool
    loaded: bool


class ListedModels(Told):
    """What can be opened."""

    version: str
    ready: bool
    models: list[ListedModel]


class OpenRequest(Asked):
    """Open a model, or one step of a run."""

    model: ModelName
    step: Annotated[int, Field(ge=0)] | None = None


class HubRequest(Asked):
    """Let a model of the hub be opened: owner/name."""

    hub: Annotated[str, Field(max_length=200)]


class Named(Told):
    """The name by which requests find it."""

    name: str


@router.get("/models", responses=errors())
async def models(http: HttpRequest) -> ListedModels:
    """What was given at the start, and what lies in the studio's folder."""
    server, studio = server_of(http), studio_of(http)
    found = await studio.quick(lambda: entries(server))
    listed = [
        ListedModel(**{f: getattr(one, f) for f in ("name", "kind", "about", "changed", "steps", "task")},
                    loaded=one.name in server.models.loaded)
        for one in found
    ]  # fmt: skip
    return ListedModels(version=__version__, ready=server.ready, models=listed)


@router.post("/open", response_class=Response, responses={
    **errors(404, 413, 504),
    200: {"content": {PACKED: {"schema": {"$ref": "#/components/schemas/About"}}}, "description": "what it is"},
})  # fmt: skip
async def open_model(asked: OpenRequest, http: HttpRequest) -> Response:
    """Load a model, and say what it is. A step of a run is a model by itself, whose name is in the answer."""
    server, studio = server_of(http), studio_of(http)
    await studio.quick(lambda: entries(server))  # what was made meanwhile can be opened too
    name = asked.model
    if asked.step is not None:
        name = await studio.quick(lambda: _step(server, asked.model, asked.step or 0))
    await server.models.refresh(name)
    with await server.begin(http, name) as work:
        facts = about(work.loaded.model)
    return Response(packed(facts), media_type=PACKED)


@router.post("/hub", responses=errors(404, 413))
async def hub(asked: HubRequest, http: HttpRequest) -> Named:
    """Let a model of the hub be opened; it is fetched when it is."""
    server = server_of(http)
    if not studio_of(http).private:
        message = "models of the hub are added from this machine alone; give them when the studio is started"
        raise ApiError(403, message, code="not_local")
    if not is_repository(asked.hub):
        message = f"{asked.hub!r:.100} is no name of a repository; one looks like owner/name"
        raise ApiError(400, message, code="invalid_value", param="hub")
    sources, names = server.models.sources, studio_of(http).names
    added = [one for one in sources.values() if is_repository(one) and not Path(one).exists()]
    if asked.hub not in added and len(added) >= MOST_ADDED:
        raise ApiError(400, f"{MOST_ADDED} models of the hub are listed already; start the studio anew")
    if asked.hub in added:
        return Named(name=next(name for name, source in sources.items() if source == asked.hub))
    name = named(asked.hub, asked.hub.replace("/", ".")[-56:], names, sources)
    sources[name] = asked.hub
    return Named(name=name)


def entries(server: Server) -> list[Entry]:
    """All that can be opened; what is new since the last time can be asked for from now on."""
    studio, sources = server.studio, server.models.sources
    assert studio is not None
    listed = []
    for name, source in list(sources.items()):
        if name in studio.found:
            continue
        kind: Kind = "hub" if is_repository(source) and not Path(source).exists() else "given"
        if name not in studio.steps:
            listed.append(Entry(name, kind, source) if kind == "hub" else given_entry(name, Path(source)))
    given = {name: source for name, source in list(sources.items()) if name not in studio.found | studio.steps}
    for name, (entry, path) in catalogue(studio.folder, given, studio.names).items():
        sources[name] = str(path)
        studio.found.add(name)
        listed.append(entry)
    return listed


def _step(server: Server, model: str, step: int) -> str:
    """The name of a run's step.

    Raises:
        ApiError: 404; it is no run, or has no such step.
    """
    studio = server.studio
    assert studio is not None
    server.models.check(model)
    source = server.models.sources.get(model)
    folder = None if source is None else step_folder(Path(source), step)
    if folder is None:
        message = f"{model} has no checkpoint of step {step:,}; /studio/models lists those that it has"
        raise ApiError(404, message, code="step_not_found", param="step")
    name = named(str(folder), f"{model[-40:]}.{folder.name}", studio.names, server.models.names)
    server.models.sources[name] = str(folder)
    studio.steps.add(name)
    return name
