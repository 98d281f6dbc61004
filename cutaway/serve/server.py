"""A running server: its settings, models, keys and queue, and the work of one request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from starlette.requests import Request as HttpRequest

from cutaway.generation import Request
from cutaway.serve.bridge import Bridge, Stream
from cutaway.serve.errors import ApiError
from cutaway.serve.keys import ANYONE, Caller
from cutaway.serve.models import Loaded, Models
from cutaway.serve.queue import Queue
from cutaway.serve.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")


class Server:
    """What all requests share. Made within the event loop.

    Args:
        settings: what it was told at its start.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bridge = Bridge()
        self.models = Models(settings, self.bridge)
        self.queue = Queue(settings)
        self.started = time.time()
        self.ready = False

    async def begin(self, http: HttpRequest, model: str) -> Work:
        """Take a place and a model for a request; whoever gets the work closes it.

        Raises:
            ApiError: no place (429, 503), no such model (404), no right to it (403).
        """
        work = Work(self, http)
        try:
            work.loaded = await work.attended(self.models.use(model))
        except BaseException:
            work.close()
            raise
        return work

    def stop(self) -> None:
        """End the thread that computes."""
        self.bridge.stop()


class Work:
    """One request while it is answered: its place, its model, its streams, its deadline. `close` gives all back.

    Attributes:
        loaded: the model.
        caller: who asks.
        prompt_tokens: read for it; set by the route, for quotas and metrics.
        completion_tokens: written for it.
    """

    loaded: Loaded

    def __init__(self, server: Server, http: HttpRequest) -> None:
        server.queue.enter()
        self.server, self.http, self.caller = server, http, caller_of(http)
        self.deadline = asyncio.get_running_loop().time() + server.settings.deadline
        self.prompt_tokens = self.completion_tokens = 0
        self._streams: list[Stream] = []
        self._closed = False

    async def submit(self, request: Request) -> Stream:
        """Hand a request to the model's engine, in the name of the caller."""
        stream = await self.server.bridge.submit(self.loaded.engine, request)
        self._streams.append(stream)
        return stream

    async def read(self, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> list[Tensor]:
        """What the model's head makes of texts, read whole together with those of other requests.

        Args:
            texts: ids of each.
            types: of each token, which of two texts it is of; None: all are of one.
        """
        self.prompt_tokens += sum(map(len, texts))
        reading = self.loaded.engine.read([list(text) for text in texts], types=types)
        await self.attended(self.server.bridge.finish(reading))
        return reading.results()

    async def attended(self, wanted: Awaitable[Result]) -> Result:
        """Wait for something, as long as the client waits too and the deadline has not come.

        Raises:
            ApiError: 504 at the deadline; 499 (which nobody reads) when the client has gone.
        """
        task = asyncio.ensure_future(wanted)
        gone = asyncio.ensure_future(_gone(self.http))
        try:
            left = self.deadline - asyncio.get_running_loop().time()
            await asyncio.wait({task, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise ApiError(499, "the client has gone", code="cancelled")
            seconds = self.server.settings.deadline
            raise ApiError(
                504, f"the answer was not complete after {seconds:g} s, this server's limit", code="deadline"
            )
        finally:
            for one in (task, gone):
                one.cancel()

    def close(self) -> None:
        """Cancel what still runs and give the place and the model back; may be called twice."""
        if self._closed:
            return
        self._closed = True
        for stream in self._streams:
            stream.close()
        if hasattr(self, "loaded"):
            self.server.models.release(self.loaded)
        self.server.queue.leave()

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


async def _gone(http: HttpRequest) -> None:
    """Return when the client has gone; its body must have been read."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def server_of(http: HttpRequest) -> Server:
    """The server that a request came to."""
    return cast(Server, http.app.state.server)


def caller_of(http: HttpRequest) -> Caller:
    """Who sent a request; the guard has found out."""
    return cast(dict[str, Any], http.scope).get("caller", ANYONE)


Begin = Callable[[str], Awaitable[Work]]
