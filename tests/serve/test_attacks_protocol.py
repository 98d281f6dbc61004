"""T13: what is sent below the routes: heads without end, slow ones, smuggled ones, and readers who do not read."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from attacking import connect, post, read, say
from serving import Served, serving, tiny_talker

from cutaway.serve import Settings
from cutaway.serve.protocol import LONGEST_URL, MOST_HEADERS

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
ASKED = b'{"model": "tiny", "prompt": "The", "max_tokens": 2, "temperature": 0}'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    source = tiny_talker(tmp_path_factory.mktemp("models") / "tiny")
    settings = Settings(models={"tiny": source}, idle=1.0, send=1.0, max_body=10_000, max_connections=40)
    with serving(settings) as made:
        yield made


def answers(served: Served) -> None:
    """The server still does what it is for."""
    said = say(served, post(ASKED), wait=0.01)
    assert said.status == 200, said.body


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMUGGLED = {
    "both lengths": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
    "both, the other way": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + GET,
    "two lengths": HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "two equal lengths": HEAD + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": HEAD + b"Content-Length: 4, 4\r\n\r\nabcd",
    "a signed length": HEAD + b"Content-Length: +4\r\n\r\nabcd",
    "a negative length": HEAD + b"Content-Length: -4\r\n\r\nabcd",
    "a length in hex": HEAD + b"Content-Length: 0x4\r\n\r\nabcd",
    "a length without end": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nabcd",
    "another coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a hidden coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding with a tab": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded line": HEAD + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare line feeds": b"GET /health HTTP/1.1\nHost: localhost\n\n",
    "a bare return": b"GET /health HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n",
    "a NUL": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "an escape": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x1b[2Jb\r\n\r\n",
    "a chunk size without end": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "a negative chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    "a chunk of 0x": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk that is longer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    "a trailer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nHost: evil\r\n\r\n",
    "an absolute address": b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another protocol": b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "a websocket": b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/0.9": b"GET /health HTTP/0.9\r\nHost: localhost\r\n\r\n",
    "chunked in HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two content types": HEAD + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
    "two keys": HEAD + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\nContent-Length: 2\r\n\r\n{}",
    "two origins": b"GET /health HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a\r\nOrigin: http://b\r\n\r\n",
}


@pytest.mark.parametrize("what", SMUGGLED)
def test_t13_what_two_readers_understand_differently_is_refused(what: str, served: Served) -> None:
    said = say(served, SMUGGLED[what])
    assert said.status == 400, said
    assert said.error["type"] == "invalid_request_error"
    if SMUGGLED[what].startswith(b"POST") or what in ("two lengths", "both lengths"):
        assert said.closed  # or what follows would be taken for the next request
    answers(served)


def test_t13_a_smuggled_request_is_never_answered(served: Served) -> None:
    """Whatever stands behind a body that breaks off is not a request."""
    inner = post(ASKED)
    for outer in (SMUGGLED["both lengths"], SMUGGLED["a chunk that is longer"]):
        with connect(served) as to:
            to.sendall(outer + inner)
            received = b""
            while more := _rest(to):
                received += more
        assert received.count(b"HTTP/1.1 ") == 1
        assert b"text_completion" not in received


def _rest(to: socket.socket) -> bytes:
    try:
        return to.recv(1 << 16)
    except ConnectionError:
        return b""


def test_t13_heads_are_limited(served: Served) -> None:
    most = served.server.settings.max_header
    start = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    one = say(served, start + b"X: " + b"a" * most + b"\r\n\r\n")
    assert (one.status, one.closed) == (431, True)
    unfinished = say(served, start, *[b"X: " + b"a" * 8000] * 20)  # its line never ends
    assert unfinished.status == 431
    many = say(served, start + b"".join(b"X-%d: a\r\n" % n for n in range(MOST_HEADERS + 1)) + b"\r\n")
    assert many.status == 431
    long = say(served, b"GET /health?" + b"a" * LONGEST_URL + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert long.status == 414
    breaks = say(served, *[b"\r\n" * 4000] * 20)
    assert breaks.status == 431
    assert say(served, start + b"X: " + b"a" * (most - 200) + b"\r\n\r\n").status == 200
    answers(served)


def test_t13_a_head_that_does_not_come_on_ends(served: Served) -> None:
    """Slow loris: a line now and then, never the last."""
    start = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    said = say(served, start, *[b"X: y\r\n"] * 10, pause=0.3)
    assert (said.status, said.closed) == (408, True)
    with connect(served) as to:
        assert to.recv(1) == b""  # who says nothing is let go without a word
    with connect(served) as to:
        to.sendall(GET)
        assert not read(to, wait=0.1).closed
        to.sendall(b"\r\n")  # which is no request either
        assert read(to).status == 408
    answers(served)


def test_t13_a_body_that_does_not_come_on_ends(served: Served) -> None:
    head = HEAD + b"Content-Length: 9000\r\n\r\n"
    stopped = say(served, head + b'{"model":')
    assert (stopped.status, stopped.closed) == (408, True)
    trickled = say(served, head, *[b"1"] * 15, pause=0.15)
    assert (trickled.status, trickled.closed) == (408, True)
    chunked = say(served, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\n1\r\n"] * 15, pause=0.15)
    assert (chunked.status, chunked.closed) == (408, True)
    answers(served)


def test_t13_bodies_are_limited_while_they_come(served: Served) -> None:
    said = say(served, HEAD + b"Content-Length: 10001\r\n\r\n")  # before a byte of it has come
    assert (said.status, said.closed) == (413, True)
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    counted = say(served, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3)  # and no end
    assert (counted.status, counted.closed) == (413, True)
    for size in (100_000, 3_000_000):  # a client that goes on sending is told so too
        answer = httpx.post(f"{served.url}/v1/completions", json={"model": "tiny", "prompt": "x" * size})
        assert answer.status_code == 413
    answers(served)


def test_t13_what_is_behind_an_answer_is_no_request(served: Served) -> None:
    """A refused body is not read; its connection ends, or it would be taken for requests."""
    said = say(served, post(b" " * 9000 + post(ASKED), b"Content-Encoding: gzip"))
    assert (said.status, said.closed) == (415, True)
    got = say(
        served,
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n",
    )
    assert (got.status, got.closed) == (200, True)


def test_t13_requests_sent_ahead_are_limited(served: Served) -> None:
    with connect(served) as to:
        to.sendall(post(ASKED) * 3)  # a few are answered in their order
        received = b""
        while received.count(b"text_completion") < 3:
            received += to.recv(1 << 16)
    with connect(served) as to:
        to.sendall(post(ASKED) + GET * 2000)
        received = b""
        while more := _rest(to):
            received += more
        assert received.count(b"HTTP/1.1 200") <= 1
    answers(served)


def test_t13_connections_are_limited(served: Served) -> None:
    held = [connect(served) for _ in range(40)]
    try:
        with connect(served) as to:
            said = read(to)
        assert (said.status, said.headers["retry-after"], said.closed) == (503, "1", True)
    finally:
        for one in held:
            one.close()
    time.sleep(0.2)
    answers(served)


def test_t13_a_reader_who_does_not_read_is_given_up(served: Served) -> None:
    before = len(served.uvicorn.server_state.connections)
    with connect(served) as to:
        to.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        stop = threading.Event()

        def send() -> None:
            try:
                while not stop.is_set():
                    to.sendall(ask)
            except OSError:
                stop.set()

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        assert stop.wait(20)  # it was reset
        thread.join()
    deadline = time.monotonic() + 5
    while len(served.uvicorn.server_state.connections) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(served.uvicorn.server_state.connections) <= before
    answers(served)


def test_t13_nothing_is_told_of_what_answers(served: Served) -> None:
    assert "server" not in httpx.get(f"{served.url}/health").headers


def test_t13_bodies_of_real_clients_pass(tmp_path: Path) -> None:
    """Chunks of any size, Expect, HTTP/1.0, a body in pieces."""
    pieces = [b"%x\r\n%s\r\n" % (len(part), part) for part in (ASKED[:1], ASKED[1:30], ASKED[30:])]
    chunked, whole = HEAD + b"Transfer-Encoding: chunked\r\n\r\n", post(ASKED)
    with serving(Settings(models={"tiny": tiny_talker(tmp_path / "tiny")})) as served:
        for parts in (
            (chunked, *pieces, b"0\r\n\r\n"),
            (chunked + b"".join(pieces) + b"0\r\n\r\n",),
            (whole.replace(b"HTTP/1.1", b"HTTP/1.0"),),
            tuple(whole[at : at + 40] for at in range(0, len(whole), 40)),
        ):
            assert say(served, *parts, pause=0.01, wait=0.01).status == 200
        with connect(served) as to:
            to.sendall(post(ASKED, b"Expect: 100-continue")[: -len(ASKED)])
            assert to.recv(100).startswith(b"HTTP/1.1 100")
            to.sendall(ASKED)
            assert read(to, wait=0.01).status == 200


def slowly(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each step of the engine take a while."""
    engine = served.server.models.loaded["tiny"].engine
    step = engine.step

    def slow() -> bool:
        time.sleep(0.02)
        return step()

    monkeypatch.setattr(engine, "step", slow)


LONG = post(ASKED.replace(b'"max_tokens": 2', b'"max_tokens": 200, "stream": true'))


def test_t13_a_client_that_sent_requests_ahead_and_goes_ends_all(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(served, monkeypatch)
    gone = ("/v1/completions", "499")
    before = served.server.metrics.requests[gone]
    with connect(served) as to:
        to.sendall(LONG * 2)
        assert b"HTTP/1.1 200" in to.recv(1 << 16)
        (work,) = served.server.works
        to.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until = time.monotonic() + 20
    while served.server.works and time.monotonic() < until:
        time.sleep(0.01)
    assert work.error is not None
    assert work.error.status == 499
    assert work.completion_tokens < 150
    assert served.server.metrics.requests[gone] > before
    answers(served)


def test_t13_a_refusal_never_stands_within_another_answer(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    slowly(served, monkeypatch)
    broken = HEAD + b"Transfer-Encoding: chunked\r\n\r\nno size\r\n"
    with connect(served) as to:
        to.sendall(LONG)
        assert b"HTTP/1.1 200" in to.recv(1 << 16)
        to.sendall(broken)
        received = b""
        while more := _rest(to):
            received += more
    assert b"HTTP/1.1" not in received
    answers(served)


def test_t13_a_body_must_come_within_the_deadline(tmp_path: Path) -> None:
    """Else a few clients could hold for hours what all bodies together may have."""
    settings = Settings(models={"tiny": tiny_talker(tmp_path / "tiny")}, idle=2.0, deadline=2.5)
    with serving(settings) as served:
        said = say(served, HEAD + b"Content-Length: 100000\r\n\r\n", *[b" " * 4096] * 8, pause=0.2)
        assert (said.status, said.closed) == (408, True)
        assert "2.5 s" in said.error["message"]
