"""Places, turns, deadlines and cancelling: what every request goes through."""

import asyncio
import dataclasses
import json
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Served, serving, tiny_talker

from cutaway.errors import Closed
from cutaway.serve import Settings, body
from cutaway.serve.errors import ApiError, as_api_error
from cutaway.serve.queue import Place, Queue


def queue(batch: int, waiting: int) -> Queue:
    return Queue(Settings(models={}, max_batch=batch, queue=waiting))


def states(*places: Place) -> list[str]:
    return [place.state for place in places]


def test_so_many_run_so_many_wait_and_the_rest_is_told_when_to_come_again() -> None:
    places = queue(2, 1)
    first, second, third = (places.take("m", "", 1) for _ in range(3))
    assert states(first, second, third) == ["runs", "runs", "waits"]
    with pytest.raises(ApiError) as refused:
        places.take("m", "")
    assert refused.value.status == 429
    assert float(refused.value.headers["retry-after"]) >= 1
    places.leave(first)
    assert third.state == "runs"
    for place in (first, second, third, third):  # twice does no harm
        places.leave(place)
    assert places.taken == 0


def test_a_request_counts_for_what_it_takes_and_large_ones_are_not_overtaken_for_ever() -> None:
    places = queue(4, 10)
    small, large, later = places.take("m", "", 2), places.take("m", "", 3), places.take("m", "", 1)
    assert states(small, large, later) == ["runs", "waits", "waits"]  # later would fit, but stands behind large
    places.leave(small)
    assert states(large, later) == ["runs", "runs"]
    everything = places.take("m", "", 1000)
    assert everything.weight == 4
    places.leave(large)
    places.leave(later)
    assert everything.state == "runs"


def test_another_model_has_places_of_its_own() -> None:
    places = queue(1, 5)
    one, waits, other = places.take("a", ""), places.take("a", ""), places.take("b", "")
    assert states(one, waits, other) == ["runs", "waits", "runs"]


def test_whoever_has_least_is_next_and_nobody_keeps_others_out() -> None:
    places = queue(2, 4)
    greedy = [places.take("m", "greedy") for _ in range(6)]
    assert states(*greedy) == ["runs"] * 2 + ["waits"] * 4
    modest = places.take("m", "modest")  # all places to wait are taken, and one of greedy's is given up
    assert states(*greedy) == ["runs"] * 2 + ["waits"] * 3 + ["over"]
    with pytest.raises(ApiError, match="busy"):
        asyncio.run(greedy[-1].turn())
    places.leave(greedy[0])
    assert modest.state == "runs"  # though three of greedy's waited for longer
    for _ in range(9):
        with suppress(ApiError):
            places.take("m", "modest")
    assert [place.state for place in greedy].count("waits") >= 2  # neither has more than its half


def test_one_that_waits_may_leave_and_lets_those_behind_it_pass() -> None:
    places = queue(4, 9)
    runs, large, small = places.take("m", "", 3), places.take("m", "", 4), places.take("m", "", 1)
    assert states(runs, large, small) == ["runs", "waits", "waits"]
    places.leave(large)
    assert small.state == "runs"


def test_when_to_come_again_follows_from_how_fast_requests_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("cutaway.serve.queue.time.monotonic", lambda: now)
    places = queue(1, 10)
    for _ in range(10):  # one ends every four seconds
        place = places.take("m", "")
        now += 4.0
        places.leave(place)
    for _ in range(11):
        places.take("m", "")
    assert places.retry(1) == pytest.approx(3.6)  # ten ended within 36 s
    assert places.retry(5) == pytest.approx(18.0)


# over HTTP


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("core") / "tiny", context=4096)


@pytest.fixture
def served(source: str) -> Iterator[Served]:
    with serving(Settings(models={"tiny": source}, max_batch=4, queue=64, cache_memory=64 << 20)) as served:
        yield served
        settled(served)


def settled(served: Served) -> None:
    """Nothing is left of any request."""
    until = time.monotonic() + 10
    server = served.server
    while time.monotonic() < until:
        engines = [one.engine for one in server.models.loaded.values()]
        if not server.works and not server.queue.taken and all(engine.idle for engine in engines):
            break
        time.sleep(0.01)
    assert not server.works
    assert server.queue.taken == server.bridge.running == 0
    for one in server.models.loaded.values():
        assert one.engine.idle
        assert one.users == 0
        assert one.engine.counts()["used"] == 0


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "The quick", "max_tokens": 8, "temperature": 0, **more}


def test_a_thousand_at_once_against_a_queue_of_64(served: Served) -> None:
    """Those that are let in finish, with the tokens that they have alone; the others are told when to come again."""
    alone = httpx.post(f"{served.url}/v1/completions", json=asked(max_tokens=40)).json()["choices"][0]["text"]

    body = json.dumps(asked(max_tokens=40)).encode()
    host, port = served.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\nconnection: close"
    )
    sent = f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

    async def one() -> tuple[bytes, dict[str, Any]]:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        head, _, said = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
        writer.close()
        return head, json.loads(said)

    async def all_of_them() -> list[tuple[bytes, dict[str, Any]]]:
        return await asyncio.gather(*(one() for _ in range(1000)))

    answers = asyncio.run(all_of_them())
    good = [said for head, said in answers if head.startswith(b"HTTP/1.1 200")]
    bad = [(head, said) for head, said in answers if not head.startswith(b"HTTP/1.1 200")]
    assert len(good) >= 68
    assert bad, "a queue of 64 took a thousand"
    assert {said["choices"][0]["text"] for said in good} == {alone}
    assert {said["error"]["code"] for _, said in bad} == {"busy"}
    assert all(head.startswith(b"HTTP/1.1 429") and b"\r\nretry-after: " in head for head, _ in bad)


def test_the_deadline_ends_an_answer(served: Served) -> None:
    head = {"cutaway-deadline": "0.15"}
    late = httpx.post(f"{served.url}/v1/completions", json=asked(max_tokens=3000), headers=head, timeout=20)
    assert late.status_code == 504
    assert late.json()["error"]["code"] == "deadline"
    assert "0.15 s" in late.json()["error"]["message"]
    settled(served)


def test_the_deadline_ends_a_stream_with_an_event(served: Served) -> None:
    counting = held_up(served)
    for _ in range(4):  # steps; within the fifth it is held until long after the deadline
        counting.go.release()
    with httpx.stream(
        "POST",
        f"{served.url}/v1/completions",
        json=asked(max_tokens=3000, stream=True),
        headers={"cutaway-deadline": "4"},
        timeout=20,
    ) as stream:
        events = [line.removeprefix("data: ") for line in stream.iter_lines() if line]
    assert stream.status_code == 200
    assert json.loads(events[-2])["error"]["code"] == "deadline"
    assert events[-1] == "[DONE]"
    assert json.loads(events[0])["choices"][0]["text"]  # what was written before came
    counting.held = False
    counting.go.release()


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_deadline_must_be_a_number_of_seconds(served: Served, given: str) -> None:
    said = httpx.post(f"{served.url}/v1/completions", json=asked(), headers={"cutaway-deadline": given})
    assert said.status_code == 400
    assert "Cutaway-Deadline" in said.json()["error"]["message"]


def test_the_deadline_of_the_server_is_the_longest(source: str) -> None:
    with serving(Settings(models={"tiny": source}, deadline=0.1, cache_memory=64 << 20)) as served:
        head = {"cutaway-deadline": "1000"}
        late = httpx.post(f"{served.url}/v1/completions", json=asked(max_tokens=3000), headers=head, timeout=20)
        assert late.status_code == 504
        assert "0.1 s" in late.json()["error"]["message"]
        settled(served)


class Counting:
    """Stands before a backend, and counts rows that are computed; can be held after a step."""

    def __init__(self, backend: Any) -> None:
        self._backend, self.steps = backend, 0
        self.stepped, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.held = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def step(self, batch: Any) -> Any:
        made = self._backend.step(batch)
        self.steps += 1
        if self.held:
            self.stepped.release()
            assert self.go.acquire(timeout=20)
        return made


def held_up(served: Served) -> Counting:
    """Lets the engine stop after each step."""
    lane: Any = served.server.models.loaded["tiny"].engine._lanes[0]
    counting = Counting(lane.backend)
    lane.backend = lane.held.backend = counting
    counting.held = True
    return counting


def test_who_waits_in_the_queue_has_a_deadline_too(source: str) -> None:
    with serving(Settings(models={"tiny": source}, max_batch=1, queue=4, cache_memory=64 << 20)) as served:
        counting = held_up(served)
        for _ in range(2):  # steps, after which there is something to be read
            counting.go.release()
        with httpx.stream("POST", f"{served.url}/v1/completions", json=asked(stream=True), timeout=20) as runs:
            late = httpx.post(f"{served.url}/v1/completions", json=asked(), headers={"cutaway-deadline": "0.1"})
            assert late.status_code == 504
            assert served.server.queue.waiting == 0
            counting.held = False
            counting.go.release()
            assert list(runs.iter_lines())[-2] == "data: [DONE]"
        settled(served)


@pytest.mark.parametrize("stream", [False, True])
def test_not_one_step_more_than_the_one_that_runs_for_a_client_that_goes(served: Served, stream: bool) -> None:
    counting = held_up(served)
    body = json.dumps(asked(max_tokens=3000, stream=stream))
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        for _ in range(5):
            assert counting.stepped.acquire(timeout=20)
            counting.go.release()
        assert counting.stepped.acquire(timeout=20)  # it is held within the sixth
    until = time.monotonic() + 10
    while served.server.works and time.monotonic() < until:
        time.sleep(0.005)
    assert not served.server.works  # the server has seen that the client is gone, while the step still runs
    counting.held = False
    counting.go.release()
    settled(served)
    assert counting.steps == 6


def test_what_is_attended_ends_with_the_client_and_hides_nothing(served: Served) -> None:
    """Tasks are ended, not left; what they fail with is raised; a cancelled request cancels them."""
    server, loop = served.server, served.server.bridge._loop

    class Http:
        def __init__(self) -> None:
            self.gone = asyncio.Event()
            self.scope: dict[str, Any] = {}
            self.headers: dict[str, str] = {}

        async def receive(self) -> dict[str, str]:
            await self.gone.wait()
            return {"type": "http.disconnect"}

    async def scenario() -> None:
        from cutaway.serve.server import Work

        before = asyncio.all_tasks()
        http = Http()
        with Work(server, http, "tiny") as work:  # pyright: ignore[reportArgumentType]
            with pytest.raises(ZeroDivisionError):
                await work.attended(fails())
            ended = asyncio.Event()

            async def endless() -> None:
                try:
                    await asyncio.sleep(1000)
                finally:
                    ended.set()

            asyncio.get_running_loop().call_later(0.05, http.gone.set)
            with pytest.raises(ApiError) as gone:
                await work.attended(endless())
            assert gone.value.status == 499
            assert ended.is_set()
            with pytest.raises(ApiError):  # from then on at once
                await work.attended(asyncio.sleep(1000))
        ended.clear()
        with Work(server, Http(), "tiny") as work:  # pyright: ignore[reportArgumentType]
            outer = asyncio.create_task(work.attended(endless()))
            await asyncio.sleep(0.02)
            outer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await outer
            assert ended.is_set()
        await asyncio.sleep(0.02)
        assert asyncio.all_tasks() - before == set()

    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    asyncio.run_coroutine_threadsafe(scenario(), loop).result(20)


def test_a_request_that_is_cancelled_while_it_is_prepared_is_not_computed(served: Served) -> None:
    """Its ticket comes after nobody waits for it any more."""
    from cutaway.generation import Request

    server = served.server
    engine = server.models.loaded["tiny"].engine
    begun, go, submit = threading.Event(), threading.Event(), engine.submit
    made = []

    def slow(request: Request) -> Any:
        begun.set()
        assert go.wait(20)
        made.append(submit(request))
        return made[0]

    engine.submit = slow  # pyright: ignore[reportAttributeAccessIssue]

    async def scenario() -> None:
        task = asyncio.create_task(server.bridge.submit(engine, Request("The", max_new_tokens=3000)))
        await server.bridge.aside(lambda: begun.wait(20))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()

    asyncio.run_coroutine_threadsafe(scenario(), server.bridge._loop).result(20)
    until = time.monotonic() + 10
    while not (made and made[0].ended) and time.monotonic() < until:
        time.sleep(0.01)
    assert made[0].ended
    assert made[0].result().finish_reason == "cancelled"
    settled(served)


def test_forms_that_take_long_keep_no_other_request_waiting(source: str) -> None:
    with serving(Settings(models={"tiny": source}, cache_memory=64 << 20)) as served:
        engine, go = served.server.models.loaded["tiny"].engine, threading.Event()
        submit = engine.submit

        def slow(request: Any) -> Any:
            if request.regex is not None:
                assert go.wait(20)
                request = dataclasses.replace(request, regex=None)
            return submit(request)

        engine.submit = slow  # pyright: ignore[reportAttributeAccessIssue]
        answers: list[int] = []

        def held() -> None:
            body = asked(structured_outputs={"regex": "[a-z]+"})
            answers.append(httpx.post(f"{served.url}/v1/completions", json=body, timeout=30).status_code)

        threads = [threading.Thread(target=held) for _ in range(12)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 10
        while len(served.server.works) < 12 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(served.server.works) == 12
        assert httpx.post(f"{served.url}/v1/completions", json=asked(), timeout=10).status_code == 200
        assert not answers
        go.set()
        for thread in threads:
            thread.join(30)
        assert answers == [200] * 12
        settled(served)


def test_an_idle_bridge_does_nothing_at_all(served: Served) -> None:
    httpx.post(f"{served.url}/v1/completions", json=asked())
    steps: list[int] = []
    engine = served.server.models.loaded["tiny"].engine
    step = engine.step

    def counted() -> bool:
        steps.append(1)
        return step()

    engine.step = counted  # pyright: ignore[reportAttributeAccessIssue]
    time.sleep(0.3)
    assert not steps
    httpx.post(f"{served.url}/v1/completions", json=asked())
    assert steps


def test_pages_say_whether_it_lives_and_answers(served: Served, tmp_path: Path) -> None:
    assert httpx.get(f"{served.url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{served.url}/ready").json() == {"status": "ready"}
    served.server.bridge._loop.call_soon_threadsafe(served.server.drain)
    until = time.monotonic() + 5
    while served.server.ready and time.monotonic() < until:
        time.sleep(0.01)
    stopping = httpx.get(f"{served.url}/ready")
    assert (stopping.status_code, stopping.json()) == (503, {"status": "stopping"})
    assert httpx.get(f"{served.url}/health").status_code == 200
    refused = httpx.post(f"{served.url}/v1/completions", json=asked())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
    assert refused.headers["retry-after"]
    assert refused.headers["connection"] == "close"


def test_which_models_there_are(served: Served) -> None:
    listed = httpx.get(f"{served.url}/v1/models").json()
    assert [(one["id"], one["object"]) for one in listed["data"]] == [("tiny", "model")]
    assert httpx.get(f"{served.url}/v1/models/tiny").json() == listed["data"][0]
    missing = httpx.get(f"{served.url}/v1/models/tinny")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"
    assert "tiny" in missing.json()["error"]["message"]


@pytest.mark.parametrize("wanted", [False, True])
def test_texts_stand_in_the_log_only_where_that_was_asked_for(
    source: str, wanted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with serving(Settings(models={"tiny": source}, cache_memory=64 << 20, log_texts=wanted)) as served:
        whole = httpx.post(f"{served.url}/v1/completions", json=asked(prompt="hello, how are you?"))
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "jumps over"}], "max_tokens": 6}
        assert httpx.post(f"{served.url}/v1/chat/completions", json=chat).status_code == 200
        settled(served)
    text = whole.json()["choices"][0]["text"]
    assert ("hello, how are you?" in caplog.text) is wanted
    assert (f"tiny answered: {text}" in caplog.text) is wanted
    assert ("jumps over" in caplog.text) is wanted


def test_what_everybody_is_told_keeps_nothing_of_anybody() -> None:
    """An exception that is raised again keeps the frames of all the times before, and what they hold."""
    places = queue(1, 1)
    places.refuses = ApiError(503, "not now")
    for _ in range(9):
        with pytest.raises(ApiError):
            places.take("m", "")
    assert len([*traceback.walk_tb(places.refuses.__traceback__)]) == 2


def test_nobody_is_told_to_come_again_too_early() -> None:
    assert ApiError(429, "", retry=29.1).headers["retry-after"] == "30"
    assert ApiError(429, "", retry=0.0).headers["retry-after"] == "1"


def test_an_engine_that_was_closed_is_no_fault_of_ours() -> None:
    told = as_api_error(Closed("the engine was closed; load the model anew"))
    assert (told.status, told.headers["retry-after"]) == (503, "1")


def test_large_bodies_are_read_beside_the_event_loop(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    parse = body.parse

    def noted(content: bytes) -> Any:
        threads.append(threading.current_thread().name)
        return parse(content)

    monkeypatch.setattr(body, "parse", noted)
    for size in (10, 2 * body.LARGE):
        content = json.dumps(asked()) + " " * size
        head = {"content-type": "application/json"}
        assert httpx.post(f"{served.url}/v1/completions", content=content, headers=head).status_code == 200
    broken = httpx.post(f"{served.url}/v1/completions", content="[" + " " * 2 * body.LARGE, headers=head)
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_json")
    assert [name.startswith("beside") for name in threads] == [False, True, True]
