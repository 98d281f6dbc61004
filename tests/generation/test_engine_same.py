"""The same request gives the same alone, in company, with a warm cache, and after its pages were given back.

Tokens and log-probabilities, bit for bit, on native kernels and with torch on a CPU.
"""

import random
from typing import Any

import pytest
import torch

from cutaway.generation import Engine, Generation, Request
from cutaway.models import ActiveTap, Decoder, DecoderConfig, Model
from cutaway.models.config_parts import RotaryScaling
from cutaway.tokenizers import Tokenizer, train_tokenizer

SIZES: dict[str, Any] = {"context": 300, "layers": 2, "width": 64, "heads": 4, "kv_heads": 2}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat and the dog on the log. " * 20], "bpe", 320)


def make(tokenizer: Tokenizer, seed: int = 0, **fields: Any) -> Model:
    torch.manual_seed(seed)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, **{**SIZES, **fields})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return Model(network, tokenizer, "a test")


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Model:
    return make(tokenizer)


def mixed(model: Model, draft: Model) -> list[Request]:
    """32 requests of every kind; several begin alike."""
    draw, size = random.Random(1), model.tokenizer.vocab_size
    shared = draw.choices(range(size), k=270)
    kinds: list[dict[str, Any]] = [
        {"sampling": {"temperature": 0}},
        {"sampling": {"temperature": 0.9, "top_p": 0.8}},
        {"sampling": {"temperature": 1.2, "frequency_penalty": 0.5, "repetition_penalty": 1.1}, "logprobs": 3},
        {"sampling": {"temperature": 0.8, "top_k": 20}, "n": 3},
        {"beams": 3, "n": 2},
        {"regex": "[a-z ]{30,60}", "sampling": {"temperature": 1.0}},
        {"sampling": {"temperature": 0}, "speculate": "lookup"},
        {"sampling": {"temperature": 1.0}, "speculate": draft},
        {"prompt_logprobs": 2, "max_new_tokens": 0},
        {"prompt_logprobs": 0, "sampling": {"temperature": 0.7}, "n": 2},
        {"stop": ["a", "th"], "sampling": {"temperature": 1.0}},
        {"choices": ["the cat", "the dog", "a log"]},
    ]
    made = []
    for number in range(32):
        kind = kinds[number % len(kinds)]
        length = draw.choice([1, 5, 63, 64, 65, 130, 256, 257, 270])
        ids = shared[:length] if number % 2 else draw.choices(range(size), k=length)
        if "speculate" in kind:
            ids = [*shared[:12] * 5][: max(8, length)]
        given: dict[str, Any] = {"max_new_tokens": draw.choice([3, 20, 45])} | kind
        made.append(Request(ids, seed=number, tenant=str(number % 3), **given))
    return made


def results(engine: Engine, requests: list[Request], steps: random.Random | None = None) -> list[list[Generation]]:
    tickets = []
    for one in requests:
        tickets.append(engine.submit(one))
        for _ in range(steps.randint(0, 2) if steps else 0):
            engine.step()
    return [ticket.results() for ticket in tickets]


def given_back(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often pages are given back."""
    counted, put_back = [0], engine._lanes[0]._put_back

    def counting(job: Any) -> None:
        counted[0] += 1
        put_back(job)

    monkeypatch.setattr(engine._lanes[0], "_put_back", counting)
    return counted


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_request_is_the_same_whatever_else_runs(
    model: Model, tokenizer: Tokenizer, backend: str, monkeypatch: pytest.MonkeyPatch
):
    draft = make(tokenizer, 3, layers=1, width=16)
    requests = mixed(model, draft)
    alone = [Engine(model, backend=backend).submit(one).results() for one in requests]
    for pages, chunk in ((None, 512), (24, 100)):
        engine = Engine(model, backend=backend, pages=pages, keep=8, chunk=chunk)
        counted = given_back(engine, monkeypatch)
        tap = ActiveTap(["layers.0.resid_post"], sink=lambda _, x: None)
        looked = [engine.submit(Request([7] * 20, max_new_tokens=40, tap=tap)) for _ in range(2)]
        assert results(engine, requests, random.Random(chunk)) == alone
        order = random.Random(2).sample(range(len(requests)), len(requests))  # and with what is found
        again = results(engine, [requests[i] for i in order])
        assert again == [alone[i] for i in order]
        assert looked[0].results() == looked[1].results()
        assert bool(counted[0]) == (pages is not None)
        assert engine._lanes[0].pages.used == 0


def test_what_was_guessed_is_computed_again_as_it_was(model: Model, monkeypatch: pytest.MonkeyPatch):
    """With torch a product of several rows rounds otherwise than several of one."""
    prompt = list(range(10, 22)) * 4
    biased = {"logit_bias": dict.fromkeys(range(10, 22), 9.0), "temperature": 0.8}
    one = Request(prompt, biased, max_new_tokens=120, speculate="lookup", seed=4)
    alone = Engine(model, backend="torch").submit(one).results()
    assert alone[0].guessed > alone[0].guessed * (alone[0].acceptance or 0) > 0  # right ones and wrong ones
    engine = Engine(model, backend="torch", pages=7, keep=0)
    counted = given_back(engine, monkeypatch)
    crowd = [Request([9 + i] * 50, max_new_tokens=100, seed=i) for i in range(3)]
    assert results(engine, [*crowd, one])[-1] == alone
    assert counted[0]


def test_positions_that_depend_on_the_length_are_those_of_each_step(tokenizer: Tokenizer):
    scaling = RotaryScaling("dynamic", factor=2.0, original_context=60)
    growing = make(tokenizer, rotary_scaling=scaling)
    requests = [Request([5 + i] * 50, {"temperature": 0}, max_new_tokens=60) for i in range(4)]
    alone = [Engine(growing).submit(one).results() for one in requests]
    assert results(Engine(growing, pages=5, keep=0), requests) == alone
