"""Answers as events: at once, whole, ended by name; and nothing goes on for a client that has gone."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from serving import Served, serving, tiny_talker
from speaking import CHAT, PROMPT, ask, events, refused

from cutaway.errors import NonFinite
from cutaway.serve import Settings
from cutaway.serve.events import Template, event

TEXT = "The quick brown"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("models") / "tiny", context=4096)


@pytest.fixture(scope="module")
def served(source: str) -> Iterator[Served]:
    with serving(Settings(models={"tiny": source})) as running:
        yield running


def endless(served: Served) -> dict[str, Any]:
    """What keeps a model of random weights from ending its text."""
    model = next(iter(served.server.models.loaded.values())).engine.model
    return {"logit_bias": {str(model.tokenizer.end_of_text): -100}}


def slow_down(served: Served, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let every step take longer."""
    engine = next(iter(served.server.models.loaded.values())).engine
    step = engine.step

    def slow() -> bool:
        worked = step()
        if worked:
            time.sleep(seconds)
        return worked

    monkeypatch.setattr(engine, "step", slow)


def texts(told: list[Any]) -> dict[int, str]:
    """Index -> text of the choices that events tell."""
    found: dict[int, str] = {}
    for one in told:
        for choice in one["choices"]:
            found[choice["index"]] = found.get(choice["index"], "") + choice["text"]
    return found


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"echo": True},
        {"n": 3},
        {"prompt": ["The", "a quick", "brown"], "n": 2},
        {"logprobs": 2},
        {"logprobs": 0, "echo": True, "n": 2},
        {"max_tokens": 0},
        {"max_tokens": 0, "echo": True, "logprobs": 1, "prompt": ["The", "quick"]},
        {"stop": ["\ufffd"]},
        {"return_token_ids": True},
        {"structured_outputs": {"regex": "[abc]{5}"}},
    ],
    ids=str,
)
def test_events_say_what_the_whole_answer_says(served: Served, asked: dict[str, Any]):
    asked = {"prompt": TEXT, "max_tokens": 24, "seed": 4, **asked}
    whole = ask(served.url, PROMPT, **asked)
    told = events(served.url, PROMPT, stream_options={"include_usage": True}, **asked)
    *told, last = told
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert all("usage" in one and one["usage"] is None for one in told)
    assert texts(told) == {choice["index"]: choice["text"] for choice in whole["choices"]}
    for choice in whole["choices"]:
        its = [one["choices"][0] for one in told if one["choices"][0]["index"] == choice["index"]]
        assert [one["finish_reason"] for one in its] == [None] * (len(its) - 1) + [choice["finish_reason"]]
        if choice["logprobs"]:
            for name, values in choice["logprobs"].items():
                parts = [one["logprobs"][name] for one in its]
                assert values is None or [value for part in parts for value in part] == values
        if "token_ids" in choice:
            assert [id for one in its for id in one["token_ids"]] == choice["token_ids"]
    assert len({(one["id"], one["created"], one["model"], one["object"]) for one in [*told, last]}) == 1


def test_usage_is_told_only_where_it_is_asked_for(served: Served):
    for options in (None, {"include_usage": False}, {}):
        told = events(served.url, PROMPT, prompt=TEXT, stream_options=options)
        assert all("usage" not in one and one["choices"] for one in told)


def test_the_first_token_comes_before_the_second_is_computed(source: str):
    with serving(Settings(models={"tiny": source})) as served:
        engine = next(iter(served.server.models.loaded.values())).engine
        asked = {"model": "tiny", "prompt": TEXT, "stream": True, "max_tokens": 4000, **endless(served)}
        with httpx.stream("POST", served.url + PROMPT, json=asked, verify=False) as answer:
            lines = answer.iter_lines()
            first = json.loads(next(lines).removeprefix("data: "))
            assert first["choices"][0]["finish_reason"] is None
            (work,) = served.server.works
            assert work.streams[0].written < 2000
        assert until(lambda: engine.idle and not served.server.works)


def test_nothing_is_computed_for_a_client_that_has_gone(served: Served):
    engine = next(iter(served.server.models.loaded.values())).engine
    asked = {"model": "tiny", "prompt": TEXT, "max_tokens": 4000, "stream": True, **endless(served)}
    body = json.dumps(asked).encode()
    whole = body.replace(b"true", b"false")
    port = int(served.url.rsplit(":", 1)[1])
    for sent, reads in ((body, 0), (body, 1), (body, 4000), (whole, 0)):
        with socket.create_connection(("127.0.0.1", port)) as line:
            head = f"POST {PROMPT} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            line.sendall(head.encode() + f"Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
            assert until(lambda: not engine.idle)
            read = 0
            while read < reads:
                read += len(line.recv(reads))
        assert until(lambda: engine.idle and not served.server.works)
    assert served.server.queue.running == 0


def test_what_fails_before_the_first_event_has_a_status_and_later_is_an_event(
    source: str, monkeypatch: pytest.MonkeyPatch
):
    with serving(Settings(models={"tiny": source})) as served:
        loaded = next(iter(served.server.models.loaded.values()))
        step, left = loaded.engine.step, [0]

        def failing() -> bool:
            left[0] -= 1
            if left[0] == 0:
                for job, lane in tuple(loaded.engine._jobs.values()):
                    loaded.engine.end(job, lane, NonFinite("a logit is NaN"))
            return step()

        monkeypatch.setattr(loaded.engine, "step", failing)
        asked = {"prompt": TEXT, "max_tokens": 400, **endless(served)}
        left[0] = 12
        *told, last = events(served.url, PROMPT, **asked)
        assert told
        assert last == {
            "error": {"message": "a logit is NaN", "type": "server_error", "param": None, "code": "non_finite"}
        }
        messages = [{"role": "user", "content": "hello"}]
        left[0] = 12
        *told, last = events(served.url, CHAT, messages=messages, max_tokens=400, **endless(served))
        assert told[0]["choices"][0]["delta"]["role"] == "assistant"
        assert last["error"]["code"] == "non_finite"
        left[0] = 12
        assert refused(served.url, PROMPT, {"model": "tiny", **asked}, 500)["code"] == "non_finite"
    with serving(Settings(models={"tiny": source}, deadline=2)) as served:
        slow_down(served, monkeypatch, 0.005)
        *told, last = events(served.url, PROMPT, prompt=TEXT, max_tokens=4000, **endless(served))
        assert last["error"]["code"] == "deadline"
        assert last["error"]["type"] == "timeout_error"
    for path in (PROMPT, CHAT):
        body = {"model": "tiny", "stream": True, "prompt": TEXT, "messages": messages}
        del body["messages" if path == PROMPT else "prompt"]
        with serving(Settings(models={"tiny": source}, deadline=1e-6)) as served:
            assert refused(served.url, path, body, 504)["code"] == "deadline"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "events"])
def test_of_several_prompts_one_that_fails_ends_all(served: Served, monkeypatch: pytest.MonkeyPatch, stream: bool):
    engine = next(iter(served.server.models.loaded.values())).engine
    loop, step, left = served.server.bridge._loop, engine.step, [12]

    def failing() -> bool:
        left[0] -= 1
        if left[0] == 0:
            engine.end(*next(iter(engine._jobs.values())), NonFinite("a logit is NaN"))
        return step()

    def tasks() -> int:
        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), loop).result()

    assert until(lambda: engine.idle and not served.server.works)
    before = tasks()
    monkeypatch.setattr(engine, "step", failing)
    body = {"model": "tiny", "prompt": [TEXT, "hello", "fox"], "max_tokens": 3000, "stream": stream}
    body |= endless(served)
    answer = httpx.post(served.url + PROMPT, json=body, verify=False, timeout=60)
    assert answer.status_code == (200 if stream else 500)
    assert '"non_finite"' in answer.text
    assert until(lambda: engine.idle and not served.server.works)
    assert until(lambda: tasks() <= before)  # nobody waits for what will never come


def test_a_quiet_stream_says_that_it_still_comes(source: str, monkeypatch: pytest.MonkeyPatch):
    with serving(Settings(models={"tiny": source}, ping=0.05)) as served:
        slow_down(served, monkeypatch, 0.12)
        answer = httpx.post(
            served.url + PROMPT, json={"model": "tiny", "prompt": TEXT, "max_tokens": 4, "stream": True}
        )
        assert ": still here\n\n" in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")


def test_many_streams_at_once_are_each_whole(served: Served):
    async def one(client: httpx.AsyncClient, seed: int) -> str:
        asked = {"model": "tiny", "prompt": TEXT, "seed": seed % 4, "max_tokens": 30, "stream": True}
        return (await client.post(served.url + PROMPT, json=asked)).text

    async def all_() -> list[str]:
        async with httpx.AsyncClient(timeout=60) as client:
            return await asyncio.gather(*(one(client, seed) for seed in range(16)))

    told = asyncio.run(all_())
    alone = [ask(served.url, PROMPT, prompt=TEXT, seed=seed, max_tokens=30)["choices"][0]["text"] for seed in range(4)]
    for seed, text in enumerate(told):
        read = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
        assert texts(read) == {0: alone[seed % 4]}


def test_a_template_is_its_event_with_a_text():
    def chunk(text: str) -> dict[str, Any]:
        return {"id": "x", "choices": [{"text": text, "logprobs": None}]}

    made = Template(chunk(Template.gap))
    for text in ("", "a", '"\\\n\r\t\x00\x1f', "猫 \u2028 🐈", "</script>"):
        assert json.loads(made.fill(text)[6:]) == chunk(text)
        assert made.fill(text) == event(chunk(text))
        assert made.fill(text).count(b"\n") == 2
