"""What holds for generating with every network that writes: the engine is a plain loop, alone and in company."""

from typing import Any

import pytest
import torch
from test_contracts_models import SHAPES, SOURCE, TEXT, given, made

from cutaway.generation import Engine, Request
from cutaway.models import ActiveTap, Model, RecurrentConfig, Seq2SeqConfig
from cutaway.tokenizers import Tokenizer, train_tokenizer

WRITERS = [name for name, (kind, fields) in SHAPES.items() if "head" not in fields and kind.__name__ != "EncoderConfig"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([(TEXT + SOURCE) * 3], "char", 300)


@pytest.fixture(params=WRITERS)
def model(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Model:
    return made(request.param, tokenizer)


def asked(model: Model, text: str = TEXT, **options: Any) -> Request:
    """A request for what follows a text; of an encoder–decoder, the text begins its target."""
    options = {"max_new_tokens": 8, "sampling": {"temperature": 0}} | options
    if isinstance(model.config, Seq2SeqConfig):
        return Request(
            given(model, SOURCE)["source"] if model.config.source == "audio" else SOURCE, target=text, **options
        )
    return Request(text, **options)


def loop(model: Model, text: str, count: int) -> list[int]:
    """What is likeliest, token by token, everything computed anew each time."""
    seen = model.ids(text)[0].tolist()
    start = len(seen)
    for _ in range(count):
        seen.append(int(model.logits(seen, **given(model, SOURCE))[0, -1].argmax()))
        if seen[-1] == model.tokenizer.end_of_text:
            break
    return seen[start:]


def torch_engine(model: Model, **options: Any) -> Engine:
    return Engine(model, backend="torch", **options)


def test_greedy_is_a_plain_loop(model: Model):
    found = torch_engine(model).submit(asked(model)).result()
    assert found.ids == loop(model, TEXT, 8)


def test_alone_and_in_company_it_is_the_same_bit_for_bit(model: Model):
    texts = [TEXT, TEXT[:5], TEXT[3:12], TEXT[:5]]
    several = [asked(model, text, sampling={"temperature": 0.9}, seed=i, n=1 + i % 2) for i, text in enumerate(texts)]
    engine = torch_engine(model, chunk=8)
    tickets = [engine.submit(one) for one in several]
    found = [ticket.results() for ticket in tickets]
    assert found == [torch_engine(model, chunk=8).submit(one).results() for one in several]
    assert engine.idle
    assert engine._lanes[0].pages.used == 0
    assert not engine._lanes[0].backend.states  # pyright: ignore[reportAttributeAccessIssue]


def test_guessing_ahead_and_searching_change_their_states_back(model: Model):
    plain = torch_engine(model).submit(asked(model, max_new_tokens=12)).result()
    guessed = torch_engine(model).submit(asked(model, max_new_tokens=12, speculate="lookup")).result()
    assert guessed.ids == plain.ids
    found = torch_engine(model).submit(asked(model, max_new_tokens=4, beams=3, sampling={})).results()
    start = model.ids(TEXT)[0].tolist()
    logits = model.logits([*start, *found[0].ids], **given(model, SOURCE))[0].log_softmax(-1)
    expected = logits[range(len(start) - 1, len(start) - 1 + len(found[0].ids)), found[0].ids]
    torch.testing.assert_close(torch.tensor(found[0].logprobs), expected, rtol=1e-4, atol=1e-4)


def test_who_looks_changes_nothing_and_sees_each_token_once(model: Model):
    seen: list[torch.Tensor] = []
    tap = ActiveTap(["embed"], sink=lambda _, value: seen.append(value))
    plain = torch_engine(model).submit(asked(model, max_new_tokens=5)).result()
    looked = torch_engine(model).submit(asked(model, max_new_tokens=5, tap=tap)).result()
    assert looked == plain
    assert [len(value[0]) for value in seen] == [len(model.ids(TEXT)[0])] + [1] * (len(looked.ids) - 1)


def test_what_is_not_finite_fails_its_request_alone(model: Model):
    if isinstance(model.config, RecurrentConfig):
        edits = {"layers.0.hidden": lambda value: value * float("nan")}
    else:
        edits = {"layers.0.resid_pre": lambda value: value * float("nan")}
    engine = torch_engine(model)
    broken = engine.submit(asked(model, tap=ActiveTap(edits=edits)))
    fine = engine.submit(asked(model))
    with pytest.raises(ValueError, match="NaN or infinite"):
        broken.result()
    assert fine.result().ids == loop(model, TEXT, 8)
