"""The limits of a connection: how long and how large a request's head may be, and that somebody reads the answer.

uvicorn's protocol over httptools, whose parser is strict (no bare line feeds, no Content-Length beside
Transfer-Encoding, no folded lines); what it leaves open is closed here. Whatever is refused here ends its connection:
after a request that two readers may understand differently, nothing on it can be trusted.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from asyncio.events import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from cutaway.serve.errors import ApiError
from cutaway.serve.settings import Settings

log = logging.getLogger("cutaway.serve")

LONGEST_URL = 4096  # bytes; the longest that a route of ours can have is some 100
MOST_HEADERS = 100
MOST_PIPELINED = 8  # requests sent before the first is answered; no client of OpenAI's does so at all
UNREADABLE = "the request is not valid HTTP/1.1"


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """What `uvicorn.Config` is to be told, so that connections have their limits."""
    return {
        "http": functools.partial(Protocol, settings=settings),
        "ws": "none",
        "timeout_keep_alive": settings.idle,
        "server_header": False,
        "proxy_headers": False,  # else anyone on this machine could say where a request comes from
        "access_log": False,
    }


class Protocol(HttpToolsProtocol):
    """One connection.

    Args:
        arguments: uvicorn's own.
        settings: idle, send, max_header and max_connections.
        options: uvicorn's own.
    """

    def __init__(self, *arguments: Any, settings: Settings, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.settings = settings
        self._fault: ApiError | None = None  # why a callback gave up
        self._in_head = self._in_body = False
        self._cycles: list[RequestResponseCycle] = []  # requests that are being answered or wait for it, in order
        self._raw = self._size = 0  # bytes of a head that is not complete, and of its lines that are
        self._head_timer: TimerHandle | None = None
        self._send_timer: TimerHandle | None = None

    # the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse one too many, and wait for a request, but not for ever."""
        super().connection_made(transport)
        if len(self.connections) > self.settings.max_connections:
            most = self.settings.max_connections
            self._refuse(ApiError(503, f"{most} connections are open, which is all that may; try again later", retry=1))
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave no timer behind, and tell all whose answers nobody waits for: uvicorn tells the last one alone."""
        self._cancel_head_timer()
        self._cancel_send_timer()
        self._give_up_answers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head, and start its clock with its first byte."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._in_body or (answering and not self._in_head) or self.transport.is_closing():
            return
        self._raw += len(data)
        if self._raw > self.settings.max_header:
            self._refuse(self._too_large())
        elif self._head_timer is None:
            self._await_head()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.settings.idle, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._raw:
            self._refuse(ApiError(408, f"the request's head was not complete after {self.settings.idle:g} s"))
        else:
            self.transport.close()

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    # what the parser tells; an exception here ends as `send_400_response`

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._size, self._fault = True, 0, None

    def on_url(self, url: bytes) -> None:
        """A part of the address."""
        super().on_url(url)
        if len(self.url) > LONGEST_URL:
            self._give_up(ApiError(414, f"the address is longer than {LONGEST_URL} bytes"))
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head; after a chunked body it would be a trailer, which no check has seen."""
        if not self._in_head:
            self._give_up(ApiError(400, "trailers behind a body are not taken"))
        super().on_header(name, value)
        if len(self.headers) > MOST_HEADERS:
            self._give_up(ApiError(431, f"the request has more than {MOST_HEADERS} header lines"))
        self._grow(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        """The head is whole: is it one that all readers understand alike?"""
        self._in_head, self._in_body, self._raw = False, True, 0
        self._cancel_head_timer()
        version, upgrade = self.scope["http_version"], False
        if self.parser is not None:
            version, upgrade = self.parser.get_http_version(), self.parser.should_upgrade()
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if version not in ("1.0", "1.1"):
            self._give_up(ApiError(400, UNREADABLE))
        if upgrade:
            self._give_up(ApiError(400, "this server speaks HTTP/1.1 alone and upgrades to nothing else"))
        if not self.url.startswith(b"/"):
            self._give_up(ApiError(400, "the address must be a path, such as /v1/models"))
        if codings and (codings != [b"chunked"] or version == "1.0"):
            self._give_up(ApiError(400, "of all transfer codings this server takes chunked alone, in HTTP/1.1"))
        if len(self.pipeline) >= MOST_PIPELINED:
            self._give_up(ApiError(400, f"more than {MOST_PIPELINED} requests were sent ahead"))
        super().on_headers_complete()
        self._cycles.append(self.cycle)

    def on_message_complete(self) -> None:
        """A request is whole."""
        super().on_message_complete()
        self._in_body = False

    def _grow(self, by: int) -> None:
        self._size += by
        if self._size > self.settings.max_header:
            self._give_up(self._too_large())

    def _too_large(self) -> ApiError:
        return ApiError(431, f"the request's head is larger than {self.settings.max_header:,} bytes")

    def _give_up(self, fault: ApiError) -> None:
        self._fault = fault
        raise fault

    # answers

    def send_400_response(self, msg: str) -> None:
        """Say why a request cannot be read, where nobody can take it for the answer to another."""
        self._refuse(self._fault or ApiError(400, UNREADABLE))

    def _refuse(self, fault: ApiError) -> None:
        self._cancel_head_timer()
        self._unset_keepalive_if_required()
        running = tuple(self._cycles)
        self._give_up_answers()
        self.pipeline.clear()
        if not running or (self._in_body and running[0] is self.cycle and not self.cycle.response_started):
            fields = {
                "content-type": "application/json",
                "content-length": str(len(fault.content)),
                "connection": "close",
                "x-content-type-options": "nosniff",
                "cache-control": "no-store",
                **fault.headers,
            }
            lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            self.transport.write(STATUS_LINE[fault.status] + lines.encode("ascii") + b"\r\n" + fault.content)
        log.info("a request was refused: %d %s", fault.status, fault.message)
        self.transport.close()
        self._watch_the_rest()

    def _give_up_answers(self) -> None:
        """Their answers can go nowhere."""
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()
        self._cycles.clear()

    def on_response_complete(self) -> None:
        """The next request, or none where this one's body has not been read: it would be taken for requests."""
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        if self._in_body and not self.pipeline:
            self.transport.close()
        super().on_response_complete()
        self._watch_the_rest()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked any more."""
        super().timeout_keep_alive_handler()
        self._watch_the_rest()

    def shutdown(self) -> None:
        """The server stops."""
        super().shutdown()
        self._watch_the_rest()

    # readers who do not read

    def pause_writing(self) -> None:
        """More waits to be taken than the system holds: give the reader `send` seconds."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """It was taken."""
        super().resume_writing()
        self._cancel_send_timer()

    def _watch_the_rest(self) -> None:
        """A closed connection stays until its last byte is taken: not for ever either."""
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._await_reader()

    def _await_reader(self) -> None:
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self.settings.send, self._reader_is_late)

    def _reader_is_late(self) -> None:
        self._send_timer = None
        log.info("a reader took nothing for %g s and was given up", self.settings.send)
        self.transport.abort()

    def _cancel_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
