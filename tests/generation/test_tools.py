"""Tool calls in the forms of published templates: read without trust, in linear time, held to the tools' schemas."""

import itertools
import json
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from cutaway.errors import ConfigError
from cutaway.generation import generate
from cutaway.generation.constrain import Constrainer, form
from cutaway.generation.tools import STYLES, Answer, CallReader, Style, ToolCall, read_calls, tool_grammar, tool_style
from cutaway.models import DecoderConfig, Model, build_network
from cutaway.tokenizers import Tokenizer, train_tokenizer
from cutaway.tokenizers.chat import chat_ids, render_chat

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Paris", "北京"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
SUM: dict[str, Any] = {
    "name": "sum",
    "parameters": {
        "type": "object",
        "$defs": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "properties": {"of": {"type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 3}},
        "required": ["of"],
        "additionalProperties": False,
    },
}
SCHEMAS = {"weather": WEATHER["function"]["parameters"], "sum": SUM["parameters"], "now": {"maxProperties": 0}}
TOOLS = [WEATHER, SUM, {"name": "now"}]
TEMPLATES: dict[Style, str] = {
    "hermes": "{% for t in tools %}{{ t | tojson }}{% endfor %}For each call return <tool_call>\\n{...}\\n</tool_call>"
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "llama": '{% for t in tools %}{{ t | tojson }}{% endfor %}Respond with {"name": n, "parameters": p}'
    "{% for m in messages %}{{ m.role }} ipython: {{ m.content }}{% endfor %}",
    "mistral": "[AVAILABLE_TOOLS]{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if false %}[TOOL_CALLS]{% endif %}",
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat."], "char", 300)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Model:
    torch.manual_seed(0)
    return Model(
        build_network(DecoderConfig(tokenizer.vocab_size, context=2048, layers=1, width=16, heads=2)), tokenizer
    )


def special(tokenizer: Tokenizer, *names: str) -> Tokenizer:
    """The same, with more special tokens."""
    spec = json.loads(tokenizer.text)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for name in names:
        spec["added_tokens"].append(
            {"id": len(spec["model"]["vocab"]) + len(spec["added_tokens"]), "content": name} | flags
        )
    return Tokenizer(json.dumps(spec))


@pytest.mark.parametrize(
    ("style", "text", "answer"),
    [
        ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', ("", [("f", {"a": 1})])),
        (
            "hermes",
            'So: <tool_call>{"name": "f", "arguments": {}}</tool_call>\n<tool_call>{"name": "猫"}</tool_call> done',
            ("So: \n done", [("f", {}), ("猫", {})]),
        ),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [', None),
        ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": [1]}}', ("", [("f", {"a": [1]})])),  # no end
        ("hermes", '<tool_call>__import__("os")</tool_call>', None),
        ("hermes", '<tool_call>{"name": 3}</tool_call>', None),
        ("hermes", '<tool_call>{"name": "f", "arguments": "x"}</tool_call>', None),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', None),
        ("hermes", "</tool_call><tool_call>", None),
        ("llama", '{"name": "f", "parameters": {"a": "b"}}', ("", [("f", {"a": "b"})])),
        ("llama", '<|python_tag|>{"name": "f", "parameters": {}}; {"name": "g"}', ("", [("f", {}), ("g", {})])),
        ("llama", '{"answer": 42}', None),
        ("llama", 'It is {"name": "f", "parameters": {}}', None),
        ("llama", "<|python_tag|>print(1)", None),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]', ("", [("f", {"a": 1})])),
        (
            "mistral",
            'Hm. [TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]',
            ("Hm.", [("f", {}), ("g", {})]),
        ),
        ("mistral", '[TOOL_CALLS] [{"name": "f"}, 3]', None),
        ("mistral", "[TOOL_CALLS] []", None),
        ("mistral", "nothing", None),
    ],
)
def test_t17_calls_are_read_and_what_is_none_stays_text(style: Style, text: str, answer: Any):
    if answer is None:
        assert read_calls(text, style) == Answer(text, [])
    else:
        assert read_calls(text, style) == Answer(answer[0], [ToolCall(*call) for call in answer[1]])


@pytest.mark.parametrize("style", STYLES)
def test_t17_reading_takes_linear_time_whatever_was_written(style: Style):
    mark = {"hermes": "<tool_call>", "llama": '{"name": "f"};', "mistral": "[TOOL_CALLS] "}[style]
    for unit in (mark, "<tool_call>{", "{", "[", '"', "\\", "<tool_call>[</tool_call>", mark + '{"a":'):
        text = unit * (1_000_000 // len(unit))  # what takes the square of that takes hours
        assert read_calls(text, style).calls == [] or unit == mark
    deep = '{"name": "f", "arguments": {"a": ' + "[" * 100 + "]" * 100 + "}}"
    wrapped = {"hermes": f"<tool_call>{deep}</tool_call>", "llama": deep.replace("arguments", "parameters")}
    assert read_calls(wrapped.get(style, f"[TOOL_CALLS] [{deep}]"), style).calls == []


ANSWERS = {
    "hermes": [
        '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>',
        ' Wait.\n\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n<tool_call>{"name": "g"}</tool_call> Ok ',
        "a < b <tool_cal <tool_call>nothing</tool_call> c <tool_call>{}",
        '<tool_call>{"name": "f", "arguments": {}}',
        "  only text <tool_call",
    ],
    "llama": [
        '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {"a": [1]}}',
        'Well. <|python_tag|>{"name": "f", "parameters": {}}',
        ' {"a": 1} is no call',
        "  text { <|python",
    ],
    "mistral": [
        'Hm. [TOOL_CALLS] [{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]',
        "[TOOL_CALLS] nothing",
        "[TOOL] text [TOOL_CALLS",
    ],
}


@pytest.mark.parametrize("style", STYLES)
def test_an_answer_that_still_comes_is_read_as_the_whole_one(style: Style):
    random = np.random.default_rng(0)
    for text in ANSWERS[style]:
        whole = read_calls(text, style)
        for _ in range(20):
            cuts = sorted({0, len(text), *random.integers(0, len(text) + 1, random.integers(0, len(text))).tolist()})
            reader, said, calls = CallReader(style), "", []
            for start, end in itertools.pairwise(cuts):
                told = reader.add(text[start:end])
                said, calls = said + told.text, [*calls, *told.calls]
            told = reader.finish()
            said, calls = said + told.text, [*calls, *told.calls]
            assert calls == whole.calls
            assert said.split() == whole.text.split()  # blanks may stand before a call, but nothing else is lost
            assert calls or said == text


def test_text_before_a_call_is_told_while_it_comes_and_each_call_when_it_is_whole():
    reader = CallReader("hermes")
    assert reader.add("Let me see <too") == Answer("Let me see", [])
    assert reader.add('l_call>{"name": "f", "argu') == Answer("", [])
    assert reader.add('ments": {}}</tool_call>') == Answer("", [ToolCall("f", {})])
    assert reader.finish() == Answer("", [])
    with pytest.raises(ConfigError, match="unknown form of tool calls"):
        CallReader("xml")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("marked", [False, True], ids=["marks are text", "marks are tokens"])
@pytest.mark.parametrize("choice", ["required", "auto"])
@pytest.mark.parametrize("style", STYLES)
def test_an_answer_may_be_held_to_one_call(style: Style, choice: str, marked: bool, model: Model):
    if marked:
        model = Model(model.network, special(model.tokenizer, "<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"))
        model.network = build_network(DecoderConfig(model.tokenizer.vocab_size, layers=1, width=8, heads=1))
    key = "parameters" if style == "llama" else "arguments"
    call = f'{{"name": "now", "{key}": {{}}}}'
    one, two = {
        "hermes": (f"<tool_call>\n{call}\n</tool_call>", f"\n<tool_call>\n{call}\n</tool_call>"),
        "llama": (call, f"; {call}"),
        "mistral": (f"[TOOL_CALLS] [{call}", f", {call}]"),
    }[style]
    for parallel in (True, False):
        held = held_to(model, grammar=tool_grammar(TOOLS, model.tokenizer, choice, style, parallel=parallel)).start()
        ids = model.tokenizer.encode(one + two, allow_special=True)
        first = len(model.tokenizer.encode(one, allow_special=True))
        valid = held.valid(ids)
        assert (valid == len(ids)) if parallel else (first <= valid < len(ids))


def held_to(model: Model, **options: Any) -> Constrainer:
    found = form(**options)
    assert found is not None
    return Constrainer(model, found)


def written(model: Model, grammar: str, seed: int) -> tuple[str, bool]:
    """Tokens drawn at random among those that may come, and whether the text is complete."""
    held = held_to(model, grammar=grammar).start()
    random, ids, tokenizer = np.random.default_rng(seed), [], model.tokenizer
    while len(ids) < 500:
        choices = np.flatnonzero(held.allowed()[0])
        ids.append(int(random.choice(choices)))
        if held.accept(ids[-1:]) is not None:
            break
    end = tokenizer.end_of_text
    return tokenizer.decode([id for id in ids if id != end]), held.complete or ids[-1] == end


@pytest.mark.parametrize("marked", [False, True], ids=["marks are text", "marks are tokens"])
@pytest.mark.parametrize("choice", ["required", "weather", "sum", "now"])
@pytest.mark.parametrize("style", STYLES)
def test_calls_are_of_the_tools_schemas(style: Style, choice: str, marked: bool, model: Model):
    if marked:
        model = Model(model.network, special(model.tokenizer, "<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"))
        model.network = build_network(DecoderConfig(model.tokenizer.vocab_size, layers=1, width=8, heads=1))
    grammar, complete = tool_grammar(TOOLS, model.tokenizer, choice, style), 0
    for seed in range(6):
        text, whole = written(model, grammar, seed)
        if whole:
            complete += 1
            answer = read_calls(text, style)
            assert answer.text == ""
            assert len(answer.calls) == 1 or (choice == "required" and answer.calls)
            for call in answer.calls:
                assert call.name == choice or choice == "required"
                jsonschema.validate(call.arguments, SCHEMAS[call.name])
    assert complete >= 3


@pytest.mark.parametrize("style", STYLES)
def test_auto_is_text_or_calls(style: Style, model: Model):
    held = held_to(model, grammar=tool_grammar(TOOLS, model.tokenizer, "auto", style))
    call = {
        "hermes": '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        "llama": '{"name": "now", "parameters": {}}',
    }
    good = ["plain text, a < b and [x] {y}", call.get(style, '[TOOL_CALLS] [{"name": "now", "arguments": {}}]')]
    mark = {"hermes": "<tool_call>", "llama": "", "mistral": "[TOOL_CALLS] ["}[style]
    bad = [mark + '{"name": "format", ', mark + '{"name": "weather", "arguments": {"city": "Rome"']
    bad[1] = bad[1].replace("arguments", "parameters") if style == "llama" else bad[1]
    bad = [text.replace("<tool_call>", "<tool_call>\n") for text in bad]
    for text in good:
        one = held.start()
        ids = model.tokenizer.encode(text)
        assert one.valid(ids) == len(ids)
        one.accept(ids)
        assert one.complete
    for text in bad:
        ids = model.tokenizer.encode(text)
        assert held.start().valid(ids) < len(ids)


@pytest.mark.parametrize("style", STYLES)
def test_the_form_follows_from_the_template_and_an_answer_is_held_to_it(style: Style, model: Model):
    model.tokenizer.chat_template = TEMPLATES[style]
    try:
        assert tool_style(model.tokenizer) == style
        messages = [{"role": "user", "content": "Weather in 北京?"}]
        assert '"weather"' in render_chat(model, messages, tools=TOOLS)
        grammar = tool_grammar(TOOLS, model.tokenizer, "weather")
        made = generate(model, chat_ids(model, messages, tools=TOOLS), grammar=grammar, max_new_tokens=300, seed=2)
        assert made.finish_reason == "end"
        (call,) = read_calls(made.text, style).calls
        assert call.name == "weather"
        jsonschema.validate(call.arguments, SCHEMAS["weather"])
    finally:
        model.tokenizer.chat_template = None


def test_what_is_no_tool_is_named(tokenizer: Tokenizer):
    for tools, choice, style, message in (
        ([], "auto", "hermes", "tools must be 1 … 128 descriptions"),
        ([{"nam": "f"}], "auto", "hermes", 'tool 0 must have a "name"'),
        ([3], "auto", "hermes", 'tool 0 must have a "name"'),
        ([{"name": "f", "parameters": {"type": "string"}}], "auto", "hermes", "must be a JSON Schema of an object"),
        (TOOLS, "whether", "hermes", "unknown tool 'whether'; did you mean weather"),
        (TOOLS, "auto", "hermit", "unknown form of tool calls 'hermit'; did you mean hermes"),
        (TOOLS, "auto", None, "says nothing of tool calls"),
        ([{"name": "f", "parameters": {"const": float("nan")}}], "auto", "llama", "plain data"),
    ):
        with pytest.raises(ConfigError, match=message):
            tool_grammar(tools, tokenizer, choice, style)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="unknown form of tool calls"):
        read_calls("", "other")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("<tool_call>{call}</tool_call>\n", ""),
        ("\n<tool_call>{call}</tool_call>\n<tool_call>{call}</tool_call> \n", ""),
        ("<tool_call>{call}</tool_call>\n\nDone. ", "Done. "),
        ("First. <tool_call>{call}</tool_call>\nDone.", "First.\nDone."),
    ],
)
def test_blanks_beside_calls_are_no_text(answer: str, said: str):
    answer = answer.replace("{call}", '{"name": "f", "arguments": {}}')
    for size in (1, 3, len(answer)):
        reader = CallReader("hermes")
        told = [reader.add(answer[start : start + size]).text for start in range(0, len(answer), size)]
        assert "".join([*told, reader.finish().text]) == said
