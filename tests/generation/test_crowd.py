"""Targets of many sources in one batch: what each of them would be alone."""

import itertools
from typing import Any

import pytest
import torch

from cutaway.generation.engine import Engine
from cutaway.generation.request import Request
from cutaway.generation.torch_backend import TorchBackend
from cutaway.models import Model, Seq2SeqConfig, build_network
from cutaway.tokenizers import train_tokenizer

FORMS: list[dict[str, Any]] = [
    {"position": "relative"},
    {"position": "learned", "norm_place": "sum"},
    {"position": "sinusoidal", "attention_scale": 0.0},
]


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: form["position"])
def model(request: pytest.FixtureRequest) -> Model:
    tokenizer = train_tokenizer(["the cat sat on the mat"], "char", 300)
    config = Seq2SeqConfig(tokenizer.vocab_size, context=40, layers=2, width=16, heads=2, start_id=3, **request.param)
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return Model(network.double(), tokenizer)


def written(model: Model, requests: list[Request], **options: Any) -> list[Any]:
    engine = Engine(model, backend="torch", **options)
    tickets = [engine.submit(request) for request in requests]
    found = [[(one.ids, one.finish_reason) for one in ticket.results()] for ticket in tickets]
    logprobs = [[one.logprobs for one in ticket.results()] for ticket in tickets]
    assert isinstance(engine.backend, TorchBackend)
    if engine.backend.crowd is not None:  # nothing is kept of what has ended
        crowd = engine.backend.crowd
        assert not crowd.paths
        assert not crowd.sources
        assert sorted(crowd.free) == list(range(len(crowd.uses)))
        assert not any(crowd.uses)
    return [found, logprobs]


def test_a_batch_writes_what_each_would_alone(model: Model):
    texts = ["the cat", "on", "cat sat on the mat the cat"]
    hows: list[dict[str, Any]] = [
        {"beams": 4, "n": 2},
        {"beams": 3, "length_penalty": 2.0},
        {"sampling": {"temperature": 0.0}},
        {"sampling": {"temperature": 1.0}, "n": 3, "seed": 5},
        {"beams": 2, "target": "the"},
    ]
    requests = [
        Request(text, max_new_tokens=count, **how)
        for (text, how), count in zip(itertools.product(texts, hows), itertools.cycle((5, 9, 12)))
    ]
    alone, its = written(model, requests, together=False)
    beside, theirs = written(model, requests, together=True, max_batch=24)
    assert beside == alone
    for one, other in zip(itertools.chain(*its), itertools.chain(*theirs), strict=True):
        assert other == pytest.approx(one, abs=1e-5)


def test_the_store_that_grew_holds_what_it_held(model: Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cutaway.generation.crowd.FIRST", 4)
    requests = [Request(text, max_new_tokens=9, beams=3) for text in ("the cat", "a mat", "sat")]
    beside, _ = written(model, requests, together=True)
    assert beside == written(model, requests, together=False)[0]
