"""Server-sent events: an answer while it is written.

A response of our own, because an event of sse-starlette costs more than the token in it, and its streams end when the
server is told to stop, not when their answers are complete. Here a stream is one coroutine that sends what the engine
has told, and one that watches it: the client, the deadline, a reader who does not read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from json.encoder import encode_basestring  # pyright: ignore[reportAttributeAccessIssue]  # json's own, written in C
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from cutaway.generation import Token
from cutaway.serve.bridge import Stream
from cutaway.serve.errors import ApiError, as_api_error
from cutaway.serve.server import Work

DONE = b"data: [DONE]\n\n"
PING = b": still here\n\n"
QUIET = 15.0  # seconds without an event after which a comment says that the answer still comes
WATCH = 1.0  # seconds between two looks at a stream, at most
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
    if len(streams) == 1:
        async for tokens in streams[0]:
            yield 0, tokens
        return
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

    It begins with its first event, so that what fails before has a status of its own; later an error is an event.

    Args:
        work: what is answered.
        events: bytes of one or more events at a time.
    """

    media_type = "text/event-stream"

    def __init__(self, work: Work, events: AsyncIterator[bytes]) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._work, self._events = work, events
        self._begun = False
        self._since: float | None = None  # when the message was sent that has not gone out yet
        self._last = asyncio.get_running_loop().time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        gone = asyncio.ensure_future(_gone(receive))
        pump = asyncio.ensure_future(self._pump(send))
        try:
            await self._watch(pump, gone, send)
        finally:
            self._work.close()
            for task in (pump, gone):
                task.cancel()
            await asyncio.gather(pump, gone, return_exceptions=True)

    async def _pump(self, send: Send) -> None:
        """Send events until there are no more."""
        try:
            async with aclosing(self._events) as events:  # pyright: ignore[reportArgumentType]  # a generator
                async for data in events:
                    await self._send(send, data)
        except Exception as error:
            await self._fail(send, as_api_error(error))
        else:
            await self._send(send, DONE, more=False)

    async def _watch(self, pump: asyncio.Task[None], gone: asyncio.Future[None], send: Send) -> None:
        """Until the stream ends: look after the client, the deadline and the time between events."""
        clock, settings = asyncio.get_running_loop().time, self._work.server.settings
        look = min(WATCH, settings.send / 2)
        while True:
            left = self._work.deadline - clock()
            await asyncio.wait({pump, gone}, timeout=max(0, min(look, left)), return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                return pump.result()
            if gone.done() or (self._since is not None and clock() - self._since > settings.send):
                return None
            if clock() >= self._work.deadline:
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)
                if self._since is None:
                    late = f"the answer was not complete after {settings.deadline:g} s, this server's limit"
                    await self._fail(send, ApiError(504, late, code="deadline"))
                return None
            if self._since is None and clock() - self._last > QUIET:
                await self._send(send, PING)

    async def _send(self, send: Send, data: bytes, more: bool = True) -> None:
        clock = asyncio.get_running_loop().time
        self._since = clock()
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        message: Message = {"type": "http.response.body", "body": data, "more_body": more}
        await send(message)
        self._since, self._last = None, clock()

    async def _fail(self, send: Send, error: ApiError) -> None:
        """Tell an error: as an event, or before the first one as an answer."""
        if self._begun:
            return await self._send(send, event(error.body) + DONE, more=False)
        self._begun = True
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(error.content)).encode())]
        headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": error.content, "more_body": False})


async def _gone(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
