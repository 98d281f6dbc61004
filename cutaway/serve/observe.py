"""Around everything: each request is counted, told in a line of the log, and answered whatever goes wrong.

A line of the log says when, method, route, status, milliseconds, tokens, model and caller. It never says what was
asked or answered: a route is told as the program writes it, not as it was asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cutaway.serve.errors import ApiError, as_api_error
from cutaway.serve.keys import ANYONE

access = logging.getLogger("cutaway.access")
log = logging.getLogger("cutaway.serve")
BODY = "cutaway.body"  # in a request's scope: where an answer's body may go directly once it has begun
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Observer:
    """Sees every request and its answer pass (pure ASGI: nothing is held back).

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        server = getattr(scope["app"].state, "server", None)  # there is none where the application was not started
        began, status, held = time.monotonic(), 0, 0
        scope[BODY] = send

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if server is not None and server.draining:
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            if server is not None and (size := len(message.get("body", b""))):
                held += size
                server.bodies += size
                if server.bodies > server.settings.max_bodies:
                    raise ApiError(503, "too much is being sent at once; try again in a moment", code="busy", retry=1)
            return message

        try:
            await self.app(scope, counted, seen)
        except Exception as error:
            failed = as_api_error(error)
            if status:  # it is too late to say so: the connection is closed without the end of the answer
                status = failed.status
                raise _Broken from None
            status = failed.status
            await answer(failed)(scope, counted, seen)
        except asyncio.CancelledError:
            status = status or 499
            raise
        finally:
            if server is not None:
                server.bodies -= held
            self._note(scope, server, status or 499, time.monotonic() - began)

    def _note(self, scope: Scope, server: Any, status: int, seconds: float) -> None:
        route, work = _route(scope), scope.get("work")
        if work is not None and work.error is not None and work.error.status == 499:
            status = 499  # whatever was sent, nobody has read it
        if server is not None:
            server.metrics.ended(route, status, seconds)
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        tokens = f" {work.prompt_tokens}+{work.completion_tokens} tokens of {work.model}" if work is not None else ""
        caller = scope.get("caller", ANYONE).name
        who = f" for {caller}" if caller else ""
        access.info("%s %s %d %.0f ms%s%s", method, route, status, seconds * 1000, tokens, who)


def answer(error: ApiError) -> Response:
    """An error as a response."""
    return Response(error.content, error.status, dict(error.headers), media_type="application/json")


class _Broken(Exception):
    """An answer that had begun cannot be finished."""


def _route(scope: Scope) -> str:
    """The route as the program writes it; whatever was asked for that is none has one name."""
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        return route
    return scope["path"] if scope["path"] in getattr(scope["app"].state, "pages", ()) else "none"
