"""Texts that are held to a form are of it, whatever the model would rather write; a bad form is one sentence."""

import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

import cutaway.generation.constrain as constrain
from cutaway.errors import ConfigError
from cutaway.generation import generate
from cutaway.generation.constrain import Constrained, Constrainer, form
from cutaway.models import DecoderConfig, Model, Seq2SeqConfig, build_network
from cutaway.models.generation_config import GenerationConfig
from cutaway.tokenizers import Tokenizer, train_tokenizer
from cutaway.tokenizers.spec import make as make_spec

TEXTS = ['{"name": "the cat", "猫": [1, 2.5, true, null]} sat on the mat. 猫坐在垫子上😀 ' * 20]

SCHEMAS: dict[str, dict[str, Any]] = {
    "a person": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "email": {"type": "string", "pattern": "^[a-z]{1,8}@[a-z]{1,8}\\.(org|cn)$"},
            "tags": {"type": "array", "items": {"enum": ["a", "b c", "猫"]}, "maxItems": 3},
        },
        "required": ["name", "age", "email"],
        "additionalProperties": False,
    },
    "an order": {
        "$defs": {
            "money": {
                "type": "object",
                "properties": {"amount": {"type": "number", "minimum": 0}, "unit": {"enum": ["EUR", "CNY"]}},
                "required": ["amount", "unit"],
                "additionalProperties": False,
            }
        },
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9]{4}-[A-F]{2}$"},
            "total": {"$ref": "#/$defs/money"},
            "lines": {
                "type": "array",
                "minItems": 1,
                "maxItems": 2,
                "items": {
                    "type": "object",
                    "properties": {"what": {"type": "string", "maxLength": 5}, "price": {"$ref": "#/$defs/money"}},
                    "required": ["what", "price"],
                    "additionalProperties": False,
                },
            },
            "paid": {"type": ["boolean", "null"]},
        },
        "required": ["id", "total", "lines", "paid"],
        "additionalProperties": False,
    },
    "Chinese": {
        "type": "object",
        "properties": {
            "城市": {"enum": ["北京", "上海", "广州"]},
            "天气": {"anyOf": [{"const": "晴"}, {"type": "integer", "minimum": -40, "maximum": 45}]},
            "说明": {"type": "string", "minLength": 1, "maxLength": 4},
        },
        "required": ["城市", "天气", "说明"],
        "additionalProperties": False,
    },
    "a list": {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}, "maxItems": 3},
    "a tree": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"v": {"enum": [0, 1]}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
                "required": ["v"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    "a date": {"type": "string", "format": "date"},
}


def modelled(tokenizer: Tokenizer) -> Model:
    """A model of these tokens, whose embedding has a few rows more."""
    torch.manual_seed(0)
    return Model(
        build_network(DecoderConfig(tokenizer.vocab_size + 5, context=512, layers=1, width=16, heads=2)), tokenizer
    )


def fallback() -> Tokenizer:
    """A tokenizer in the manner of SentencePiece: ▁ for a space, and bytes for what is no token."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁the",
        "▁cat",
        "猫",
        '"',
        "{",
        "}",
    ]
    pieces += ['{"', '":', "▁{", *"abcdefghijklmnopqrstuvwxyz"]
    special = [{"id": i, "content": pieces[i], "special": True} for i in range(3)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    spec = {
        "version": "1.0",
        "added_tokens": [one | flags for one in special],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [[piece, -float(i > 258)] for i, piece in enumerate(pieces)],
            "byte_fallback": True,
        },
    }
    return Tokenizer(json.dumps(spec), roles={"end_of_text": "</s>", "begin_of_text": "<s>"})


@pytest.fixture(scope="module", params=["bpe", "unigram", "wordpiece", "char", "sentencepiece"])
def model(request: pytest.FixtureRequest) -> Model:
    if request.param == "sentencepiece":
        return modelled(fallback())
    return modelled(train_tokenizer(TEXTS, request.param, 600))


def held_to(model: Model, **options: Any) -> Constrainer:
    found = form(**options)
    assert found is not None
    return Constrainer(model, found)


def write(held: Constrained, model: Model, seed: int, most: int = 600) -> tuple[str, bool]:
    """A text of tokens drawn at random among those that may come; and whether it is complete."""
    random, ids = np.random.default_rng(seed), []
    end = model.tokenizer.end_of_text
    while len(ids) < most:
        allowed = held.allowed()[0]
        assert allowed.shape == (model.config.vocab_size,)
        assert not allowed[model.tokenizer.vocab_size :].any(), "no token that is none"
        choices = np.flatnonzero(allowed)
        ids.append(int(random.choice(choices)))
        if held.accept(ids[-1:]) is not None:
            break
    complete = held.complete or ids[-1] == end
    return model.tokenizer.decode([id for id in ids if id != end]), complete


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_written_is_of_the_schema(name: str, model: Model):
    held = held_to(model, schema=SCHEMAS[name])
    whole = 0
    for seed in range(8):
        text, complete = write(held.start(), model, seed)
        if complete:
            whole += 1
            jsonschema.validate(json.loads(text), SCHEMAS[name], jsonschema.Draft202012Validator)
    assert whole >= 4


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"regex": "[a-c]{3}-(猫|😀)+x"}, "[a-c]{3}-(猫|😀)+x"),
        ({"grammar": 'start: "f(" [arg ("," arg)*] ")"\narg: /[a-z]/ | "猫"'}, "f\\(((猫|[a-z])(,(猫|[a-z]))*)?\\)"),
        ({"choices": ['a"b', "c\\d", "x\ny\x01", "猫😀", "."]}, 'a"b|c\\\\d|x\ny\x01|猫😀|\\.'),
    ],
    ids=["regex", "grammar", "choices"],
)
def test_what_is_written_is_of_the_form(options: dict[str, Any], pattern: str, model: Model):
    held, texts = held_to(model, **options), set()
    for seed in range(12):
        text, complete = write(held.start(), model, seed)
        if complete:
            assert re.fullmatch(pattern, text)
            texts.add(text)
    assert len(texts) >= 3


def test_every_text_of_the_form_may_be_written(model: Model):
    for text in ('{"v":0,"kids":[{"v":1}]}', '{"v": 1, "kids": []}', '{\n  "v": 1\n}'):
        held = held_to(model, schema=SCHEMAS["a tree"]).start()
        ids = held._tokens(text)
        assert model.tokenizer.decode_bytes(ids) == text.encode()
        if model.tokenizer.joins:
            assert ids == model.tokenizer.encode(text)
        if model.tokenizer.kind == "wordpiece":  # two pieces spell the same: one begins a word, one goes on with it
            assert held.valid(ids) == len(ids)
            continue
        masks = held.allowed(ids)
        assert len(masks) == len(ids) + 1
        for place, id in enumerate(ids):
            assert masks[place][id]
        assert held.valid(ids) == len(ids)
        assert not held.complete, "looking ahead changes nothing"
        assert held.accept(ids) in (None, "end")
        assert held.complete


def test_behind_a_wrong_guess_nothing_may_come(model: Model):
    held = held_to(model, regex="[ab]{4}").start()
    a, c = model.tokenizer.id("a"), model.tokenizer.id("c")
    masks = held.allowed([a, c, a])
    assert masks[0][a]
    assert masks[1][a]
    assert not masks[1][c]
    assert not masks[2:].any()
    with pytest.raises(ConfigError, match="could not be held to its form"):
        held.accept([c])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generation_is_held_to_a_schema_and_says_when_it_ran_out_of_length(temperature: float, model: Model):
    schema = SCHEMAS["Chinese"]
    prompts = ["the", "猫"]
    for one in generate(model, prompts, schema=schema, temperature=temperature, seed=2, max_new_tokens=200):
        if one.finish_reason == "end":
            jsonschema.validate(json.loads(one.text), schema)
        else:
            assert one.finish_reason == "length"
            assert len(one.ids) == 200
    short = generate(model, "the", schema=schema, max_new_tokens=3)
    assert short.finish_reason == "length"


@pytest.mark.parametrize("options", [{"temperature": 1.0}, {"beams": 3}], ids=str)
def test_an_encoder_decoder_whose_first_token_is_forced_is_held_to_a_form(options: dict[str, Any]):
    tokenizer = train_tokenizer(TEXTS, "char", 300)
    network = build_network(Seq2SeqConfig(tokenizer.vocab_size, layers=1, width=16, heads=2))
    model = Model(network, tokenizer, generation=GenerationConfig(forced_bos_token_id=tokenizer.pad))
    made = generate(model, "the", choices=["cat", "猫"], max_new_tokens=20, **options)
    assert made.ids[0] == tokenizer.pad
    assert tokenizer.decode(made.ids, skip_special=True) in ("cat", "猫")
    assert made.finish_reason == "end"


def test_what_is_forced_is_guessed_and_the_text_is_the_same(model: Model):
    choices = ["the cat sat on the mat. " * 2]
    made = generate(model, "the", choices=choices, temperature=0, max_new_tokens=100)
    assert made.text == choices[0].lstrip() if model.tokenizer.exact else made.text
    assert made.finish_reason == "end"
    if model.tokenizer.joins:
        assert made.guessed > 0


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(80):
    DEEP = {"type": "array", "items": DEEP}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"schema": {"type": "strin"}}, "the JSON Schema is not one: Invalid type: strin"),
    ({"schema": {"type": 5}}, "the JSON Schema is not one: type must be a string"),
    ({"schema": "{"}, "the JSON Schema is not JSON"),
    ({"schema": "[" * 100_000}, "the JSON Schema is not JSON"),
    ({"schema": "3"}, "a JSON Schema must be an object, but int"),
    ({"schema": [1]}, "a JSON Schema must be an object, but list"),
    ({"schema": {"a": {1, 2}}}, "a JSON Schema must be plain data"),
    ({"schema": {"const": float("nan")}}, "a JSON Schema must be plain data"),
    ({"schema": DEEP}, "nested more than 64 levels deep"),
    ({"schema": {"$ref": "http://127.0.0.1:9/x"}}, "the JSON Schema is not one: .* does not fetch"),
    ({"schema": {"$ref": "#/$defs/none"}}, "the JSON Schema is not one: .*does not exist"),
    ({"schema": {"anyOf": [{"$ref": "#"}] * 300}}, "has 300 references; it may have at most 256"),
    ({"schema": {"enum": ["x" * 300_000]}}, "characters; it may have at most 262,144"),
    (
        {"schema": {"type": "array", "uniqueItems": True}},
        "the JSON Schema is not one: Unimplemented keys: .*uniqueItems",
    ),
    ({"schema": {"type": "integer", "const": -1e308}}, "the JSON Schema cannot be compiled: .* or breaks llguidance"),
    ({"schema": {"maximum": "😀" * 50}}, "the JSON Schema is not one: llguidance breaks on it"),
    ({"schema": False}, "a JSON Schema must be an object, but bool"),
    ({"regex": "[a"}, r"the regular expression is not one: .*unclosed character class"),
    ({"regex": "(?=a)b"}, "the regular expression is not one: .*look-around"),
    ({"regex": ""}, "a regular expression must be text that is not empty"),
    ({"regex": 5}, "a regular expression must be text that is not empty, but int"),
    ({"regex": "a" * 300_000}, "the regular expression has 300,000 characters; it may have at most 262,144"),
    ({"regex": "\ud800"}, "holds half a character"),
    ({"regex": "(" * 2000 + "a" + ")" * 2000}, "the regular expression is not one"),
    ({"grammar": 'start: "a" b'}, 'the grammar is not one: .*unknown name: "b"'),
    ({"grammar": 'begin: "a"'}, "the grammar is not one"),
    ({"grammar": "start: " + "(" * 3000 + '"x"' + ")" * 3000}, "the grammar is not one: .*nested"),
    ({"choices": []}, "choices must be several texts"),
    ({"choices": "one"}, "choices must be several texts, but 'one'"),
    ({"choices": ["a", ""]}, "each choice must be text that is not empty"),
    ({"choices": ["a", 3]}, "each choice must be text"),
    ({"choices": ["a"] * 10_001}, "there are 10,001 choices"),
    ({"regex": "a", "choices": ["a"]}, "held to one form, but regex and choices were given"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[f"{number}" for number in range(len(BAD))])
def test_t15_a_bad_form_is_one_sentence_and_the_next_request_works(options: dict[str, Any], message: str):
    model = modelled(train_tokenizer(TEXTS, "char", 300))
    with pytest.raises(ConfigError, match=message) as caught:
        generate(model, "the", max_new_tokens=3, **options)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert generate(model, "the", max_new_tokens=20, choices=["cat"]).text == "cat"


def test_t15_forms_made_to_take_long_are_given_up_or_cheap():
    model = modelled(train_tokenizer(TEXTS, "char", 300))
    branches = [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(5)]} for i in range(12)]
    forms: list[dict[str, Any]] = [
        {"regex": "((a{100}){100}){100}"},
        {"regex": "(a|b)*a(a|b){300}"},
        {"regex": "(x+x+)+y"},
        {"regex": ".*" * 500},
        {"schema": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(3000)}}},
        {"schema": {"allOf": branches}},
        {"schema": {"type": "string", "minLength": 10**8}},
        {"grammar": 'start: a\na: a a | "x" | "y"'},
        {"grammar": "\n".join(["start: a0", *(f"a{i}: a{i + 1} a{i + 1}" for i in range(300)), 'a300: "x"'])},
    ]
    for options in forms:
        with suppress(ConfigError):
            made = generate(model, "the", max_new_tokens=30, temperature=1.0, **options)
            assert len(made.ids) == 30 or made.finish_reason == "end"
    assert generate(model, "the", max_new_tokens=20, choices=["cat"]).text == "cat"


@pytest.mark.parametrize("code", ["import time; time.sleep(9)", "import os; os.abort()"], ids=["long", "breaks"])
def test_t15_a_form_that_takes_long_or_breaks_what_compiles_it_is_refused(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = modelled(train_tokenizer(TEXTS, "char", 300))
    (tmp_path / "worker.py").write_text(code)
    monkeypatch.setattr(constrain, "SECONDS", 0.5)
    monkeypatch.setattr(constrain, "TRIES", tmp_path / "worker.py")
    with pytest.raises(ConfigError, match=r"cannot be compiled: it takes more than 0.5 s or too much memory"):
        held_to(model, regex="never compiled before")
    monkeypatch.undo()
    held_to(model, regex="never compiled before")


def test_t15_what_is_kept_of_compiled_forms_is_bounded():
    model = modelled(train_tokenizer(TEXTS, "char", 300))
    for number in range(50):
        held_to(model, choices=[f"text {number}"])
    kept = constrain._compiled.cache_info()
    assert kept.currsize <= (kept.maxsize or 0) == 32


def test_tokens_that_do_not_join_to_a_text_are_refused():
    spec = json.loads(
        make_spec({"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "one": 1, "##two": 2}}, "x")
    )
    spec |= {
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    }
    spec["model"] |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    model = modelled(Tokenizer(json.dumps(spec)))
    with pytest.raises(ConfigError, match="do not spell a text byte by byte"):
        held_to(model, regex="a")


def test_a_form_that_the_tokens_cannot_write_is_said():
    model = modelled(train_tokenizer(TEXTS, "char", 300))
    held = held_to(model, grammar='start: "猫" <[1]>').start()
    ids = model.tokenizer.encode("猫")
    held.accept(ids)
    assert held.allowed()[0].sum() == 1


def test_without_the_library_the_command_that_installs_it_is_told():
    code = (
        "import sys; sys.modules['llguidance'] = None\n"
        "from cutaway.generation.constrain import Constrainer, form\n"
        "from cutaway.models import DecoderConfig, Model, build_network\n"
        "from cutaway.tokenizers import train_tokenizer\n"
        "tokenizer = train_tokenizer(['the cat'], 'char', 300)\n"
        "model = Model(build_network(DecoderConfig(tokenizer.vocab_size, layers=1, width=8, heads=1)), tokenizer)\n"
        "try:\n    Constrainer(model, form(regex='a'))\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtra holding a text to a form needs the library llguidance")
    assert "pip install 'cutaway[constrain]'" in done.stdout
