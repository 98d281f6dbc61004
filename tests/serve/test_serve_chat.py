"""/v1/chat/completions: conversations, tools, forms; every parameter does what it says, or is refused by name."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import torch
from serving import TEMPLATE, serving, tiny_talker
from speaking import CHAT, ask, events, refused

from cutaway import Model, load_model
from cutaway.generation.turn import PLAIN_STOP, turn_ids
from cutaway.serve import Settings
from cutaway.serve.schema.foreign import FOREIGN

HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["a", "b"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
TOOLS = [WEATHER, NOW]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "tiny": tiny_talker(folder / "tiny", context=768),
        "bare": tiny_talker(folder / "bare", template=None),
        "toolless": tiny_talker(folder / "toolless", template=TEMPLATE.split("{% endif %}", 1)[1]),
    }


@pytest.fixture(scope="module")
def url(sources: dict[str, str]) -> Iterator[str]:
    with serving(Settings(models=sources, max_prompt=2000, max_n=4, max_tokens=900)) as served:
        yield served.url


@pytest.fixture(scope="module")
def model(sources: dict[str, str]) -> Model:
    return load_model(sources["tiny"])


def content(answer: Any) -> str:
    return answer["choices"][0]["message"]["content"]


def alone(model: Model, messages: list[dict[str, Any]], **options: Any) -> str:
    return model.generate(turn_ids(model, messages), **options).text  # pyright: ignore


def test_an_answer_continues_what_the_template_writes(url: str, model: Model):
    messages = [{"role": "system", "content": "how"}, *HELLO, {"role": "assistant", "content": "you?"}, *HELLO]
    answer = ask(url, CHAT, messages=messages, max_tokens=12, temperature=0)
    assert content(answer) == alone(model, messages, max_new_tokens=12, temperature=0)
    assert answer["usage"]["prompt_tokens"] == len(turn_ids(model, messages))
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": content(answer), "refusal": None}
    parts = [{**one, "content": [{"type": "text", "text": text} for text in one["content"]]} for one in messages]
    assert content(ask(url, CHAT, messages=parts, max_completion_tokens=12, temperature=0)) == content(answer)
    newer = [{**messages[0], "role": "developer", "name": "you"}, *messages[1:]]
    assert content(ask(url, CHAT, messages=newer, max_tokens=12, max_completion_tokens=12, temperature=0)) == content(
        answer
    )


def test_without_a_limit_an_answer_ends_with_the_context(url: str, model: Model):
    answer = ask(url, CHAT, messages=HELLO, seed=1, logit_bias={str(model.tokenizer.end_of_text): -100})
    assert answer["usage"]["total_tokens"] == 768
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": 2},
        {"top_p": 0.2},
        {"top_k": 2},
        {"min_p": 0.5},
        {"typical_p": 0.1},
        {"presence_penalty": 2},
        {"frequency_penalty": -2},
        {"repetition_penalty": 9.5},
        {"stop": ["never", "\ufffd"]},
        {"seed": -1},
        {"structured_outputs": {"choice": ["left", "right"]}},
        {"response_format": {"type": "json_object"}},
    ],
    ids=str,
)
def test_an_option_does_what_it_does_in_python(url: str, model: Model, option: dict[str, Any]):
    own = {"seed": 1, **option}
    own["seed"] %= 2**63
    if own.pop("structured_outputs", None):
        own["choices"] = ["left", "right"]
    if own.pop("response_format", None):
        own["schema"] = {"type": "object"}
    without = content(ask(url, CHAT, messages=HELLO, max_tokens=30, seed=1, response_format={"type": "text"}))
    found = content(ask(url, CHAT, **{"messages": HELLO, "max_tokens": 30, "seed": 1, **option}))
    assert found == alone(model, HELLO, max_new_tokens=30, **own) != without


def test_continuations_are_those_of_the_engine(url: str, model: Model):
    answer = ask(url, CHAT, messages=HELLO, n=3, seed=5, max_tokens=8)
    drawn = model.generate(turn_ids(model, HELLO), n=3, seed=5, max_new_tokens=8)
    assert [choice["message"]["content"] for choice in answer["choices"]] == [one.text for one in drawn]  # pyright: ignore
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]


def test_log_probabilities_are_the_models(url: str, model: Model):
    answer = ask(url, CHAT, messages=HELLO, logprobs=True, top_logprobs=3, max_tokens=6, seed=1, return_token_ids=True)
    (choice,) = answer["choices"]
    prompt, written = choice["prompt_token_ids"], choice["token_ids"]
    assert prompt == turn_ids(model, HELLO)
    rows = model.logits(torch.tensor([[*prompt, *written]]))[0, len(prompt) - 1 : -1].log_softmax(-1)
    told = choice["logprobs"]["content"]
    assert [one["logprob"] for one in told] == pytest.approx(
        rows.gather(1, torch.tensor(written)[:, None])[:, 0].tolist(), abs=1e-4
    )
    for one, id, row in zip(told, written, rows, strict=True):
        assert bytes(one["bytes"]) == model.tokenizer.token_bytes(id)
        best = row.topk(3)
        assert [other["logprob"] for other in one["top_logprobs"]] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert [bytes(other["bytes"]) for other in one["top_logprobs"]] == [
            model.tokenizer.token_bytes(int(i)) for i in best.indices
        ]
    bare = ask(url, CHAT, messages=HELLO, logprobs=True, max_tokens=6, seed=1)["choices"][0]
    assert [one["top_logprobs"] for one in bare["logprobs"]["content"]] == [[]] * 6


def test_what_was_called_and_what_it_gave_go_to_the_template(url: str, model: Model):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "a"}'}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
    ]
    answer = ask(url, CHAT, messages=messages, max_tokens=5, temperature=0, tools=TOOLS, tool_choice="none")
    assert content(answer) == alone(model, messages, max_new_tokens=5, temperature=0)
    call["function"]["arguments"] = "{"
    assert "JSON of an object" in refused(url, CHAT, {"model": "tiny", "messages": messages})["message"]


CALLS: list[tuple[dict[str, Any], set[str]]] = [
    ({"tool_choice": "required", "parallel_tool_calls": False}, {"weather", "now"}),
    ({"tool_choice": {"type": "function", "function": {"name": "now"}}}, {"now"}),
    (
        {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "weather"}}]},
            },
            "parallel_tool_calls": False,
        },
        {"weather"},
    ),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "events"])
@pytest.mark.parametrize(("choice", "names"), CALLS, ids=["required", "named", "allowed"])
def test_tools_are_called_as_their_schemas_say(url: str, choice: dict[str, Any], names: set[str], streamed: bool):
    called: set[str] = set()
    for seed in range(4):
        asked = {"messages": HELLO, "tools": TOOLS, "seed": seed, "max_tokens": 300, "temperature": 0.1, **choice}
        # few blanks: a model of random weights may write them without end
        asked["logit_bias"] = {"220": -100, "198": -100}
        message, finish = assembled(events(url, CHAT, **asked)) if streamed else whole(ask(url, CHAT, **asked))
        if finish == "length":
            continue
        assert finish == "tool_calls"
        assert message["content"] in (None, "")
        (call,) = message["tool_calls"]
        assert call["type"] == "function"
        assert call["id"].startswith("call_")
        called.add(call["function"]["name"])
        schema = WEATHER["function"]["parameters"] if call["function"]["name"] == "weather" else {"maxProperties": 0}
        jsonschema.validate(json.loads(call["function"]["arguments"]), schema)
    assert called
    assert called <= names


def test_a_whole_answer_and_its_events_say_the_same(url: str):
    for asked in ({}, {"tools": TOOLS}, {"logprobs": True, "top_logprobs": 2}, {"n": 2}, {"return_token_ids": True}):
        both = {"messages": HELLO, "seed": 2, "max_tokens": 20, **asked}
        answer, told = ask(url, CHAT, **both), events(url, CHAT, **both)
        for choice in answer["choices"]:
            its = [one for one in told if one["choices"][0]["index"] == choice["index"]]
            message, finish = assembled(its)
            assert (message["content"], finish) == (choice["message"]["content"], choice["finish_reason"])
            if choice["logprobs"]:
                parts = [one["choices"][0]["logprobs"] for one in its]
                assert [x for part in parts if part for x in part["content"]] == choice["logprobs"]["content"]
            if "token_ids" in choice:
                assert [id for one in its for id in one["choices"][0]["token_ids"]] == choice["token_ids"]
                assert its[0]["choices"][0]["prompt_token_ids"] == choice["prompt_token_ids"]
                assert {one["choices"][0]["prompt_token_ids"] is None for one in its[1:]} == {True}


def whole(answer: Any) -> tuple[Any, str]:
    (choice,) = answer["choices"]
    return choice["message"], choice["finish_reason"]


def assembled(told: list[Any]) -> tuple[dict[str, Any], str]:
    """The message of events: the role comes first, the end last."""
    message: dict[str, Any] = {"content": "", "tool_calls": []}
    pieces = [one["choices"][0] for one in told]
    assert pieces[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert pieces[-1]["delta"] == {}
    for piece in pieces:
        delta = piece["delta"]
        message["content"] += delta.get("content") or ""
        for call in delta.get("tool_calls", ()):
            assert call["index"] == len(message["tool_calls"])
            message["tool_calls"].append(call)
    assert [piece["finish_reason"] for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    return message, pieces[-1]["finish_reason"]


def test_models_without_a_template_are_refused_unless_the_plain_format_is_asked_for(url: str, sources: dict[str, str]):
    error = refused(url, CHAT, {"model": "bare", "messages": HELLO})
    assert error["param"] == "model"
    assert "bare has no chat template" in error["message"]
    assert "plain format" in error["message"]
    with serving(Settings(models=sources, chat_format="plain")) as served:
        bare = load_model(sources["bare"])
        messages = [{"role": "developer", "content": "how are"}, *HELLO]
        answer = ask(served.url, CHAT, model="bare", messages=messages, max_tokens=9, temperature=0, stop="q")
        ids = turn_ids(bare, messages, format="plain")
        assert ids == bare.tokenizer.encode("how are\n\nUser: hello\n\nAssistant:")
        assert content(answer) == bare.generate(ids, max_new_tokens=9, temperature=0, stop=["q", PLAIN_STOP]).text  # pyright: ignore
        error = refused(served.url, CHAT, {"model": "bare", "messages": HELLO, "tools": TOOLS})
        assert error["param"] == "tools"


def test_metadata_and_the_tier_are_told_back(url: str):
    answer = ask(url, CHAT, messages=HELLO, max_tokens=1, metadata={"a": "b"}, service_tier="auto", store=False)
    assert (answer["metadata"], answer["service_tier"]) == ({"a": "b"}, "default")
    harmless = {"modalities": ["text"], "reasoning_effort": "none", "verbosity": "medium", "user": "me"}
    harmless |= {"prompt_cache_key": "k", "prompt_cache_retention": "in_memory", "safety_identifier": "me"}
    assert content(ask(url, CHAT, messages=HELLO, max_tokens=9, seed=1, **harmless)) == content(
        ask(url, CHAT, messages=HELLO, max_tokens=9, seed=1)
    )


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


BAD = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "foo"}}}
RAIN = {"type": "function", "function": {"name": "rain"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SHAPE = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string"}}}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": "hello"}, "messages", "a list"),
    ({"messages": HELLO * 5000}, "messages", "at most 4096"),
    ({"messages": [{"role": "user", "content": "x" * 2001}]}, "messages", "2,000 characters"),
    ({"messages": [{"role": "user", "content": "x" * 800}]}, "messages", "this model's context is 768"),
    ({"messages": [{"role": "judge", "content": "x"}]}, "messages[0]", "as its role one of 'system'"),
    ({"messages": [{"content": "x"}]}, "messages[0]", "must have a role"),
    ({"messages": ["x"]}, "messages[0]", "an object"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "text or a list"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages", "lone surrogate"),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content", "models here read no image_url"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content", "no input_audio"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "is missing"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages[0].tool_calls", "no parameter"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "is missing"),
    ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages[0]", "as its role"),
    ({"max_tokens": 0}, "max_tokens", "at least 1"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "give one"),
    ({"max_tokens": 750}, "messages", "may be continued by 750"),
    ({"max_completion_tokens": 300, "n": 4}, "max_completion_tokens", "up to 1,200"),
    ({"n": 5}, "n", "at most 4"),
    ({"logprobs": 3}, "logprobs", "true or false"),
    ({"top_logprobs": 3}, "top_logprobs", "logprobs: true"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "at most 20"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "'function'"),
    ({"tools": [tool("a b")]}, "tools[0].function.name", "must match"),
    ({"tools": [tool("a", type="string")]}, "tools", "JSON Schema of an object"),
    ({"tools": [tool("a", properties={"a": {"type": "foo"}})]}, "tools", "is not one"),
    ({"tools": TOOLS * 65}, "tools", "at most 128"),
    ({"tool_choice": "auto"}, "tool_choice", "no tools are given"),
    ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice", "'none', 'auto' or 'required'"),
    ({"tools": TOOLS, "tool_choice": RAIN}, "tool_choice", "rain, but the tools are weather, now"),
    ({"tools": TOOLS, "response_format": SHAPE}, "response_format", "so do tools"),
    ({"tools": TOOLS, "structured_outputs": {"regex": "a"}}, "structured_outputs", "so do tools"),
    ({"response_format": SHAPE, "structured_outputs": {"regex": "a"}}, "structured_outputs", "so does response_format"),
    ({"response_format": {"type": "xml"}}, "response_format", "one of 'text', 'json_object', 'json_schema'"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "is missing"),
    ({"response_format": BAD}, "response_format", "is not one"),
    ({"model": "toolless", "tools": TOOLS}, "tools", "says nothing of tool calls"),
    ({"metadata": {str(i): "x" for i in range(17)}}, "metadata", "at most 16"),
    ({"metadata": {"x": 3}}, "metadata.x", "must be text"),
    ({"modalities": ["audio"]}, "modalities[0]", "'text'"),
    ({"store": True}, "store", "answers are not kept"),
    ({"service_tier": "flex"}, "service_tier", "there is one tier"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "how long to think"),
    ({"verbosity": "low"}, "verbosity", "how long the answer"),
    ({"prompt_cache_retention": "24h"}, "prompt_cache_retention", "not for a fixed time"),
    ({"chat_template": "{{ x }}"}, "chat_template", "none is taken from a request"),
    ({"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs", "none are taken from a request"),
    ({"echo": True}, "echo", "no parameter"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "param", "words"), WRONG, ids=[f"{param}-{i}" for i, (_, param, _) in enumerate(WRONG)]
)
def test_t13_what_is_out_of_range_is_refused_by_name(url: str, asked: dict[str, Any], param: str, words: str):
    error = refused(url, CHAT, json.dumps({"model": "tiny", "messages": HELLO, **asked}).encode())
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_what_other_servers_know_is_refused_by_name_with_what_to_do(url: str, name: str):
    error = refused(url, CHAT, {"model": "tiny", "messages": HELLO, name: 1})
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
