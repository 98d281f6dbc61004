"""Chances of the next token under other options, and writing, token by token."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.generation import Request
from cutaway.generation.generate import make_request
from cutaway.interp.pictures.wire import packed
from cutaway.interp.receipt import plain
from cutaway.interp.text.chances import Chances
from cutaway.interp.text.tokens import text_of, written, wrote
from cutaway.models import Model, Seq2Seq
from cutaway.serve.body import JsonRoute
from cutaway.serve.bridge import Stream
from cutaway.serve.errors import ApiError, as_api_error
from cutaway.serve.schema.base import Told, errors
from cutaway.serve.server import Work, server_of
from cutaway.serve.studio.frames import Answer, frame
from cutaway.serve.studio.look import IN_BYTES, IN_FRAMES
from cutaway.serve.studio.schema import PACKED, RedrawRequest, TextRequest, WriteRequest
from cutaway.serve.studio.studio import Studio, studio_of

router = APIRouter(prefix="/studio", route_class=JsonRoute)


class Spelled(Told):
    """A text."""

    text: str


@router.post("/redraw", response_class=Response, responses={**errors(404, 413), **IN_BYTES})
async def redraw(asked: RedrawRequest, http: HttpRequest) -> Response:
    """Chances that are open, under other options; the model does not run, so a slider can be followed."""
    studio = studio_of(http)
    found = studio.kept(asked.id)
    if not isinstance(found, Chances):
        message = "this result has no chances of a token, so there is nothing to draw from"
        raise ApiError(400, message, code="invalid_value", param="id")
    options = asked.model_dump(exclude={"id"})
    return Response(await studio.quick(lambda: packed(studio.put(asked.id, found.under(**options)))), media_type=PACKED)


@router.post("/text", responses=errors(404, 413, 504))
async def text(asked: TextRequest, http: HttpRequest) -> Spelled:
    """The text that a model reads as these tokens."""
    with await server_of(http).begin(http, asked.model) as work:
        return Spelled(text=text_of(work.loaded.model, asked.ids))


@router.post("/write", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def write(asked: WriteRequest, http: HttpRequest) -> Response:
    """Go on with a text: a piece for each token as the engine draws it, and at last all of them as a result."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)
    try:
        stream = await work.submit(_request(asked, work.loaded.model))
    except BaseException:
        work.close()
        raise
    return Answer(_told(asked, studio, work, stream), work.close)


def _options(asked: WriteRequest) -> dict[str, Any]:
    """Those of `generate`: what is off stays off, whatever the checkpoint recommends."""
    off = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    given = {name: getattr(asked, name) for name in off}
    steps = {name: off[name] if value is None else value for name, value in given.items()}
    return {"max_new_tokens": asked.max_tokens, "temperature": asked.temperature, **steps}


def _request(asked: WriteRequest, model: Model) -> Request:
    options = {**_options(asked), "seed": asked.seed, "logprobs": asked.likely}
    if isinstance(model.network, Seq2Seq):
        target = asked.text if asked.ids is None else asked.ids[1:]  # the first is what every target begins with
        return make_request(asked.source or "", target=target, **options)
    return make_request(asked.text if asked.ids is None else asked.ids, **options)


async def _told(asked: WriteRequest, studio: Studio, work: Work, stream: Stream) -> AsyncIterator[bytes]:
    model, started = work.loaded.model, time.perf_counter()
    try:
        async for fresh in stream:
            for token in fresh:
                yield frame(b"d", json.dumps(plain(wrote(model, token)), ensure_ascii=False).encode())
        seconds = time.perf_counter() - started
        made = stream.ticket.result()
        options = _options(asked) | ({"target": asked.ids[1:] if asked.ids else asked.text} if asked.source else {})
        yield frame(b"r", packed(studio.keep(written(model, made, seconds=seconds, **options))))
        work.sent = True
    except Exception as error:
        yield frame(b"e", as_api_error(error).content)
