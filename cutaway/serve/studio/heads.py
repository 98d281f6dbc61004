"""One head of an overview of attention, shrunk to what a picture has room for, and the numbers of one of its rows."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.interp.attention.overview import AttentionOverview
from cutaway.interp.pictures.wire import packed, tile
from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError
from cutaway.serve.schema.base import errors
from cutaway.serve.studio.look import LARGEST, TILE
from cutaway.serve.studio.schema import PACKED, HeadLinesRequest, HeadRequest, HeadRowRequest
from cutaway.serve.studio.studio import Studio, studio_of

router = APIRouter(prefix="/studio", route_class=JsonRoute)
ROW: dict[int | str, dict[str, Any]] = {
    200: {"content": {PACKED: {"schema": {"$ref": "#/components/schemas/HeadRow"}}}, "description": "its numbers"}
}

LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {PACKED: {"schema": {"$ref": "#/components/schemas/HeadLines"}}}, "description": "the strongest"}
}


@router.post("/head", response_class=Response, responses={**errors(404, 413), **TILE})
async def head(asked: HeadRequest, http: HttpRequest) -> Response:
    """One head's pattern, or what is made of it, shrunk to what a picture has room for."""
    studio = studio_of(http)
    found = _overview(studio, asked.id)

    def shrunk() -> bytes:
        whole = found.head(asked.layer, asked.head, asked.by)
        return packed({"tile": tile(whole, (), asked.rows, asked.columns, asked.window)}, whole=LARGEST)

    return Response(await studio.quick(shrunk), media_type=PACKED)


@router.post("/head/row", response_class=Response, responses={**errors(404, 413), **ROW})
async def row(asked: HeadRowRequest, http: HttpRequest) -> Response:
    """What one query of a head gives to each key: weight, share of what is fetched, score."""
    studio = studio_of(http)
    found = _overview(studio, asked.id)
    return Response(
        await studio.quick(lambda: packed(found.row(asked.layer, asked.head, asked.query))), media_type=PACKED
    )


@router.post("/head/lines", response_class=Response, responses={**errors(404, 413), **LINES})
async def lines(asked: HeadLinesRequest, http: HttpRequest) -> Response:
    """Where every query of a head, or of all heads of a layer, looks most."""
    studio = studio_of(http)
    found = _overview(studio, asked.id)

    def strongest() -> bytes:
        return packed(found.strongest(asked.layer, asked.head, asked.each), whole=LARGEST)

    return Response(await studio.quick(strongest), media_type=PACKED)


def _overview(studio: Studio, id: str) -> AttentionOverview:
    found = studio.kept(id)
    if not isinstance(found, AttentionOverview):
        raise ApiError(
            400, "this result is no overview of attention, so it has no heads", code="invalid_value", param="id"
        )
    return found
