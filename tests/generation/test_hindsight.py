"""An answer looked at afterwards has the numbers that it was written with."""

import math

import pytest
import torch

from cutaway.errors import InputError
from cutaway.generation import Engine, Request
from cutaway.generation.hindsight import weighed
from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.models.adapters import AdapterConfig, add_adapter
from cutaway.tokenizers import train_tokenizer


def model() -> Model:
    tokenizer = train_tokenizer(["the cat sat on the mat"] * 3, "char", 300)
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=64, layers=2, width=16, heads=2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return Model(network, tokenizer)


def test_the_numbers_are_those_of_the_writing_and_of_a_plain_run():
    talker = model()
    engine = Engine(talker)
    ticket = engine.submit(Request("the cat", {"temperature": 2.0}, max_new_tokens=20, seed=3))
    made = ticket.result()
    found = weighed(engine, ticket, top=5)
    assert [token.id for token in found] == made.ids
    assert [token.logprob for token in found] == pytest.approx(made.logprobs, abs=1e-5)
    plain = talker.logits([*ticket.prompt_ids, *made.ids])[0, len(ticket.prompt_ids) - 1 : -1].log_softmax(-1)
    ranks = (plain > plain.gather(1, torch.tensor(made.ids)[:, None])).sum(-1) + 1
    assert [token.rank for token in found] == [rank if rank <= 5 else None for rank in ranks.tolist()]
    assert {token.rank for token in found} >= {1, None}  # or this shows little
    for token, row in zip(found, plain, strict=True):
        assert [id for id, _ in token.top] == row.topk(5).indices.tolist()
        assert math.exp(token.top[0][1]) == pytest.approx(float(row.max().exp()), abs=1e-5)


def test_nothing_was_written():
    engine = Engine(model())
    ticket = engine.submit(Request("the cat", max_new_tokens=9))
    ticket.cancel()
    with pytest.raises(InputError, match="no tokens"):
        weighed(engine, ticket)


def test_what_an_adapter_wrote_is_weighed_with_it():
    base = model()
    adapted = add_adapter(base, AdapterConfig(r=4, lora_alpha=30))
    with torch.no_grad():
        for parameter in adapted.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    engine = Engine(base)
    engine.add_adapter("a", adapted)
    ticket = engine.submit(Request("the cat", max_new_tokens=9, adapter="a"))
    assert [token.logprob for token in weighed(engine, ticket)] == pytest.approx(ticket.result().logprobs, abs=1e-5)
