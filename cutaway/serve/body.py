"""The JSON of a request's body, read strictly: what two readers may understand in two ways is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from cutaway.serve.errors import ApiError
from cutaway.serve.server import server_of

MEMBERS = 50_000  # of all objects together; the largest request that is in range has half as many
OBJECTS = 100_000  # and lists
TEXTS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
LARGE = 128 << 10  # bytes that take longer to read than the event loop may wait
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # written as an escape; in UTF-8 there are none


def parse(body: bytes) -> Any:
    """The value of a JSON text.

    Args:
        body: UTF-8.

    Raises:
        ApiError: 400; it is no JSON, or holds a name twice, NaN or an infinity, half a
            character, more levels or digits than Python reads, or more members or lists than a request can have.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8 (byte {error.start:,} is not)") from None
    _check_count(text)
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise _bad(f"the body is not JSON: {error.msg} at character {error.pos:,}") from None
    except RecursionError:
        raise _bad("the body's JSON is nested too deeply") from None
    except ValueError:  # what Python says of a whole number with thousands of digits
        raise _bad("the body's JSON has a number that is too long") from None
    if SURROGATE.search(text):
        for name, part in value.items() if isinstance(value, dict) else [("", value)]:
            try:
                json.dumps([name, part], ensure_ascii=False).encode()
            except (UnicodeEncodeError, RecursionError):
                name = name.encode("ascii", "replace").decode()[:64]
                raise _bad(f"{name or 'the body'} holds half a character (a lone surrogate)", name or None) from None
    return value


def _check_count(text: str) -> None:
    """Refuse what takes long to read and is too much for any request, before it is read."""
    for marks, most, what in ((":", MEMBERS, "members"), ("[{", OBJECTS, "lists and objects")):
        if sum(map(text.count, marks)) > most:  # maybe within texts
            bare = TEXTS.sub("", text)
            if (found := sum(map(bare.count, marks))) > most:
                raise _bad(f"the body's JSON has {found:,} {what}; it may have at most {most:,}")


def _bad(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, message, code="invalid_json", param=param)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _bad("the body's JSON has an object with the same name twice; give each once")
    return made


def _constant(name: str) -> Any:
    raise _bad(f"the body is not JSON: it has no {name}; give a finite number")


class JsonRoute(APIRoute):
    """A route whose body, if it is JSON, is read by `parse` (of a router: `APIRouter(route_class=JsonRoute)`)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            if self.body_field is not None and _is_json(request):
                body = await request.body()
                if body:
                    request._json = await _parsed(request, body)  # where Request.json() keeps it
            return await answer(request)

        return handler


async def _parsed(request: Request, body: bytes) -> Any:
    if len(body) < LARGE:
        return parse(body)
    return await server_of(request).bridge.aside(lambda: parse(body))


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
