"""Raw sockets for tests that no client would pass: what is sent stands in the test, byte for byte."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from serving import Served

from cutaway.serve.guard import Guard


@dataclass(frozen=True)
class Said:
    """An answer.

    Attributes:
        status: of HTTP; 0: none came.
        headers: lower-case.
        body: as it came.
        closed: the connection was closed behind it.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


def connect(served: Served) -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=20)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def say(served: Served, *parts: bytes, pause: float = 0.0, wait: float = 0.5) -> Said:
    """Send parts, with a pause between them, and read one answer; then look whether the connection is closed."""
    with connect(served) as to:
        for index, part in enumerate(parts):
            time.sleep(pause if index else 0)
            try:
                to.sendall(part)
            except OSError:
                break
        return read(to, wait=wait, empty=parts[0].startswith(b"HEAD"))


def read(to: socket.socket, *, wait: float = 0.5, empty: bool = False) -> Said:
    """One answer with a length, or all until the end."""
    data, closed = b"", False
    while b"\r\n\r\n" not in data:
        more = _more(to)
        if not more:
            return Said(0, {}, data, True)
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while not empty and len(body) < int(headers.get("content-length", "0")):
        more = _more(to)
        if not more:
            break
        body += more
    to.settimeout(wait)
    try:
        closed = to.recv(1) == b""
    except TimeoutError:
        pass
    except OSError:
        closed = True
    to.settimeout(20)
    return Said(int(first.split()[1]), headers, body, closed)


def _more(to: socket.socket) -> bytes:
    try:
        return to.recv(1 << 16)
    except ConnectionError:
        return b""


def post(body: bytes, *lines: bytes, path: bytes = b"/v1/completions", host: bytes = b"localhost") -> bytes:
    """A request with a length and these lines besides."""
    head = [b"POST " + path + b" HTTP/1.1", b"Host: " + host, b"Content-Type: application/json"]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), *lines, b"", body])


def app_of(served: Served) -> FastAPI:
    """The application of a running server."""
    found: Any = served.uvicorn.config.loaded_app
    while not isinstance(found, FastAPI):
        found = found.app
    return found


def guard_of(served: Served) -> Guard:
    """What guards a running server."""
    found: Any = app_of(served).middleware_stack
    while not isinstance(found, Guard):
        found = found.app
    return found
