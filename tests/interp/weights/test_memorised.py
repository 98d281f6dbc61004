"""What a model was made to know by heart is found, and what it never saw is not."""

import random
import string
from pathlib import Path

import pytest
import torch
from kinds import TEXT, letters, made

from cutaway.errors import ConfigError, InputError
from cutaway.interp import memorised
from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.tokenizers import Tokenizer, TokenStore, train_tokenizer


def noise(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choice(string.ascii_lowercase) for _ in range(24)) for _ in range(count)]


@pytest.fixture(scope="module")
def learned() -> tuple[Model, list[str]]:
    """A model that has learned eight texts of noise, which cannot be guessed."""
    tokenizer: Tokenizer = train_tokenizer([string.ascii_lowercase * 3], "char", 300)
    texts = noise(8, 0)
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=24, layers=2, width=64, heads=4))
    ids = torch.tensor([tokenizer.encode(text) for text in texts])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(120):
        loss = torch.nn.functional.cross_entropy(network(ids)[:, 3:-1].flatten(0, 1), ids[:, 4:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Model(network.eval(), tokenizer, "by heart"), texts


def test_what_was_learned_is_found_and_what_was_not_is_not(learned: tuple[Model, list[str]]):
    model, texts = learned
    found = memorised(model, texts, held_out=noise(50, 1), prefix=6, continuation=18)
    assert found.figures["share by heart"] == 1.0
    assert found.figures["share by heart of texts held out"] == 0.0
    assert found.figures["mean share up to the first mistake of texts held out"] < 0.05
    rows = found["stretches"].rows  # pyright: ignore[reportAttributeAccessIssue]
    assert sorted(row[2] + row[3] for row in rows) == sorted(texts)


def test_by_heart_is_what_greedy_generation_writes(learned: tuple[Model, list[str]]):
    model, texts = learned
    mixed = [text[:12] + other[12:18] for text, other in zip(texts, noise(8, 2), strict=True)]
    found = memorised(model, mixed, prefix=6, continuation=12)
    assert 0.3 < found.figures["mean share up to the first mistake"] < 0.99
    place = {row[0]: row for row in found["stretches"].rows}  # pyright: ignore[reportAttributeAccessIssue]
    for name, known, prefix, same in place.values():
        truth = mixed[int(name.removeprefix("text "))]
        start = truth.index(prefix)
        written = model.generate(prefix, max_new_tokens=12, temperature=0).text
        agreed = next((i for i, (a, b) in enumerate(zip(written, truth[start + 6 :], strict=False)) if a != b), 12)
        assert agreed == known == len(same)


def test_a_text_begins_with_the_token_that_begins_texts(learned: tuple[Model, list[str]]):
    model, texts = learned
    tokenizer = model.tokenizer
    pieces = [{"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    begin = tokenizer.id("a")
    special = {"B": {"id": "B", "ids": [begin], "tokens": ["a"]}}
    before, short = tokenizer.around, [text[:23] for text in texts]
    with pytest.raises(InputError, match="no text has 24 tokens"):
        memorised(model, short, prefix=6, continuation=18)
    tokenizer.around = [{"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": special}]
    try:
        found = memorised(model, short, prefix=6, continuation=18)
    finally:
        tokenizer.around = before
    assert found.figures["mean share up to the first mistake"] >= 0


def test_a_store_brings_its_own_control(learned: tuple[Model, list[str]], tmp_path: Path):
    model, texts = learned
    store = TokenStore.from_texts({"train": texts, "valid": noise(8, 3)}, model.tokenizer, tmp_path / "store")
    found = memorised(model, store, prefix=6, continuation=18)
    assert found.figures["share by heart"] == 1.0
    assert found.figures["share by heart of texts held out"] == 0.0
    assert {row[0] for row in found["stretches"].rows} == {f"train:{i}" for i in range(8)}  # pyright: ignore
    assert memorised(model, store["train"], prefix=6, continuation=18).figures["stretches"] == 8
    other = train_tokenizer([TEXT * 3], "bpe", 280)
    foreign = TokenStore.from_texts({"train": [TEXT * 9]}, other, tmp_path / "foreign")
    with pytest.raises(ConfigError, match="another tokenizer"):
        memorised(model, foreign, prefix=6, continuation=18)


def test_stretches_are_drawn_once_each_and_all_where_there_are_few(learned: tuple[Model, list[str]]):
    model, texts = learned
    assert memorised(model, texts, prefix=4, continuation=8).figures["stretches"] == 8 * 13
    some = memorised(model, texts, prefix=4, continuation=8, count=10)
    assert some.figures["stretches"] == 10
    assert some["stretches"].rows == memorised(model, texts, prefix=4, continuation=8, count=10)["stretches"].rows  # pyright: ignore


def test_what_cannot_be_continued_is_refused(learned: tuple[Model, list[str]]):
    model, texts = learned
    with pytest.raises(InputError, match="no text has 22 tokens"):
        memorised(model, ["short"], prefix=11, continuation=11)
    with pytest.raises(InputError, match="do not fit the context of 24"):
        memorised(model, texts)
    with pytest.raises(ConfigError, match="prefix must be at least 1"):
        memorised(model, texts, prefix=0)
    for shape in ("bert", "t5"):
        with pytest.raises(ConfigError, match="a search for memorised texts needs"):
            memorised(made(shape, letters()), [TEXT])
    assert memorised(made("gru", letters()), [TEXT * 3]).figures["stretches"] > 3
