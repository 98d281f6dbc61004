"""The same request gives the same tokens and log-probabilities alone, under load and with a warm cache: bit for bit."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import serving, smollm2, tiny_talker
from speaking import CHAT, PROMPT

from cutaway.generation.native.library import available
from cutaway.serve import Settings
from cutaway.serve.keys import add_key

LONG = "The quick brown fox jumps over the lazy dog. " * 4
TALK = [{"role": "system", "content": "how are you?"}, {"role": "user", "content": "hello, the quick brown fox"}]
TOOL = {
    "type": "function",
    "function": {"name": "now", "parameters": {"type": "object", "additionalProperties": False}},
}


def requests(first: str, second: str, tools: bool) -> list[tuple[str, dict[str, Any]]]:
    """32 requests of all kinds, of two models."""
    made: list[tuple[str, dict[str, Any]]] = []
    for number, model in enumerate((first, second, first, first)):
        seed, length = 100 * number, 12 + 5 * number
        prompt = LONG[7 * number :] if number % 2 else LONG[: 30 + number]
        common = {"model": model, "max_tokens": length}
        made += [
            (PROMPT, {**common, "prompt": prompt, "temperature": 0}),
            (
                PROMPT,
                {**common, "prompt": prompt, "temperature": 1, "seed": seed, "logprobs": 5, "return_token_ids": True},
            ),
            (PROMPT, {**common, "prompt": [prompt, LONG, "hello"], "n": 2, "seed": seed, "top_p": 0.9, "logprobs": 0}),
            (PROMPT, {**common, "prompt": LONG, "echo": True, "logprobs": 2, "max_tokens": number % 3, "seed": seed}),
            (
                PROMPT,
                {**common, "prompt": prompt, "stop": ["e", "qu"], "n": 3, "seed": seed, "repetition_penalty": 1.2},
            ),
            (
                PROMPT,
                {**common, "prompt": "x", "structured_outputs": {"regex": "[a-f ]{9,}"}, "seed": seed, "logprobs": 1},
            ),
            (CHAT, {**common, "messages": TALK[: 1 + number % 2], "seed": seed, "logprobs": True, "top_logprobs": 3}),
            (CHAT, {**common, "messages": TALK, "seed": seed, "response_format": {"type": "json_object"}, "top_k": 40}),
        ]
    if tools:
        made[-1] = (CHAT, {**made[-1][1], "response_format": None, "tools": [TOOL], "tool_choice": "required"})
    return made


def content(answer: Any) -> Any:
    """An answer without what is of one request alone: its ids and its time."""
    if isinstance(answer, dict):
        return {key: content(value) for key, value in answer.items() if key not in ("id", "created")}
    return [content(one) for one in answer] if isinstance(answer, list) else answer


async def ask(client: httpx.AsyncClient, path: str, asked: dict[str, Any], key: str, stream: bool) -> bytes:
    """An answer's content as JSON; a stream's is the texts of its events."""
    headers = {"authorization": f"Bearer {key}"}
    answer = await client.post(path, json={**asked, **({"stream": True} if stream else {})}, headers=headers)
    assert answer.status_code == 200, answer.text
    if not stream:
        return json.dumps(content(answer.json())).encode()
    *told, done, _ = answer.text.split("\n\n")
    assert done == "data: [DONE]"
    # which tokens share an event depends on time, what they are does not
    texts: dict[int, str] = {}
    for one in told:
        for choice in json.loads(one.removeprefix("data: "))["choices"]:
            text = choice["text"] if path == PROMPT else choice["delta"].get("content") or ""
            texts[choice["index"]] = texts.get(choice["index"], "") + text
    return json.dumps(texts, sort_keys=True).encode()  # which of several continuations tells first may differ


async def compare(url: str, asked: list[tuple[str, dict[str, Any]]], keys: list[str]) -> None:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, verify=False, limits=limits) as client:

        async def one(number: int, stream: bool = False) -> bytes:
            path, body = asked[number]
            return await ask(client, path, body, keys[number % len(keys)], stream)

        some = range(0, len(asked), 4)
        alone = [await one(number) for number in range(len(asked))]
        streamed = [await one(number, stream=True) for number in some]
        assert len(set(alone)) > len(asked) * 0.8  # they are not all the same
        for time in range(2):  # the second time every prompt was seen together, too
            order = list(range(len(asked)))
            random.Random(time).shuffle(order)
            together = await asyncio.gather(*map(one, order), *(one(number, stream=True) for number in some))
            for number, answer in zip(order, together, strict=False):
                assert answer == alone[number], f"request {number}, {asked[number]}"
            assert together[len(order) :] == streamed


def keys(folder: Path) -> tuple[Path, list[str]]:
    """A file of two keys, who share no cache."""
    path = folder / "keys.json"
    return path, [add_key(path, name) for name in ("one", "other")]


@pytest.mark.parametrize("backend", [pytest.param("torch", marks=pytest.mark.slow), "native"])
def test_a_float_model_says_the_same_alone_under_load_and_warm(tmp_path: Path, backend: str):
    assert available()[0]
    models = {name: tiny_talker(tmp_path / name, context=512, layers=layers) for name, layers in (("a", 2), ("b", 1))}
    path, secrets = keys(tmp_path)
    with serving(Settings(models=models, engine={"backend": backend}, queue=400, keys=path)) as served:
        asyncio.run(compare(served.url, requests("a", "b", tools=True), secrets))


def test_smollm2_says_the_same_alone_under_load_and_warm(tmp_path: Path):
    path, secrets = keys(tmp_path)
    with serving(Settings(models={"smollm2": smollm2()}, queue=400, keys=path)) as served:
        assert next(iter(served.server.models.loaded.values())).engine.backend.name.startswith("native")
        asyncio.run(compare(served.url, requests("smollm2", "smollm2", tools=False), secrets))
