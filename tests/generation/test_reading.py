"""Texts read whole through the engine's queue: the same as by the network itself, in turn for everybody."""

import threading
from typing import Any

import pytest
import torch

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.generation import Engine, reading
from cutaway.models import Decoder, DecoderConfig, EncoderConfig, Model, build_network, embed
from cutaway.tokenizers import train_tokenizer

LABELS = {"head": "sequence_classification", "labels": ("good", "bad", "neither")}
KINDS = {
    "labels": (EncoderConfig, LABELS),
    "labels by a decoder": (DecoderConfig, LABELS),
    "vectors": (EncoderConfig, {"head": "embedding", "pooling": "mean", "normalize": True}),
    "tokens": (EncoderConfig, LABELS | {"head": "token_classification"}),
}
TEXTS = ["the cat", "sat on the mat and the mat", "a", "the cat sat on", "mat " * 12, "on"]


def make(kind: str) -> Model:
    tokenizer = train_tokenizer(["the cat sat on the mat and a dog " * 9], "char", 300)
    config, fields = KINDS[kind]
    torch.manual_seed(0)
    network = build_network(config(vocab_size=tokenizer.vocab_size, context=64, layers=2, width=24, heads=2, **fields))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(network.eval(), tokenizer, "a test")


@pytest.mark.parametrize("kind", KINDS)
def test_each_text_is_what_the_network_makes_of_it_alone(kind: str):
    model = make(kind)
    model.network.train()
    for text, made in zip(TEXTS, Engine(model).read(TEXTS).results(), strict=True):
        torch.testing.assert_close(made, model.logits(text)[0], rtol=1e-4, atol=1e-5)
    assert model.network.training


def test_labels_have_probabilities_and_vectors_are_those_of_embed():
    model = make("labels")
    expected = torch.cat([model.logits(text) for text in TEXTS]).softmax(-1)
    torch.testing.assert_close(Engine(model).classify(TEXTS), expected, rtol=1e-4, atol=1e-5)
    model = make("vectors")
    torch.testing.assert_close(Engine(model).embed(TEXTS), embed(model, TEXTS), rtol=1e-4, atol=1e-5)


def test_one_text_does_not_wait_for_thousands():
    engine = Engine(make("labels"))
    many, one = engine.read(["the cat sat on the mat and a dog"] * 2000), engine.read(["a cat"])
    steps = 0
    while not one.ended:
        assert engine.step()
        steps += 1
    assert steps <= 2
    assert not many.ended
    many.cancel()
    assert not engine.step() or not engine.step()
    assert engine.idle
    with pytest.raises(InputError, match="cancelled"):
        many.results()


def test_several_threads_read_at_a_time():
    engine, found = Engine(make("labels")), {}

    def ask(number: int) -> None:
        found[number] = engine.classify(TEXTS[number:])

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    for number in range(5):
        torch.testing.assert_close(found[number], Engine(engine.model).classify(TEXTS[number:]), rtol=1e-4, atol=1e-5)


def test_what_is_wrong_is_named():
    engine = Engine(make("labels"))
    with pytest.raises(InputError, match="text 1 has 100 tokens, but this model sees 64"):
        engine.classify(["a", "a" * 100])
    with pytest.raises(InputError, match="a list of texts"):
        engine.classify("a")
    with pytest.raises(InputError, match="a list of texts"):
        engine.classify([])
    with pytest.raises(ConfigError, match="needs a network with pooling"):
        engine.embed(["a"])
    with pytest.raises(ConfigError, match="has no labels for texts"):
        Engine(make("vectors")).classify(["a"])
    tokenizer = engine.model.tokenizer
    writer = Model(Decoder(DecoderConfig(tokenizer.vocab_size, layers=1, width=8, heads=1)), tokenizer)
    with pytest.raises(ConfigError, match="writes texts"):
        Engine(writer).read(["a"])
    with torch.no_grad():
        engine.model.network.get_parameter("embed_tokens.weight")[tokenizer.id("d")] = torch.nan
    broken, fine = engine.read(["dog"]), engine.read(["a cat"])
    assert fine.results()[0].isfinite().all()
    with pytest.raises(NonFinite, match="text 0 is NaN"):
        broken.results()


def test_what_fails_for_one_is_computed_once_more_for_the_others(monkeypatch: pytest.MonkeyPatch):
    model = make("labels by a decoder")  # which is read in parts of texts of about the same length
    engine, plain = Engine(model), model.network.forward

    def fails(ids: torch.Tensor, **options: Any) -> torch.Tensor:
        if ids.shape[1] > 40:
            raise MemoryError
        return plain(ids, **options)

    monkeypatch.setattr(model.network, "forward", fails)
    monkeypatch.setattr(reading, "LIMIT", 100)
    fine, failing = engine.read(["a cat"] * 40), engine.read(["mat " * 12])  # of the first some are in its batch
    assert len(fine.results()) == 40
    with pytest.raises(MemoryError):
        failing.results()


def test_nothing_is_read_when_there_is_nothing_to_read():
    engine = Engine(make("labels"))
    engine.classify(TEXTS)
    assert engine.counts()["batch"] == len(TEXTS)
    assert not engine.step()
    assert engine.counts()["batch"] == 0
