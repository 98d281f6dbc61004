"""Span corruption by what T5's paper states: put back together, source and target are the text."""

import math
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.tokenizers import train_tokenizer
from cutaway.tokenizers.extend import with_special
from cutaway.training.objectives import SpanCorruption, corrupt_spans
from cutaway.training.objectives.spans import span_counts

FIRST = 1000


def corrupt(length: int, rate: float, mean: float, seed: int, rows: int = 4) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(500, (rows, length), generator=generator)
    numbers = torch.rand(2, rows, length, generator=generator, dtype=torch.float64)
    return ids, *corrupt_spans(ids, draws=numbers, sentinel=FIRST, rate=rate, mean=mean)


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 120), st.floats(0.01, 0.95), st.floats(1.0, 9.0), st.integers(0, 10**6))
def test_source_and_target_are_the_text(length: int, rate: float, mean: float, seed: int):
    ids, sources, targets = corrupt(length, rate, mean, seed)
    hidden, spans = span_counts(length, rate, mean)
    for text, source, target in zip(ids.tolist(), sources.tolist(), targets.tolist(), strict=True):
        # in both, the sentinels come in their order, each once; the target has one more at its end
        assert [t for t in source if t > 500] == [FIRST - n for n in range(spans)]
        assert [t for t in target if t > 500] == [FIRST - n for n in range(spans + 1)]
        assert target[0] == FIRST
        assert target[-1] == FIRST - spans
        assert len(target) == hidden + spans + 1
        assert len(source) == length - hidden + spans
        # every span is of some length, and no two touch
        places = [place for place, token in enumerate(source) if token > 500]
        assert all(b - a > 1 for a, b in pairwise(places))
        edges = [place for place, token in enumerate(target) if token > 500]
        inside = {FIRST - n: target[a + 1 : b] for n, (a, b) in enumerate(pairwise(edges))}
        assert all(inside.values())
        assert [token for t in source for token in inside.get(t, [t])] == text


def test_the_share_and_the_mean_are_those_asked_for():
    """T5's own: 512 tokens, 15 %, spans of 3 on average."""
    assert span_counts(512, 0.15, 3.0) == (77, 26)
    _, sources, targets = corrupt(512, 0.15, 3.0, 0, rows=200)
    lengths = (targets > 500).nonzero()[:, 1].view(200, -1).diff(dim=1) - 1
    assert float(lengths.double().mean()) == 77 / 26
    # cut evenly, a first span is of length n with the chance C(76 - n, 24) / C(76, 25)
    expected = [math.comb(76 - n, 24) / math.comb(76, 25) for n in (1, 2, 3)]
    for n, chance in zip((1, 2, 3), expected, strict=True):
        assert abs(float((lengths == n).double().mean()) - chance) < 4 * math.sqrt(chance / lengths.numel())
    # spans are anywhere: at the beginning as often as at the end
    begins, ends = ((sources[:, place] > 500).double().mean() for place in (0, -1))
    chance = 26 / (512 - 77 + 1)
    assert abs(float(begins) - chance) < 4 * math.sqrt(chance / 200)
    assert abs(float(ends) - chance) < 4 * math.sqrt(chance / 200)


def test_sources_fill_the_context():
    for context in (8, 33, 256, 512):
        objective = SpanCorruption()
        length = objective.length(context)
        hidden, spans = span_counts(length, 0.15, 3.0)
        assert length - hidden + spans <= context
        longer, more = span_counts(length + 1, 0.15, 3.0)
        assert length + 1 - longer + more > context


def test_sentinels_are_the_last_ids_as_in_t5():
    tokenizer = train_tokenizer(["some text or other"], "bpe", 300)
    made = SpanCorruption(sentinels=5).tokenizer(tokenizer)
    assert made.vocab_size == tokenizer.vocab_size + 5
    assert [made.special[f"<extra_id_{n}>"] for n in range(5)] == [made.vocab_size - 1 - n for n in range(5)]
    assert (made.end_of_text, made.pad, made.mask) == (tokenizer.end_of_text, tokenizer.pad, tokenizer.mask)
    text = "some <extra_id_0> text"
    assert made.encode(text) == tokenizer.encode(text)  # never read out of a text
    assert made.encode(text, allow_special=True).count(made.vocab_size - 1) == 1
    assert SpanCorruption().tokenizer(made) is made  # one that has them is taken as it is
    assert with_special(tokenizer, ["<a>"]).vocab_size == tokenizer.vocab_size + 1
