"""/v1/completions: every parameter does what it says, or is refused by name."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from serving import serving, tiny_talker
from speaking import PROMPT, ask, refused

from cutaway import Model, load_model
from cutaway.serve import Settings
from cutaway.serve.schema.foreign import FOREIGN, HARMLESS

TEXT = "The quick brown"
FULL = {
    "max_n": 4,
    "max_inputs": 8,
    "max_prompt": 1000,
    "max_tokens": 400,
    "max_stops": 3,
    "max_stop": 9,
    "max_bias": 5,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def url(source: str) -> Iterator[str]:
    with serving(Settings(models={"tiny": source}, **FULL)) as served:  # pyright: ignore[reportArgumentType]
        yield served.url


@pytest.fixture(scope="module")
def model(source: str) -> Model:
    return load_model(source)


def said(answer: Any) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def test_prompts_may_be_texts_or_ids(url: str, model: Model):
    texts = [TEXT, "hello,"]
    ids = [model.tokenizer.encode(text) for text in texts]
    alone = [ask(url, PROMPT, prompt=text, temperature=0, max_tokens=9) for text in texts]
    assert said(alone[0]) == [model.generate(TEXT, temperature=0, max_new_tokens=9).text]
    assert ask(url, PROMPT, prompt=ids[0], temperature=0, max_tokens=9)["choices"] == alone[0]["choices"]
    for prompt in (texts, ids):
        both = ask(url, PROMPT, prompt=prompt, temperature=0, max_tokens=9)
        assert said(both) == [said(one)[0] for one in alone]
        assert [choice["index"] for choice in both["choices"]] == [0, 1]
        assert both["usage"] == {"prompt_tokens": 21, "completion_tokens": 18, "total_tokens": 39}
    begun = model.generate("", temperature=0, max_new_tokens=16).text
    assert said(ask(url, PROMPT, temperature=0)) == said(ask(url, PROMPT, prompt="", temperature=0)) == [begun]


def test_continuations_are_those_of_the_engine_and_the_best_are_told(url: str, model: Model):
    drawn = model.generate(TEXT, max_new_tokens=6, seed=3, n=4)
    assert said(ask(url, PROMPT, prompt=TEXT, max_tokens=6, seed=3, n=4)) == [one.text for one in drawn]  # pyright: ignore
    best = sorted(drawn, key=lambda one: -sum(one.logprobs) / len(one.logprobs))[:2]  # pyright: ignore
    answer = ask(url, PROMPT, prompt=[TEXT, TEXT], max_tokens=6, seed=3, n=2, best_of=4)
    assert said(answer) == [one.text for one in best] * 2
    assert answer["usage"]["completion_tokens"] == 2 * 4 * 6


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": 2},
        {"top_p": 0.2},
        {"top_p": 0},
        {"top_k": 2},
        {"min_p": 0.5},
        {"typical_p": 0.1},
        {"presence_penalty": 2},
        {"frequency_penalty": -2},
        {"repetition_penalty": 9.5},
        {"logit_bias": {"64": 100}},
        {"stop": ["a", "e", "i"]},
        {"stop": "i"},
        {"seed": -1},
    ],
    ids=str,
)
def test_an_option_does_what_it_does_in_python(url: str, model: Model, option: dict[str, Any]):
    asked = {"prompt": TEXT, "max_tokens": 30, "seed": 1, **option}
    (choice,) = ask(url, PROMPT, **asked)["choices"]
    own = {
        key: {int(id): bias for id, bias in value.items()} if key == "logit_bias" else value
        for key, value in option.items()
    }
    own = {"seed": 1, **own}
    own |= {"seed": own["seed"] % 2**63} | ({"top_p": 1e-9} if own.get("top_p") == 0 else {})
    alone = model.generate(TEXT, max_new_tokens=30, **own)
    assert choice["text"] == alone.text
    assert choice["finish_reason"] == ("length" if alone.finish_reason == "length" else "stop")
    without = ask(url, PROMPT, prompt=TEXT, max_tokens=30, seed=1)["choices"][0]
    assert choice["text"] != without["text"]


def test_without_a_seed_answers_differ_and_none_is_a_parameter_left_out(url: str):
    assert len({said(ask(url, PROMPT, prompt=TEXT))[0] for _ in range(3)}) == 3
    null = dict.fromkeys(("top_p", "top_k", "n", "stop", "logprobs", "echo", "best_of", "user", "stream_options"))
    assert ask(url, PROMPT, prompt=TEXT, seed=1, **null)["choices"] == ask(url, PROMPT, prompt=TEXT, seed=1)["choices"]


@pytest.mark.parametrize("stop", ["text", "ids"])
@pytest.mark.parametrize(("count", "top"), [(0, 0), (0, 2), (1, 1), (5, 3)])
def test_log_probabilities_of_prompt_and_text_are_the_models(url: str, model: Model, count: int, top: int, stop: str):
    ids = model.tokenizer.encode(TEXT)
    prompt = TEXT if stop == "text" else ids
    answer = ask(
        url, PROMPT, prompt=prompt, echo=True, logprobs=top, max_tokens=count, temperature=0, return_token_ids=True
    )
    (choice,) = answer["choices"]
    told, written = choice["logprobs"], choice["token_ids"]
    assert len(written) == count
    assert choice["prompt_token_ids"] == ids
    assert choice["text"].startswith(TEXT)
    logprobs = model.logits(torch.tensor([[*ids, *written]]))[0].log_softmax(-1)
    wanted = logprobs[:-1].gather(1, torch.tensor([*ids, *written])[1:, None])[:, 0]
    assert told["token_logprobs"][0] is None
    assert told["token_logprobs"][1:] == pytest.approx(wanted.tolist(), abs=1e-4)
    if top == 0:
        assert told["top_logprobs"] is None
    else:
        assert told["top_logprobs"][0] is None
        for found, row, own in zip(told["top_logprobs"][1:], logprobs, told["token_logprobs"][1:], strict=False):
            assert sorted(found.values(), reverse=True)[:top] == pytest.approx(row.topk(top).values.tolist(), abs=1e-4)
            assert own in found.values()
            assert len(found) in (top, top + 1)
    spelled = [model.tokenizer.token_bytes(id).decode(errors="replace") for id in [*ids, *written]]
    assert all(
        token in (text, token if token.startswith("bytes:\\x") else "")
        for token, text in zip(told["tokens"], spelled, strict=True)
    )
    ends = [*told["text_offset"][1:], len(choice["text"])]
    assert "".join(choice["text"][a:b] for a, b in zip(told["text_offset"], ends, strict=True)) == choice["text"]
    assert told["text_offset"][: len(ids)] == list(range(len(ids)))  # a token a character
    assert answer["usage"] == {"prompt_tokens": len(ids), "completion_tokens": count, "total_tokens": len(ids) + count}
    assert choice["finish_reason"] == "length"


def test_without_echo_only_what_was_written_is_told(url: str, model: Model):
    (choice,) = ask(url, PROMPT, prompt=TEXT, logprobs=2, max_tokens=4, temperature=0)["choices"]
    alone = model.generate(TEXT, max_new_tokens=4, temperature=0, logprobs=2)
    assert choice["text"] == alone.text
    assert choice["logprobs"]["token_logprobs"] == alone.logprobs
    assert choice["logprobs"]["text_offset"][0] == 0
    assert said(ask(url, PROMPT, prompt=TEXT, max_tokens=0)) == [""]
    assert said(ask(url, PROMPT, prompt=TEXT, max_tokens=0, echo=True)) == [TEXT]


@pytest.mark.parametrize(
    ("form", "allowed"),
    [
        ({"choice": ["north", "south"]}, {"north", "south"}),
        ({"regex": "[ab]c"}, {"ac", "bc"}),
        ({"json": {"enum": ["x", 3]}}, {'"x"', "3"}),
        ({"json": '{"enum": ["x", 3]}'}, {'"x"', "3"}),
        ({"grammar": 'start: "u" | "v"'}, {"u", "v"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_text_is_held_to_its_form(url: str, form: dict[str, Any], allowed: set[str]):
    answer = ask(url, PROMPT, prompt=TEXT, structured_outputs=form, max_tokens=20, n=4, seed=1)
    assert set(said(answer)) <= allowed
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"stop"}


MANY = {str(id): 1 for id in range(6)}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": 3}, "prompt", "a list of token ids"),
    ({"prompt": []}, "prompt", "at least 1"),
    ({"prompt": [[]]}, "prompt[0]", "at least 1"),
    ({"prompt": [1, "a"]}, "prompt[1]", "a whole number"),
    ({"prompt": [1, -1]}, "prompt[1]", "at least 0, but -1"),
    ({"prompt": [2**40]}, "prompt[0]", "below 2147483648"),
    ({"prompt": [9999]}, "prompt", "token ids must lie in"),
    ({"prompt": [["a"]]}, "prompt[0][0]", "a whole number"),
    ({"prompt": ["a", None]}, "prompt[1]", "must be text"),
    ({"prompt": ["a"] * 9}, "prompt", "may hold 8 prompts"),
    ({"prompt": "a" * 1001}, "prompt", "1,000 characters"),
    ({"prompt": "a" * 256}, "prompt", "256 tokens, but this model's context is 256"),
    ({"prompt": "a" * 250, "max_tokens": 7}, "prompt", "250 tokens and may be continued by 7"),
    ({"prompt": "\ud800"}, "prompt", "lone surrogate"),
    ({"max_tokens": -1}, "max_tokens", "at least 0, but -1"),
    ({"max_tokens": 10**9}, "max_tokens", "at most 131072"),
    ({"max_tokens": 3.0}, "max_tokens", "a whole number, but 3"),
    ({"max_tokens": "3"}, "max_tokens", "a whole number, but text"),
    ({"max_tokens": True}, "max_tokens", "a whole number, but true"),
    ({"max_tokens": 101, "n": 4}, "max_tokens", "up to 404 tokens"),
    ({"temperature": -0.1}, "temperature", "at least 0, but -0.1"),
    ({"temperature": 2.1}, "temperature", "at most 2, but 2.1"),
    ({"top_p": 1.1}, "top_p", "at most 1"),
    ({"n": 0}, "n", "at least 1"),
    ({"n": 5}, "n", "at most 4 here"),
    ({"n": 2**70}, "n", "at most 1024"),
    ({"best_of": 5}, "best_of", "1 … 4"),
    ({"n": 3, "best_of": 2}, "best_of", "3 … 4"),
    ({"best_of": 2, "stream": True}, "best_of", "in a stream"),
    ({"stop": ["a"] * 4}, "stop", "at most 3 texts"),
    ({"stop": "a" * 10}, "stop", "at most 9 characters"),
    ({"stop": ["a", ""]}, "stop", "an empty text"),
    ({"stop": 3}, "stop", "text or a list, but 3"),
    ({"stop": [3]}, "stop[0]", "must be text"),
    ({"seed": 2**63}, "seed", "below 9.22"),
    ({"seed": 1.5}, "seed", "a whole number, but 1.5"),
    ({"logit_bias": MANY}, "logit_bias", "at most 5 tokens"),
    ({"logit_bias": {"foo": 1}}, "logit_bias.foo", "must match"),
    ({"logit_bias": {"-1": 1}}, "logit_bias.-1", "must match"),
    ({"logit_bias": {"9999": 1}}, "logit_bias", "not 9999"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1", "at most 100"),
    ({"logit_bias": [1]}, "logit_bias", "an object"),
    ({"logprobs": 21}, "logprobs", "at most 20"),
    ({"logprobs": True}, "logprobs", "a whole number"),
    ({"presence_penalty": 3}, "presence_penalty", "at most 2"),
    ({"frequency_penalty": -3}, "frequency_penalty", "at least -2"),
    ({"top_k": -2}, "top_k", "at least -1"),
    ({"min_p": 2}, "min_p", "at most 1"),
    ({"typical_p": 0}, "typical_p", "above 1e-06"),
    ({"repetition_penalty": 0}, "repetition_penalty", "above"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
    (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "stream_options.include_obfuscation",
        "must be false",
    ),
    ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "no parameter"),
    ({"structured_outputs": {}}, "structured_outputs", "exactly one"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "exactly one"),
    ({"structured_outputs": {"regex": "["}}, "structured_outputs", "regular expression is not one"),
    ({"structured_outputs": {"grammar": "?"}}, "structured_outputs", "grammar is not one"),
    ({"structured_outputs": {"json": {"type": "foo"}}}, "structured_outputs", "JSON Schema is not one"),
    ({"structured_outputs": {"json": {"enum": [{"$ref": "#/x"}] * 300}}}, "structured_outputs", "300 references"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "at least 1"),
    ({"user": "x" * 513}, "user", "at most 512"),
    ({"user": 3}, "user", "must be text"),
    ({"model": 3}, "model", "must be text"),
    ({"temprature": 1}, "temprature", "did you mean temperature"),
    ({"Temperature\n": 1}, "Temperature?", "no parameter"),
]


@pytest.mark.parametrize(
    ("asked", "param", "words"), WRONG, ids=[f"{param}-{i}" for i, (_, param, _) in enumerate(WRONG)]
)
def test_t13_what_is_out_of_range_is_refused_by_name(url: str, asked: dict[str, Any], param: str, words: str):
    body = {"model": "tiny", "prompt": TEXT, **asked}
    error = refused(url, PROMPT, json_of(body))
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_what_other_servers_know_is_refused_by_name_with_what_to_do(url: str, name: str):
    error = refused(url, PROMPT, {"model": "tiny", "prompt": TEXT, name: 1})
    assert error["param"] == name
    assert error["code"] == "unsupported_parameter"
    assert FOREIGN[name] in error["message"]
    assert name not in HARMLESS


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"model": "tiny", "prompt": "a", "prompt": "b"}', "the same name twice"),
        (b'{"model": "tiny", "prompt": "a", "logit_bias": {"1": 1, "1": 2}}', "the same name twice"),
        (b'{"model": "tiny", "prompt": "a", "temperature": NaN}', "no NaN"),
        (b'{"model": "tiny", "prompt": "a", "temperature": -Infinity}', "no -Infinity"),
        (b'{"model": "tiny", "prompt": "a", "temperature": 1e999}', "finite"),
        (b'{"model": "tiny", "prompt": "a", "n": 1' + b"0" * 5000 + b"}", "too long"),
        (b'{"model": "tiny", "prompt": "\xff"}', "not UTF-8"),
        (b'{"model": "tiny", "prompt": "a"', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"", "body"),
        (b"[]", "the body must be an object"),
        (b"null", "body"),
        (b'"x"', "the body must be an object"),
        (b'{"model": "tiny", "prompt": ' + b"[" * 40_000 + b"]" * 40_000 + b"}", "too deeply"),
        (b'{"model": "tiny", "prompt": [' + b"[1]," * 100_000 + b"[1]]}", "100,003 lists and objects"),
        (b"{" + b",".join(b'"%d": 1' % i for i in range(60_000)) + b"}", "60,000 members"),
        (b'{"model": "tiny", "prompt": "' + b":[" * 60_000 + b'", "prompt": ""}', "the same name twice"),
        (b'{"model": "tiny", "user": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}", "must be text"),
        (
            b'{"model": "tiny", "prompt": "a", "structured_outputs": {"json": '
            + b'{"not":' * 300
            + b"{}"
            + b"}" * 301
            + b"}",
            "64 levels",
        ),
    ],
    ids=lambda value: value[-30:] if isinstance(value, bytes) else None,
)
def test_t13_a_body_that_two_readers_may_read_differently_is_refused(url: str, body: bytes, words: str):
    assert words in refused(url, PROMPT, body)["message"]


def test_what_is_refused_gives_its_place_back(source: str):
    with serving(Settings(models={"tiny": source}, max_batch=1, queue=0)) as served:
        for asked in ({"prompt": "a" * 256}, {"logit_bias": {"9999": 1}}, {"structured_outputs": {"regex": "["}}):
            for stream in (False, True):
                refused(served.url, PROMPT, {"model": "tiny", "prompt": TEXT, "stream": stream, **asked})
        assert said(ask(served.url, PROMPT, prompt=TEXT, max_tokens=2))
        assert not served.server.works


def json_of(body: Any) -> bytes:
    """As JSON, a lone surrogate as its escape."""
    return json.dumps(body).encode()
