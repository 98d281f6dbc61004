"""What clients do wrong, all at once: nothing hangs, nothing leaks, nobody else notices."""

import asyncio
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import Process, process
from serving import Served, serving, tiny_talker
from test_serve_core import settled

from cutaway.serve import Settings

LINUX = sys.platform.startswith("linux")
MB = 1 << 20


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("faults") / "tiny", context=8192)


@pytest.fixture
def served(source: str) -> Iterator[Served]:
    settings = Settings(models={"tiny": source}, max_batch=16, queue=512, cache_memory=64 * MB, send=0.5, idle=0.5)
    with serving(settings) as served:
        yield served
        settled(served)


@pytest.fixture(scope="module")
def server(source: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    words = (f"tiny={source}", "--queue", "512", "--cache-memory", "64MB", "--idle", "2", "--send", "2")
    with process(*words, folder=tmp_path_factory.mktemp("server")) as made:
        yield made
        made.signal()
        assert made.end() == 0  # and whatever was done to it, it ends in order
        assert "Traceback" not in made.errors


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "The quick", "max_tokens": 8, "temperature": 0, **more}


def head(port: int, length: int) -> bytes:
    lines = (
        "POST /v1/completions HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "content-type: application/json",
        f"content-length: {length}",
    )
    return "\r\n".join((*lines, "", "")).encode()


def message(port: int, **more: Any) -> bytes:
    body = json.dumps(asked(**more)).encode()
    return head(port, len(body)) + body


def port_of(served: Served) -> int:
    return int(served.url.rpartition(":")[2])


async def vanish(port: int, moment: random.Random) -> None:
    """Ask for a long answer, read a little of it, and go: politely or not, at any moment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = message(port, max_tokens=4000, stream=True, seed=moment.randrange(1000))
    how = moment.random()
    writer.write(sent[: moment.randrange(1, len(sent))] if how < 0.2 else sent)
    if how >= 0.4:
        await asyncio.wait_for(reader.read(100 + moment.randrange(4000)), 60)
    if moment.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()


def vanishing(server: Process, count: int) -> None:
    """So many clients, a hundred at a time; afterwards nothing of them is left."""
    moment = random.Random(0)
    expected = server.ask("/v1/completions", asked(max_tokens=30))[1]

    async def all_of_them() -> None:
        for _ in range(0, count, 100):
            await asyncio.gather(*(vanish(server.port, moment) for _ in range(100)))

    asyncio.run(all_of_them())
    nothing = ("cutaway_queue_running", "cutaway_queue_waiting", 'cutaway_batch_sequences{model="tiny"}')
    still = figures(server, until=dict.fromkeys((*nothing, 'cutaway_pages{model="tiny",state="used"}'), 0.0))
    assert still['cutaway_rejected_total{reason="client_gone"}'] >= 0.3 * count
    # of the four million tokens that were asked for almost none was computed
    assert still['cutaway_tokens_total{kind="written",model="tiny"}'] < 0.5 * 4000 * count
    again = server.ask("/v1/completions", asked(max_tokens=30))[1]
    assert json.loads(again)["choices"] == json.loads(expected)["choices"]


def figures(server: Process, until: dict[str, float] | None = None) -> dict[str, float]:
    """What /metrics tells, as soon as some have these values."""
    end = time.monotonic() + 20
    while True:
        text = server.ask("/metrics")[1].decode()
        found = {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
        }
        if time.monotonic() > end or all(found[name] == value for name, value in (until or {}).items()):
            assert all(found[name] == value for name, value in (until or {}).items()), until
            return found
        time.sleep(0.05)


def descriptors(server: Process) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def threads(server: Process) -> int:
    return len(os.listdir(f"/proc/{server.pid}/task"))


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_clients_that_vanish_leave_nothing(server: Process) -> None:
    vanishing(server, 100)
    before = descriptors(server), threads(server)
    vanishing(server, 200)
    assert descriptors(server) <= before[0] + 2
    assert threads(server) <= before[1]


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_thousand_clients_that_vanish_leave_nothing(server: Process) -> None:
    vanishing(server, 200)
    before, memory = descriptors(server), server.memory()
    vanishing(server, 1000)
    assert descriptors(server) <= before + 2
    assert server.memory() - memory < 16 * MB


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_memory_is_flat_over_many_requests(server: Process) -> None:
    """Kinds of requests in turn; in the default run 600 after 300 that warm up."""
    flat(server, 300, 600)


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_memory_is_flat_over_two_thousand_requests(server: Process) -> None:
    flat(server, 500, 2000)


def flat(server: Process, warm: int, count: int) -> None:
    def some(number: int, share: int) -> None:
        for turn in range(share):
            body = asked(prompt=f"{number} {turn} hello", max_tokens=6)
            match turn % 5:
                case 1:
                    body |= {"n": 2, "temperature": 1.0, "seed": turn}
                case 2:
                    body |= {"stream": True, "logprobs": 3}
                case 3:
                    body |= {"prompt": "x" * 10_000}  # longer than the context
                case 4:
                    body |= {"model": f"none-{number}-{turn}"}
            assert server.ask("/v1/completions", body)[0] in (200, 400, 404)

    def many(total: int) -> int:
        workers = [threading.Thread(target=some, args=(number, total // 4)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return server.memory()

    before = many(warm)
    after = many(count)
    assert after - before < 6 * MB  # 3 kB of each request would be seen at 2,000


def test_readers_who_do_not_read_hold_up_nobody_and_are_given_up(served: Served) -> None:
    """Their sockets take little, and the answers are large; others are answered meanwhile."""
    port = port_of(served)

    for one in served.uvicorn.servers[0].sockets:  # the system would hold megabytes for each
        with socket.socket(fileno=os.dup(one.fileno())) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    async def scenario() -> None:
        slow = []
        for _ in range(8):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            one.connect(("127.0.0.1", port))
            one.sendall(message(port, max_tokens=1500, stream=True, logprobs=5))
            slow.append(one)
        async with httpx.AsyncClient(timeout=30) as client:
            for _ in range(20):
                assert (await client.post(f"{served.url}/v1/completions", json=asked())).status_code == 200
        until = time.monotonic() + 20
        while served.server.works and time.monotonic() < until:
            await asyncio.sleep(0.02)
        assert not served.server.works
        body = b""
        for one in slow:
            one.settimeout(10)
            with suppress(ConnectionError):
                while data := one.recv(65536):
                    body += data
            one.close()
        assert b"[DONE]" not in body, "an answer that nobody took was kept to its end"

    asyncio.run(scenario())


def test_bodies_that_are_half_sent_are_given_up(served: Served) -> None:
    """The connection is closed with 408, no place is held for it, and others are answered."""
    port = port_of(served)

    async def half(part: float) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = message(port, max_tokens=5)
        writer.write(sent[: int(len(sent) * part)])
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return answer

    async def scenario() -> list[bytes]:
        halves = asyncio.gather(*(half(0.3 + 0.69 * number / 40) for number in range(40)))
        await asyncio.sleep(0.1)
        assert served.server.queue.taken == 0
        async with httpx.AsyncClient(timeout=30) as client:
            assert (await client.post(f"{served.url}/v1/completions", json=asked())).status_code == 200
        return await halves

    answers = asyncio.run(scenario())
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)


def test_bodies_of_all_together_have_a_limit(source: str) -> None:
    settings = Settings(models={"tiny": source}, cache_memory=64 * MB, max_body=60_000, max_audio=0, max_bodies=70_000)
    with serving(settings) as served:
        port = port_of(served)
        long = message(port, prompt="x" * 40_000)  # too long for the model, which is another matter

        async def scenario() -> None:
            _, first = await asyncio.open_connection("127.0.0.1", port)
            first.write(long[:-1000])
            while served.server.bodies < 39_000:
                await asyncio.sleep(0.01)
            reader, second = await asyncio.open_connection("127.0.0.1", port)
            second.write(long)
            refused = await asyncio.wait_for(reader.readuntil(b"}}"), 20)
            assert refused.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1" in refused
            first.transport.abort()
            while served.server.bodies:
                await asyncio.sleep(0.01)
            reader, third = await asyncio.open_connection("127.0.0.1", port)
            third.write(long)
            assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 400")
            for one in (second, third):
                one.close()

        asyncio.run(asyncio.wait_for(scenario(), 60))
        settled(served)


@pytest.mark.skipif(not LINUX, reason="signals")
def test_a_signal_under_load_answers_or_refuses_everyone(source: str, tmp_path: Path) -> None:
    """Sixty clients that ask again and again; none hangs, none gets half an answer, and the process ends with 0."""
    with process(f"tiny={source}", "--queue", "8", "--max-batch", "4", folder=tmp_path) as server:
        port, seen, halves = server.port, list[int](), list[bytes]()

        async def client() -> None:
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(message(port, max_tokens=60, stream=True))
                    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
                    if answer.startswith(b"HTTP/1.1 200"):
                        rest = await asyncio.wait_for(reader.readuntil(b"data: [DONE]\n\n"), 30)
                        assert b"error" not in rest
                    seen.append(int(answer.split()[1]))
                    writer.close()
                except ConnectionError:
                    return  # it is gone
                except asyncio.IncompleteReadError as error:
                    halves.append(error.partial)
                    return

        async def scenario() -> None:
            clients = asyncio.gather(*(client() for _ in range(60)))
            await asyncio.sleep(1.0)
            server.signal(signal.SIGTERM)
            await clients

        asyncio.run(scenario())
        assert server.end() == 0
        assert set(seen) == {200, 429, 503}
        assert not any(halves)
