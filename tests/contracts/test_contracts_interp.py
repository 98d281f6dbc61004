"""What holds for every analysis on every kind of network: it answers with all its faces, or says why it cannot."""

import io
import json
import re
from typing import Any

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from test_contracts_models import SHAPES, SOURCE, TEXT, given, made

from cutaway.errors import ConfigError, InputError
from cutaway.interp import Receipt, Result, look
from cutaway.interp.analyses import ANALYSES, analyse, options_of, parsed, takes_text
from cutaway.models import Model
from cutaway.tokenizers import Tokenizer, train_tokenizer

KINDS = ["llama", "gpt2", "gemma", "experts", "decoder of texts"]
KINDS += ["modernbert", "bert", "t5", "bart", "whisper", "gru", "lstm", "gru of texts", "gru both ways"]
SHORT = {"steps": 2, "samples": 2, "runs": 1, "permutations": 2}  # of options that only cost time
# without a text these take one of their own, or show the whole vocabulary; and of a text these take each token once
FREE = {("head_detectors", ""), ("qk_circuit", ""), ("ov_circuit", "")}
FREE |= {(name, "a" * 40) for name in ("qk_circuit", "ov_circuit", "neighbours", "gates_by_hand")}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([(TEXT + SOURCE) * 3], "char", 300)


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Model:
    return made(request.param, tokenizer)


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_answers_or_says_why_not(model: Model, name: str):
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    options: dict[str, Any] = {key: value for key, value in SHORT.items() if key in options_of(name)}
    if "corrupt" in options_of(name):
        options["corrupt"] = TEXT[:14].replace("cat", "mat")
    reads = given(model) if "source" in options_of(name) else {}  # what takes none refuses those who need one
    refusal, result = "", None
    try:
        result = ANALYSES[name](model, *[TEXT[:14]] * takes_text(name), **options, **reads)
    except ConfigError as error:
        refusal = str(error)
    if result is None:
        assert len(refusal) > 40, refusal  # a sentence
        assert "\n" not in refusal
        return
    assert isinstance(result, Result)
    receipt = result.receipt
    assert isinstance(receipt, Receipt)
    assert receipt.milliseconds > 0
    assert receipt.dtype == "float32"
    assert f"from cutaway.interp import {name}" in receipt.code or name == "ledger"
    compile(receipt.code, "receipt", "exec")
    json.dumps(result.to_json(), allow_nan=False)
    assert "<main" in result.to_html()
    for width in (50, 100):
        console = Console(file=io.StringIO(), width=width, force_terminal=True)
        console.print(result)
        assert isinstance(console.file, io.StringIO)
        lines = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).splitlines()
        assert lines
        assert all(cell_len(line) <= width for line in lines)
    after = model.network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not model.network.training
    assert all(parameter.grad is None for parameter in model.network.parameters())


@pytest.mark.parametrize("name", ANALYSES)
def test_bad_input_is_met_with_a_sentence(name: str, tokenizer: Tokenizer):
    model = made("gru" if name == "gates_by_hand" else "llama", tokenizer)
    if name == "tuned_lens":
        return  # needs a lens of this model first: tests/interp/lenses
    other = {"corrupt": "a mat"} if "corrupt" in options_of(name) else {}
    for text, message in (("", "empty"), ("a" * 40, "shorten|context|at once|tokens")):
        if not takes_text(name) or (name, text) in FREE:
            continue
        with pytest.raises((InputError, ConfigError), match=message):
            ANALYSES[name](model, text, **other)
    with pytest.raises(ConfigError, match=f"unknown option of {name} 'no_such'"):
        analyse(name, model, TEXT, {"no_such": 1})
    same = {"corrupt": TEXT.replace("cat", "mat")} if "corrupt" in options_of(name) else {}
    for option in ("layer", "head", "position"):
        if option in options_of(name):
            with pytest.raises((InputError, ConfigError), match=r"99|leave head"):
                ANALYSES[name](model, *[TEXT] * takes_text(name), **{option: 99}, **same)
    if "token" in options_of(name):
        with pytest.raises(InputError, match="not one token"):
            ANALYSES[name](model, TEXT, token="the cat", **same)


def test_an_analysis_is_chosen_by_its_name(tokenizer: Tokenizer):
    model = made("llama", tokenizer)
    assert analyse("logit_lens", model, TEXT, {"top": 2}).to_json()["layers"][0] == "embedding"
    with pytest.raises(ConfigError, match="unknown analysis 'logit-lens'; did you mean logit_lens"):
        analyse("logit-lens", model, TEXT)
    with pytest.raises(ConfigError, match="top of logit_lens must be a whole number, but 'many' was given"):
        analyse("logit_lens", model, TEXT, {"top": "many"})
    assert parsed("ledger", "token", "5") == 5
    assert parsed("ledger", "token", '"5"') == "5"
    assert set(SHAPES) >= set(KINDS)


@pytest.mark.parametrize("shape", ["bert", "decoder of texts", "t5", "whisper"])
def test_every_kind_of_model_has_its_look(shape: str, tokenizer: Tokenizer):
    model = made(shape, tokenizer)
    seen = look(model, TEXT, **given(model))
    assert seen.receipt.difference == 0.0
    assert seen.ledger.error < 1e-4
    pictures = [part["picture"] for part in seen.page_data()["parts"].values()]
    assert pictures.count("attention") == (3 if shape in ("t5", "whisper") else 1)
    assert ("scores" in pictures) == (shape in ("t5", "whisper"))
    assert "<main" in seen.to_html()
    whole = shape == "decoder of texts"
    assert (seen.position is None) == whole
    console = Console(file=io.StringIO(), width=100)
    console.print(seen)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert ("at the text:" in shown) == whole
    assert all(sentence.split()[0] in shown for sentence in seen.missing)
    if whole:
        assert {name for name, _ in seen.likeliest} == {"a", "b", "c"}
        assert sum(p for _, p in seen.likeliest) == pytest.approx(1)
