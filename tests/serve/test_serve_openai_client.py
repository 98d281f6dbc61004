"""OpenAI's own client against a running server: every endpoint and option that part of it speaks."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from openai import (
    APIError,
    AsyncOpenAI,
    BadRequestError,
    LengthFinishReasonError,
    NotFoundError,
    OpenAI,
)
from pydantic import BaseModel
from serving import serving, tiny_talker

from cutaway import Model, load_model
from cutaway.serve import Settings

TEXT = "The quick brown"
HELLO: Any = [{"role": "user", "content": "hello"}]
NOTHING: Any = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS: Any = [{"type": "function", "function": {"name": "now", "parameters": NOTHING, "strict": True}}]
NO_BLANKS = {"220": -100, "198": -100}


class Place(BaseModel):
    """What an answer may be parsed into."""

    city: Literal["a", "b"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("models") / "tiny", context=768)


@pytest.fixture(scope="module")
def url(source: str) -> Iterator[str]:
    with serving(Settings(models={"tiny": source, "twin": source})) as served:
        yield f"{served.url}/v1"


@pytest.fixture(scope="module")
def model(source: str) -> Model:
    return load_model(source)


@pytest.fixture(params=[False, True], ids=["loose", "strict"])
def client(request: pytest.FixtureRequest, url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key="none", max_retries=0, _strict_response_validation=request.param) as client:
        yield client


@pytest.fixture
def loose(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def test_models_are_listed_and_found(client: OpenAI):
    assert [one.id for one in client.models.list()] == ["tiny", "twin"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(NotFoundError):
        client.models.retrieve("tinny")


def test_completions(client: OpenAI, model: Model):
    shared: Any = {
        "temperature": 0.7,
        "top_p": 0.9,
        "stop": ["zzz"],
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
    }
    extra = {"top_k": 40, "min_p": 0.01, "typical_p": 0.99, "repetition_penalty": 1.1}
    asked: Any = {"model": "tiny", "prompt": TEXT, "n": 2, "best_of": 3, "seed": -5, "max_tokens": 9, "logprobs": 2}
    answer = client.completions.create(
        **shared, **asked, user="me", logit_bias={"3": -5}, extra_body={**extra, "return_token_ids": True}
    )
    own: Any = {"n": 3, "seed": 2**63 - 5, "max_new_tokens": 9, "logit_bias": {3: -5}}
    drawn: Any = model.generate(TEXT, **shared, **extra, **own)
    drawn.sort(key=lambda one: -sum(one.logprobs) / len(one.logprobs))
    assert [choice.text for choice in answer.choices] == [one.text for one in drawn[:2]]
    for choice, one in zip(answer.choices, drawn, strict=False):
        assert choice.logprobs is not None
        assert choice.logprobs.token_logprobs == one.logprobs
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 27


# What follows has nulls where the API has them and the client's types, read strictly, do not: the log-probability of a
# prompt's first token, and the reason to finish of a piece that is not the last.


def test_completions_with_their_prompts(loose: OpenAI):
    answer = loose.completions.create(model="tiny", prompt=TEXT, echo=True, logprobs=1, max_tokens=1)
    (choice,) = answer.choices
    assert choice.text.startswith(TEXT)
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    assert len(choice.logprobs.token_logprobs) == len(TEXT) + 1


def test_completions_as_a_stream(loose: OpenAI):
    asked: Any = {"model": "tiny", "prompt": [TEXT, "hello"], "max_tokens": 20, "seed": 1}
    whole = loose.completions.create(**asked)
    texts = ["", ""]
    usage = None
    for chunk in loose.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]
    assert usage == whole.usage


def test_a_chat(client: OpenAI):
    asked: Any = {
        "temperature": 1.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": "zzz",
        "presence_penalty": 1,
        "frequency_penalty": 1,
    }
    asked |= {
        "logit_bias": {"3": 5},
        "logprobs": True,
        "top_logprobs": 2,
        "metadata": {"a": "b"},
        "service_tier": "auto",
    }
    asked |= {"store": False, "user": "me", "response_format": {"type": "text"}, "parallel_tool_calls": True}
    messages: Any = [{"role": "developer", "content": "how"}, *HELLO]
    answer = client.chat.completions.create(
        model="tiny", messages=messages, max_completion_tokens=9, n=2, extra_body={"top_k": 50}, **asked
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.message.role == "assistant"
        assert choice.message.refusal is None
        assert choice.message.tool_calls is None
        assert choice.finish_reason == "length"
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert [len(one.top_logprobs) for one in choice.logprobs.content] == [2] * 9
        spelled = b"".join(bytes(one.bytes or []) for one in choice.logprobs.content)
        assert spelled.decode(errors="replace") == choice.message.content
    assert answer.metadata == {"a": "b"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 18


def test_a_chat_as_a_stream_through_the_helper(client: OpenAI):
    asked: Any = {"model": "tiny", "messages": HELLO, "seed": 2, "logprobs": True}
    asked["extra_body"] = {"structured_outputs": {"regex": "[abc]{20}"}}
    whole = client.chat.completions.create(**asked)
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].logprobs == whole.choices[0].logprobs
    assert final.usage == whole.usage


def test_answers_parsed_into_a_schema(client: OpenAI):
    asked: Any = {
        "model": "tiny",
        "messages": HELLO,
        "response_format": Place,
        "logit_bias": NO_BLANKS,
        "max_tokens": 400,
    }
    cities = set[str]()
    for seed in range(5):
        try:
            parsed = client.chat.completions.parse(**asked, seed=seed, temperature=0.3).choices[0].message.parsed
        except LengthFinishReasonError:  # a model of random weights may write blanks without end
            continue
        assert parsed is not None
        cities.add(parsed.city)
    assert cities


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "now"}}], ids=str)
def test_tools(client: OpenAI, choice: Any):
    asked: Any = {
        "model": "tiny",
        "messages": HELLO,
        "tools": TOOLS,
        "tool_choice": choice,
        "parallel_tool_calls": False,
    }
    asked |= {"logit_bias": NO_BLANKS, "max_tokens": 300, "temperature": 0.1}
    called = 0
    for seed in range(4):
        answer = client.chat.completions.create(**asked, seed=seed).choices[0]
        with client.chat.completions.stream(**asked, seed=seed) as stream:
            streamed = stream.get_final_completion().choices[0] if answer.finish_reason != "length" else None
        if streamed is None:
            continue
        called += 1
        for one in (answer, streamed):
            assert one.finish_reason == "tool_calls"
            assert one.message.tool_calls is not None
            (call,) = one.message.tool_calls
            assert call.type == "function"
            assert (call.function.name, json.loads(call.function.arguments)) == ("now", {})
            back: Any = [
                *HELLO,
                one.message.model_dump(exclude_none=True, exclude={"parsed"}),
                {"role": "tool", "tool_call_id": call.id, "content": "9"},
            ]
            for told in back[1].get("tool_calls", ()):
                told["function"].pop("parsed_arguments", None)
                told.pop("index", None)
            assert client.chat.completions.create(model="tiny", messages=back, max_tokens=2).choices[0].message.content
    assert called


def test_errors_are_the_clients(client: OpenAI):
    with pytest.raises(NotFoundError) as missing:
        client.completions.create(model="tinny", prompt=TEXT)
    assert missing.value.code == "model_not_found"
    with pytest.raises(BadRequestError) as wrong:
        client.chat.completions.create(model="tiny", messages=HELLO, temperature=3)
    assert (wrong.value.param, wrong.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(BadRequestError) as long:
        client.completions.create(model="tiny", prompt="a" * 800)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(BadRequestError) as stored:
        client.chat.completions.create(model="tiny", messages=HELLO, store=True)
    assert stored.value.param == "store"


def test_an_error_in_a_stream_is_the_clients_too(source: str):
    with (
        serving(Settings(models={"tiny": source}, deadline=0.5)) as served,
        OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client,
    ):
        stream = client.completions.create(model="tiny", prompt=["a"] * 32, n=4, max_tokens=700, stream=True)
        with pytest.raises(APIError) as late:
            list(stream)
    assert late.value.code == "deadline"


def test_the_asynchronous_client(url: str):
    async def ask() -> tuple[list[str], list[str]]:
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def whole(seed: int) -> str:
                made = await client.chat.completions.create(model="tiny", messages=HELLO, seed=seed, max_tokens=9)
                return made.choices[0].message.content or ""

            async def streamed(seed: int) -> str:
                told = await client.chat.completions.create(
                    model="tiny", messages=HELLO, seed=seed, max_tokens=9, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in told])

            return (
                await asyncio.gather(*map(whole, range(6))),
                await asyncio.gather(*map(streamed, range(6))),
            )

    wholes, streams = asyncio.run(ask())
    assert wholes == streams
    assert len(set(wholes)) == 6
