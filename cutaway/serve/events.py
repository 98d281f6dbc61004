"""Server-sent events: an answer while it is written.

A response of our own: sse-starlette's takes several times as long for an event (a cancel scope and a line of the log
each), and ends its streams when the server is told to stop, not when their answers are complete.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from json.encoder import encode_basestring  # pyright: ignore[reportAttributeAccessIssue]  # json's own, written in C
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cutaway.generation import Token
from cutaway.serve.bridge import Stream
from cutaway.serve.errors import ApiError, as_api_error
from cutaway.serve.observe import BODY
from cutaway.serve.server import Work

DONE = b"data: [DONE]\n\n"
PING = b": still here\n\n"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # the latter: no proxy holds events back


def as_json(data: Any) -> bytes:
    """JSON as answers have it."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def event(data: Any) -> bytes:
    """One event."""
    return b"data: " + as_json(data) + b"\n\n"


class Template:
    """Events that differ in one text: what stands around it is made once.

    Args:
        data: the event's, with `Template.gap` in the text's place.
    """

    gap = "\x00"

    def __init__(self, data: Any) -> None:
        self._head, self._tail = event(data).split(as_json(self.gap))

    def fill(self, text: str) -> bytes:
        """The event with a text."""
        return self._head + encode_basestring(text).encode() + self._tail


async def together(streams: Sequence[Stream]) -> AsyncIterator[tuple[int, list[Token]]]:
    """New tokens of several streams as they come, each time with the stream's number.

    Raises:
        Exception: what one of them failed with.
    """
    news: asyncio.Queue[tuple[int, list[Token] | Exception | None]] = asyncio.Queue(len(streams))

    async def read(number: int, stream: Stream) -> None:
        try:
            async for tokens in stream:
                await news.put((number, tokens))
            await news.put((number, None))
        except Exception as error:
            await news.put((number, error))

    tasks = [asyncio.ensure_future(read(number, stream)) for number, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            number, tokens = await news.get()
            if isinstance(tokens, Exception):
                raise tokens
            if tokens is None:
                left -= 1
            else:
                yield number, tokens
    finally:
        for task in tasks:
            task.cancel()


class Events(Response):
    """A stream of events. However it ends, the work is closed.

    It begins with its first event, so that what fails before has a status of its own; later an error is an event. The
    work sees to clients that go away and to the deadline, the connection to readers who do not read.

    Args:
        work: what is answered.
        events: bytes of one or more events at a time.
    """

    media_type = "text/event-stream"

    def __init__(self, work: Work, events: AsyncGenerator[bytes]) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._work, self._events = work, events
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        loop = asyncio.get_running_loop()
        self._last, self._sending, self._clock = loop.time(), False, loop.time
        # a task of its own: each token would else wake it through all that stands around a route
        tasks = loop.create_task(self._pump(scope, send)), loop.create_task(self._ping(send))
        try:
            await tasks[0]
        except Exception as error:
            told = as_api_error(error)
            if told.status != 499:  # else nobody reads it
                await self._fail(send, told)
        finally:
            self._work.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, scope: Scope, send: Send) -> None:
        """Send all events, as `_send` does; a call of it costs more than the token in an event."""
        onward: Send | None = None
        async with aclosing(self._events) as events:
            async for data in events:
                if onward is None:
                    await self._send(send, data)
                    onward = scope[BODY]
                else:
                    self._last, self._sending = self._clock(), True
                    await onward({"type": "http.response.body", "body": data, "more_body": True})
                    self._sending = False
        self._work.sent = True
        await self._send(send, DONE, more=False)

    async def _send(self, send: Send, data: bytes, more: bool = True) -> None:
        self._last, self._sending = self._clock(), True
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": data, "more_body": more})
        self._sending = False

    async def _ping(self, send: Send) -> None:
        """Say that the answer still comes, where nothing has been said for a while."""
        clock, quiet = self._clock, self._work.server.settings.ping
        while True:
            await asyncio.sleep(max(0.0, self._last + quiet - clock()))
            if not self._sending and clock() >= self._last + quiet:
                await self._send(send, PING)
            elif self._sending:
                self._last = clock()

    async def _fail(self, send: Send, error: ApiError) -> None:
        """Tell an error: as an event, or before the first one as an answer."""
        if self._begun:
            await self._send(send, event(error.body) + DONE, more=False)
            return
        self._begun = True
        headers = {"content-type": "application/json", "content-length": str(len(error.content)), **error.headers}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": error.status, "headers": raw})
        await send({"type": "http.response.body", "body": error.content})
