"""Answers that take a while: frames of progress, and at last one with the result or what went wrong.

A frame is one letter, the length of what follows (4 bytes, little endian), and that:

    p   JSON: stage, done, total, unit, figures
    d   JSON: a piece of a result that comes in pieces
    r   the result, packed (`cutaway.interp.pictures.wire`); the last frame
    e   JSON: the error as every route tells it; the last frame
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cutaway.interp.pictures.wire import packed
from cutaway.interp.receipt import plain
from cutaway.progress import Progress
from cutaway.serve.errors import as_api_error
from cutaway.serve.server import Work
from cutaway.serve.studio.studio import Lane, Studio

KIND = "application/vnd.cutaway.frames"
BEAT = 0.1  # seconds between two reports of progress


class Gone(Exception):
    """Whoever asked has left."""


class Reports:
    """What the thread that computes tells the event loop.

    Calling it takes a `Progress`; `piece` takes a part of the result. Both raise `Gone` when nobody listens any more.
    """

    def __init__(self, queue: asyncio.Queue[bytes | None]) -> None:
        self._queue, self._loop = queue, asyncio.get_running_loop()
        self._gone = threading.Event()
        self._next = 0.0

    def __call__(self, report: Progress) -> None:
        """Tell how far it is, if that was not told just now."""
        self.check()
        if (now := self._loop.time()) >= self._next:
            self._next = now + BEAT
            self.send(b"p", json.dumps(plain(report)).encode())

    def piece(self, value: Any) -> None:
        """Tell a part of the result."""
        self.check()
        self.send(b"d", json.dumps(plain(value), ensure_ascii=False).encode())

    def check(self) -> None:
        """Raise `Gone` when nobody listens."""
        if self._gone.is_set():
            raise Gone

    def send(self, kind: bytes, body: bytes) -> None:
        """Hand a frame over."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, frame(kind, body))

    def end(self) -> None:
        """No frame follows."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, None)

    def leave(self) -> None:
        """Nobody listens any more."""
        self._gone.set()


def frame(kind: bytes, body: bytes) -> bytes:
    """One frame."""
    return kind + struct.pack("<I", len(body)) + body


class Answer(StreamingResponse):
    """Frames that are sent as they are made. However it ends, even before its first frame, what it took is given back.

    Args:
        frames: to be sent.
        close: gives back; called at the end.
    """

    def __init__(self, frames: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        super().__init__(frames, media_type=KIND)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


def answered(studio: Studio, work: Work | None, compute: Callable[[Reports], Any], lane: Lane = "long") -> Answer:
    """The answer of a route that computes. It closes the work, if the route has begun one.

    Args:
        studio: whose thread computes.
        work: of the request.
        compute: called in that thread; what it returns is the result.
        lane: what it waits for; see `Studio.submit`.
    """
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()
    reports = Reports(queue)

    def run() -> None:
        try:
            reports.check()
            reports.send(b"r", packed(compute(reports)))
        except Gone:
            pass
        except BaseException as error:
            reports.send(b"e", as_api_error(error).content)
        finally:
            reports.end()

    async def sent() -> AsyncIterator[bytes]:
        try:
            studio.submit(run, lane)
            while (made := await (queue.get() if work is None else work.attended(queue.get()))) is not None:
                yield made
            if work is not None:
                work.sent = True
        except Exception as error:  # the deadline, or the server stops
            yield frame(b"e", as_api_error(error).content)

    def close() -> None:
        reports.leave()
        if work is not None:
            work.close()

    return Answer(sent(), close)
