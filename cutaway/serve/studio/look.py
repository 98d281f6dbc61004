"""Analyses of a text, the ledger of any number, parts of large pictures, what can be tried out, pages to keep."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from torch import Tensor

from cutaway.errors import InputError
from cutaway.interp.analyses import LESSONS
from cutaway.interp.check import check
from cutaway.interp.pictures.wire import packed, tile
from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError
from cutaway.serve.schema.base import Told, errors
from cutaway.serve.server import server_of
from cutaway.serve.studio.frames import KIND as FRAMES
from cutaway.serve.studio.frames import answered
from cutaway.serve.studio.schema import (
    PACKED,
    AnalyseRequest,
    ExpandRequest,
    LedgerRequest,
    ResultRequest,
    TileRequest,
)
from cutaway.serve.studio.studio import studio_of

LARGEST = 2**30  # bytes of a part: what a page asks for it has room for
router = APIRouter(prefix="/studio", route_class=JsonRoute)
FILES = {"lens", "transcoders"}  # options that may name a file of this machine, which no request does
OPEN: dict[str, Any] = {"$ref": "#/components/schemas/Open"}
IN_FRAMES: dict[int | str, dict[str, Any]] = {
    200: {"content": {FRAMES: {"schema": OPEN}}, "description": "frames, the last of them the result"}
}
IN_BYTES: dict[int | str, dict[str, Any]] = {200: {"content": {PACKED: {"schema": OPEN}}, "description": "the result"}}
TILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {PACKED: {"schema": {"$ref": "#/components/schemas/Tile"}}}, "description": "the part"}
}


@router.post("/analyse", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def analyse(asked: AnalyseRequest, http: HttpRequest) -> Response:
    """Run an analysis by its name on a text."""
    if named := sorted(FILES & asked.options.keys()):
        raise ApiError(
            400, f"{named[0]} is no option of requests: it may name a file", code="invalid_value", param="options"
        )
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)

    def compute(reports: Any) -> Any:
        study = studio.study(work.loaded, asked.read, asked.source)
        return studio.keep(study.analyse(asked.analysis, asked.options, progress=reports))

    return answered(studio, work, compute, "lesson" if asked.analysis in LESSONS else "long")


@router.post("/ledger", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def ledger(asked: LedgerRequest, http: HttpRequest) -> Response:
    """Open a number of the run into the terms that sum to it."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)
    ready = studio.recorded(work.loaded, asked.read, asked.source)

    def compute(reports: Any) -> Any:
        study = ready or studio.study(work.loaded, asked.read, asked.source)
        return studio.keep(study.analyse("ledger", asked.options, progress=reports))

    return answered(studio, work, compute, "long" if ready is None else "quick")


@router.post("/expand", response_class=Response, responses={**errors(404, 413), **IN_BYTES})
async def expand(asked: ExpandRequest, http: HttpRequest) -> Response:
    """Open a term of a ledger, without running the model again."""
    studio = studio_of(http)
    level = await studio.quick(lambda: packed({"id": asked.id, "result": studio.level(asked.id, asked.path)}))
    return Response(level, media_type=PACKED)


@router.post("/trace", response_class=Response, responses={
    **errors(404, 413),
    200: {"content": {PACKED: {"schema": {"$ref": "#/components/schemas/Traced"}}}, "description": "what was passed"},
})  # fmt: skip
async def trace(asked: ExpandRequest, http: HttpRequest) -> Response:
    """From a level of a ledger down to a token of the input, by the largest term that leads further."""
    studio = studio_of(http)

    def follow() -> bytes:
        steps = studio.level(asked.id, asked.path).follow()
        path = [*asked.path, *(term.name for term, _ in steps)]
        for place, (_, level) in enumerate(steps, len(asked.path) + 1):
            if level is not None:
                studio.keep_level(asked.id, path[:place], level)
        return packed({"id": asked.id, "path": path, "levels": [level for _, level in steps if level is not None]})

    return Response(await studio.quick(follow), media_type=PACKED)


@router.post("/tile", response_class=Response, responses={**errors(404, 413), **TILE})
async def part(asked: TileRequest, http: HttpRequest) -> Response:
    """One matrix of a tensor, shrunk to what a picture has room for."""
    studio = studio_of(http)
    tensor = vars(studio.kept(asked.id)).get(asked.field)
    if not isinstance(tensor, Tensor):
        raise InputError(f"this result has no tensor {asked.field!r:.80}")
    index = tuple(asked.index)

    def shrunk() -> bytes:
        return packed({"tile": tile(tensor, index, asked.rows, asked.columns, asked.window)}, whole=LARGEST)

    return Response(await studio.quick(shrunk), media_type=PACKED)


@router.post("/check", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def try_out(asked: ResultRequest, http: HttpRequest) -> Response:
    """Run the ablations that a view suggests: what it predicts beside what happens."""
    studio = studio_of(http)
    found = studio.kept(asked.id)
    return answered(studio, None, lambda reports: studio.keep(check(found, progress=reports)))


class ResultCode(Told):
    """Lines of Python."""

    code: str


@router.post("/code", responses=errors(404, 413))
async def code(asked: ResultRequest, http: HttpRequest) -> ResultCode:
    """The lines of Python that make a result here: they open the model by where it lies."""
    studio = studio_of(http)
    receipt = studio.kept(asked.id).receipt
    return ResultCode(code=await studio.quick(lambda: receipt.code_for(studio.places())))


@router.post("/page", response_class=Response, responses=errors(404, 413))
async def page(asked: ResultRequest, http: HttpRequest) -> Response:
    """A result as one page that opens without a server."""
    studio = studio_of(http)
    found = studio.kept(asked.id)
    return Response(await studio.quick(found.to_html), media_type="text/html")
