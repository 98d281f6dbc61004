"""Texts that have to hold phrases: they always do, and with beams enough they are the best that do."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from cutaway.errors import ConfigError
from cutaway.generation.engine import Engine
from cutaway.generation.request import Request
from cutaway.models import Model, Seq2SeqConfig, build_network
from cutaway.tokenizers import train_tokenizer


def random_model(texts: list[str], kind: str, vocab: int, seed: int = 0) -> Model:
    tokenizer = train_tokenizer(texts, kind, vocab)
    end = tokenizer.end_of_text
    assert end is not None
    config = Seq2SeqConfig(tokenizer.vocab_size, context=40, layers=1, width=16, heads=2, start_id=end)
    generator = torch.manual_seed(seed)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return Model(network, tokenizer)


def best(model: Model, prompt: str, **options: Any) -> Any:
    return Engine(model, together=True).submit(Request(prompt, **options)).results()[0]


@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_all_texts_that_hold_it(seed: int):
    model = random_model(["ab a b"], "char", 300, seed)
    letters = [model.tokenizer.encode(letter)[0] for letter in "ab "]
    end = model.tokenizer.end_of_text
    assert end is not None
    others = [id for id in range(model.config.vocab_size) if id not in (*letters, end)]
    count = 6  # more than two letters and the spaces around them
    logits: dict[tuple[int, ...], Any] = {}
    for length in range(count):
        for ids in itertools.product(letters, repeat=length):
            row = model.logits([end, *ids], source="ba b")[0, -1].double()
            row[others] = -torch.inf
            logits[ids] = (row - row.logsumexp(0)).numpy()
    found: dict[str, float] = {}
    for length in range(1, count + 1):
        for ids in itertools.product([*letters, end], repeat=length):
            whole = ids[-1] == end or length == count
            if end in ids[:-1] or not whole:
                continue
            score = sum(logits[ids[:i]][id] for i, id in enumerate(ids)) / length
            text = model.tokenizer.decode(one for one in ids if one != end)
            if "a" in text.split() and "b" in text.split():
                found[text] = max(score, found.get(text, -np.inf))
    model.generation = model.generation.__class__(suppress_tokens=tuple(others), renormalize_logits=True)
    made = best(model, "ba b", phrases=["a", "b"], beams=250, max_new_tokens=count)
    assert made.text == max(found, key=lambda text: found[text])
    assert sorted(found) != [made.text]


@pytest.mark.parametrize("seed", range(4))
def test_every_phrase_is_there_as_a_word_of_its_own(seed: int):
    texts = ["the cat sat on the mat with a hat", "a concatenated hatter, 红色的猫 and 帽子"] * 3
    model = random_model(texts, "bpe", 320, seed)
    phrases = ["cat", "a hat", "mat"]
    for source in ("the cat", "hat and mat"):
        made = best(model, source, phrases=phrases, beams=2, max_new_tokens=24)
        words = f" {made.text} "
        for phrase in phrases:
            at = [words[m - 1] + words[m + len(phrase)] for m in range(1, len(words)) if words.startswith(phrase, m)]
            assert any(not any(letter.isalnum() for letter in pair) for pair in at), made.text
    assert "帽子" in best(model, "cat", phrases=["帽子"], max_new_tokens=12).text


def test_no_room_for_them_gives_what_there_is_room_for():
    model = random_model(["the cat sat"], "char", 300)
    made = best(model, "the", phrases=["cat"], max_new_tokens=3)
    assert made.text == "cat"  # nothing else holds it
    assert len(best(model, "the", phrases=["cat"], max_new_tokens=2).ids) <= 2


def test_what_is_likeliest_anyway_stays_as_it_is():
    model = random_model(["the cat sat on the mat"], "char", 300, 3)
    letters = {*model.tokenizer.encode("the cat sat on the mat"), model.tokenizer.end_of_text}
    others = tuple(id for id in range(model.config.vocab_size) if id not in letters)
    model.generation = model.generation.__class__(suppress_tokens=others)
    free = best(model, "cat", beams=5, max_new_tokens=6)
    held = best(model, "cat", phrases=[free.text.split()[0]], beams=40, max_new_tokens=6)
    assert np.mean(held.logprobs) >= np.mean(free.logprobs) - 1e-6


@pytest.mark.parametrize(
    "options",
    [{"phrases": "cat"}, {"phrases": [" "]}, {"phrases": ["cat"], "choices": ["cat", "mat"]}, {"phrases": ["a"] * 65}],
)
def test_what_cannot_be_asked_is_refused(options: dict[str, Any]):
    model = random_model(["the cat sat"], "char", 300)
    with pytest.raises(ConfigError, match="phrases"):
        best(model, "the", **options)
