"""T7, T13–T16, T19: what is said in a request to do harm. Each ends with an error that tells nothing, and the next
request works."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from serving import Served, serving, tiny_talker

from cutaway.generation.tools import MARKS, STYLES, CallReader, Style, read_calls
from cutaway.models import load_model
from cutaway.serve import Settings
from cutaway.serve.body import parse
from cutaway.serve.doors import HOST, ORIGIN
from cutaway.serve.errors import ApiError
from cutaway.serve.guard import FORM, JSON, NAMES, UPLOADS

INSIDE = re.compile(
    r"0x[0-9a-f]{4}|/root|/tmp|/home|/work|/usr|Traceback|cutaway/|site-packages|\.py\b|<[a-z_.]+ object|<class|"
    r"pydantic|starlette|fastapi|uvicorn|RuntimeError|KeyError|TypeError|ValueError|torch|llguidance"
)
HUGE = [
    "1e999",
    "-1e999",
    "1" * 400,
    "-" + "9" * 400,
    "1" * 5000,
    "NaN",
    "Infinity",
    "-Infinity",
    "1e-400",
    "0.1e1",
    "1.5",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "4294967296",
    "2147483648",
    "-1",
    "-2147483649",
    "true",
    '"1"',
    "[]",
    "{}",
    "null",
    '"\\u0000"',
    '"\\ud800"',
    "[[[[]]]]",
]
NUMBERS = [
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "n",
    "best_of",
    "seed",
    "logprobs",
    "top_logprobs",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
]
CLIENT = httpx.Client(timeout=300)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    source = tiny_talker(tmp_path_factory.mktemp("models") / "tiny")
    with serving(Settings(models={"tiny": source})) as made:
        yield made
    CLIENT.close()


def send(served: Served, path: str, body: str | bytes | dict[str, Any]) -> httpx.Response:
    content = json.dumps(body) if isinstance(body, dict) else body
    return CLIENT.post(served.url + path, content=content, headers={"content-type": "application/json"})


def refused(said: httpx.Response, *statuses: int) -> None:
    """It is an error of ours that tells nothing of the inside."""
    assert said.status_code in (statuses or (400,)), said.text
    error = said.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert not INSIDE.search(said.text), said.text
    assert error["message"].isprintable()
    assert len(said.text) < 4000


def answers(served: Served) -> None:
    said = send(served, "/v1/completions", {"model": "tiny", "prompt": "The", "max_tokens": 2, "temperature": 0})
    assert said.status_code == 200, said.text


# T7: names


@pytest.mark.parametrize(
    "name",
    [
        "../tiny",
        "/etc/passwd",
        "tiny/../tiny",
        "..",
        ".",
        "~",
        "tiny\0",
        "tiny\n",
        "C:\\tiny",
        "file:///etc/passwd",
        "tiny/",
        "//tiny",
        "%2e%2e%2ftiny",
        "tiny;id",
        "$(id)",
        "`id`",
        "HuggingFaceTB/SmolLM2-135M",
        "http://127.0.0.1/x",
        "tiny" * 9999,
        "\ud800",
        "тiny",
        "tiny\u200b",
        "__class__",
        "{0.__class__}",
        "%s%n",
        "\x1b[2J",
        "' OR 1=1 --",
        "${jndi:ldap://x}",
    ],
)
def test_t7_a_request_names_no_path(name: str, served: Served) -> None:
    """A name is looked up among those of the command line; nothing is opened by it."""
    for path, more in (
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/embeddings", {"input": "x"}),
        ("/tokenize", {"prompt": "x"}),
    ):
        refused(send(served, path, {"model": name, **more}), 400, 404)
    if name.strip("."):  # the client would take these out of the address
        refused(CLIENT.get(f"{served.url}/v1/models/{quote(name[:200], safe='', errors='replace')}"), 404)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/%2e%2e/%2e%2e/etc/passwd",
        "/..;/etc/passwd",
        "/static/../../etc/passwd",
        "/v1/models/%00",
        "/v1/models/%ff",
        "/%0d%0aSet-Cookie:x",
    ],
)
def test_t7_an_address_leads_to_no_file(path: str, served: Served) -> None:
    said = httpx.get(served.url + path)
    refused(said, 404, 400)
    assert "set-cookie" not in said.headers


# T13: numbers, and how much of anything


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_t13_huge_negative_and_strange_numbers(path: str, served: Served) -> None:
    start = '{"model": "tiny", '
    start += '"prompt": "x"' if path == "/v1/completions" else '"messages": [{"role": "user", "content": "x"}]'
    for name in NUMBERS:
        for value in HUGE:
            more = "" if name in ("max_tokens", "max_completion_tokens") else ', "max_tokens": 1'
            said = send(served, path, f'{start}, "{name}": {value}{more}}}')
            if said.status_code != 200:
                refused(said)
            elif (name, value) != ("logprobs", "true"):  # it was one that this field may have
                assert len(value) < 25
                assert value not in ("NaN", "Infinity", "[]", "{}", '"1"', "true"), (name, value)
    answers(served)


@pytest.mark.parametrize(
    "changes",
    [
        {"stop": ["x"] * 17},
        {"stop": "x" * 257},
        {"stop": [""]},
        {"stop": [[]]},
        {"logit_bias": {str(n): 1 for n in range(1025)}},
        {"logit_bias": {"-1": 1}},
        {"logit_bias": {"1" * 50: 1}},
        {"logit_bias": {"1": 1e999}},
        {"logit_bias": {"1": 101}},
        {"n": 17},
        {"n": 0},
        {"best_of": 17},
        {"max_tokens": 10**9},
        {"prompt": "x" * 2_000_001},
        {"prompt": ["x"] * 2049},
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": [-1]},
        {"prompt": [10**9]},
        {"prompt": [1] * 100_000},
        {"prompt": [["x"]]},
        {"prompt": [1, "x"]},
        {"prompt": {}},
        {"logprobs": 21},
        {"user": "x" * 10_000},
        {"user": {"a": 1}},
        {"suffix": "x" * 100},
        {"n": 16, "prompt": ["x"] * 2000, "max_tokens": 100},
        {"prompt": "\ud800"},
    ],
)
def test_t13_everything_has_a_limit(changes: dict[str, Any], served: Served) -> None:
    refused(send(served, "/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 1, **changes}), 400, 429)
    answers(served)


def test_t13_an_empty_prompt_is_a_prompt(served: Served) -> None:
    """CVE-2024-8768."""
    said = send(served, "/v1/completions", {"model": "tiny", "prompt": "", "max_tokens": 1})
    assert said.status_code in (200, 400)
    answers(served)


# T14: what cannot be read


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"model": "tiny", "prompt": ' + b"9" * 5000 + b"}",
        b'{"model": "tiny", "model": "tiny", "prompt": "x"}',
        b'{"model": "tiny", "prompt": "\\ud800"}',
        b"NaN",
        b'{"__proto__": {}, "model": "tiny", "prompt": "x"}',
        b'{"model": "tiny", "prompt": "x"} {}',
        b"\x00" * 100,
        b'{"model": "tiny", "prompt": "x", "\\u001b[2J\\n": 1}',
        b'{"model": "tiny", "prompt": "x", "' + b"k" * 100_000 + b'": 1}',
        b"<?xml version='1.0'?><x/>",
        b"model=tiny&prompt=x",
        b"!!python/object/apply:os.system ['id']",
        b"\x80\x04cos\nsystem\n",
    ],
)
def test_t14_what_cannot_be_read_is_told_without_the_inside(body: bytes, served: Served) -> None:
    for path in (
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/classify",
        "/tokenize",
    ):
        refused(send(served, path, body))
    answers(served)


def test_t14_errors_of_our_own_tell_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks inside: the caller is told that something did."""

    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError(f"{object()} at /root/secret.py line 3: {arguments}")

    monkeypatch.setattr(served.server, "begin", broken)
    for path, body in (
        ("/v1/completions", {"model": "tiny", "prompt": "x"}),
        ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}),
    ):
        refused(send(served, path, body), 500)
    monkeypatch.undo()
    answers(served)


# T15, T16: forms and templates


BOMBS: list[dict[str, Any]] = [
    {"json": {"$ref": "#"}},
    {"json": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}},
    {"json": {"type": "array", "minItems": 10**9, "items": {"type": "integer"}}},
    {"json": {"type": "string", "pattern": "(a+)+$" * 200}},
    {"json": {"type": "string", "minLength": 10**12}},
    {"json": {"allOf": [{"anyOf": [{"type": "string"}] * 200}] * 200}},
    {"json": "{"},
    {"json": {"type": "evil"}},
    {"regex": "(" * 5000},
    {"regex": "a{1,1000}{1,1000}{1,1000}"},
    {"regex": "(?=x)x"},
    {"regex": "[^" * 1000},
    {"choice": ["x"] * 10_001},
    {"choice": [""]},
    {"grammar": "start: start"},
    {"grammar": "start: " + "a " * 5000},
    {"grammar": 'start: "a"{1000000}'},
    {"grammar": "%import common.WORD\nstart: WORD" * 3},
    {"json": {}, "regex": "x"},
    {},
]


def deep(levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        made = {"type": "object", "properties": {"a": made}, "required": ["a"]}
    return made


@pytest.mark.parametrize("form", [*BOMBS, {"json": deep(200)}])
def test_t15_bombs_of_schemas_and_expressions_are_errors_and_the_next_request_works(
    form: dict[str, Any], served: Served
) -> None:
    began = time.monotonic()
    said = send(
        served, "/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 2, "structured_outputs": form}
    )
    if said.status_code != 200:
        refused(said)
    answers(served)
    assert time.monotonic() - began < 60  # compiled within its limits, beside the loop


@pytest.mark.parametrize(
    "content",
    [
        "{{ 7 * 7 }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{%",
        "}}",
        "{#",
        "{{ messages }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_t16_a_template_in_a_message_is_text(content: str, served: Served) -> None:
    said = send(
        served,
        "/tokenize",
        {"model": "tiny", "messages": [{"role": "user", "content": content}], "return_token_strs": True},
    )
    if said.status_code == 200:
        assert "49" not in said.json()["token_strs"]
    else:
        refused(said)
    for name in ("chat_template", "chat_template_kwargs", "template", "jinja"):
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], name: content}
        refused(send(served, "/v1/chat/completions", body))
    answers(served)


def test_t16_a_template_that_never_ends_is_an_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A stranger's model with a bomb in the place of its template."""
    folder = tmp_path_factory.mktemp("models")
    bombs = {
        "time": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "length": "{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
        "power": "{{ 9 ** (9 ** 9) }}",
        "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    }
    sources = {name: tiny_talker(folder / name, template=template) for name, template in bombs.items()}
    sources["tiny"] = tiny_talker(folder / "tiny")
    with serving(Settings(models=sources)) as served:
        for name in bombs:
            said = send(served, "/v1/chat/completions", {"model": name, "messages": [{"role": "user", "content": "x"}]})
            if name == "escape" and said.status_code == 200:
                assert said.json()["usage"]["prompt_tokens"] < 30  # it found nothing there
            else:
                refused(said, 400, 500)
            answers(served)


# T19: expressions and parsers


LONG = 100_000
WORST = [
    "a" * LONG,
    "=" * LONG,
    " " * LONG,
    "\n" * LONG,
    "{" * LONG,
    "[" * LONG,
    '"' * LONG,
    "\\" * LONG,
    "<" * LONG,
    "<tool_call>" * (LONG // 11),
    "<tool_call>{" * (LONG // 12),
    '{"a":' * (LONG // 5),
    "aA1 " * (LONG // 4),
    "é" * LONG,
    "0" * LONG,
    "-" * LONG,
    "a-" * (LONG // 2),
    "=;" * (LONG // 2),
    '"\\' * (LONG // 2),
    "<|" * (LONG // 2),
    "::" * (LONG // 2),
    "a." * (LONG // 2),
    "👩‍👩‍👧" * (LONG // 5),
]


@pytest.mark.parametrize("text", WORST, ids=[repr(text[:12]) for text in WORST])
def test_t19_everything_that_reads_a_request_takes_linear_time(text: str, tiny: Any) -> None:
    """A hundred thousand characters through each expression and parser: less than a second of processor time."""

    def timed(what: str, function: Any) -> None:
        began = time.process_time()
        function()
        assert time.process_time() - began < 1.0, what

    for expression in (HOST, ORIGIN, JSON, FORM, NAMES, UPLOADS):
        for value in (
            text,
            "application/json;" + text,
            "multipart/form-data; boundary=" + text,
            "localhost" + text + ":1",
        ):
            timed(expression.pattern, lambda expression=expression, value=value: expression.fullmatch(value))
    timed("JSON", lambda: _parsed(text.encode()))
    timed("JSON of a text", lambda: _parsed(json.dumps({"a": text}).encode()))
    timed("tokenizer", lambda: tiny.tokenizer.encode(text))
    for style in STYLES:
        for said in (text, MARKS[style] + text, MARKS[style] + '{"name": "a", "arguments": {"a": ' + text):
            timed(f"calls of {style}", partial(read_calls, said, style))

            def in_pieces(said: str = said, style: Style = style) -> None:
                reader = CallReader(style)
                for at in range(0, len(said), 500):
                    reader.add(said[at : at + 500])
                reader.finish()

            timed(f"calls of {style} in pieces", in_pieces)


def _parsed(body: bytes) -> None:
    with suppress(ApiError):
        parse(body)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(tiny_talker(tmp_path_factory.mktemp("models") / "tiny"))
