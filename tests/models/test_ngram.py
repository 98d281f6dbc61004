"""The n-gram model against a slow one with exact fractions, and against what is known of its input."""

import math
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.models.ngram import NGram, best_order

V = 4
TEXT = [0, 1, 2, 0, 1, 2, 0, 1, 3, 0, 1, 2, 2, 0, 3, 0, 1, 2, 0, 1, 1, 3, 2, 0, 1, 2, 0, 2, 1, 0, 3, 3, 1, 2, 0]


def slow(
    text: list[int], order: int, history: tuple[int, ...], token: int, discounts: list[tuple[float, ...]]
) -> Fraction:
    """Interpolated Kneser–Ney straight from its definition, with dictionaries and fractions."""
    grams = [tuple(text[i : i + order]) for i in range(len(text) - order + 1)]
    counts = Counter(grams)
    p: Fraction = Fraction(1, V)
    for n in range(1, order + 1):
        if n < order:
            lefts = defaultdict(set)
            for i in range(1, len(text) - n + 1):
                lefts[tuple(text[i : i + n])].add(text[i - 1])
            counts = Counter({gram: len(left) for gram, left in lefts.items()})
            counts[tuple(text[:n])] = max(1, counts[tuple(text[:n])])
        else:
            counts = Counter(grams)
        if n - 1 > len(history):
            return p
        context = history[len(history) - n + 1 :]
        followers = {gram: c for gram, c in counts.items() if gram[:-1] == context and c}
        if not followers:
            seen = n == 1 or any(tuple(text[i : i + n - 1]) == context for i in range(len(text)))
            if not seen:
                return p
            continue
        total = sum(followers.values())
        off = {gram: discounts[n - 1][min(c, 3) - 1] for gram, c in followers.items()}
        left = sum((min(Fraction(off[gram]), Fraction(c)) for gram, c in followers.items()), Fraction(0))
        c = followers.get((*context, token), 0)
        kept = max(Fraction(c) - Fraction(off.get((*context, token), 0)), Fraction(0))
        p = Fraction(kept / total + left / total * p)
    return p


@pytest.mark.parametrize("modified", [True, False])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_equals_the_definition(order: int, modified: bool):
    model = NGram.fit(np.array(TEXT), V, order, modified=modified)
    discounts = [level.discounts for level in model.levels]
    test = [3, 0, 1, 2, 2, 2, 1, 3, 0, 0, 1]
    got = np.exp(model.logprobs(np.array(test)))
    for i, token in enumerate(test):
        history = tuple(test[max(0, i - order + 1) : i])
        assert got[i] == pytest.approx(float(slow(TEXT, order, history, token, discounts)), rel=1e-9), (i, history)


def test_discounts_are_chen_and_goodmans():
    rng = np.random.default_rng(0)
    tokens = rng.zipf(1.3, 20_000) % 500
    level = NGram.fit(tokens, 500, 1).levels[0]
    n = [int((level.counts == k).sum()) for k in (1, 2, 3, 4)]
    y = n[0] / (n[0] + 2 * n[1])
    expected = [1 - 2 * y * n[1] / n[0], 2 - 3 * y * n[2] / n[1], 3 - 4 * y * n[3] / n[2]]
    assert level.discounts == pytest.approx([min(max(d, 0), k) for k, d in enumerate(expected, 1)])


@pytest.mark.parametrize("history", [[], [0], [0, 1], [3, 3, 3, 3], [2, 0, 1], [2, 0]])
def test_next_sums_to_one_and_agrees_with_logprobs(history: list[int]):
    model = NGram.fit(np.array(TEXT), V, 4)
    probabilities = model.next(history)
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert (probabilities > 0).all()
    for token in range(V):
        got = model.logprobs(np.array([*history, token]))[-1]
        assert got == pytest.approx(math.log(probabilities[token]))


def test_loss_nears_the_entropy_of_a_markov_source():
    rng = np.random.default_rng(0)
    moves = rng.dirichlet(np.full(8, 0.5), size=8)
    tokens = np.zeros(60_000, dtype=np.int64)
    draws = rng.random(tokens.size)
    edges = moves.cumsum(1)
    for i in range(1, tokens.size):
        tokens[i] = min(7, np.searchsorted(edges[tokens[i - 1]], draws[i]))
    stationary = np.linalg.matrix_power(moves, 200)[0]
    entropy = -(stationary[:, None] * moves * np.log(np.maximum(moves, 1e-300))).sum()
    train, valid = tokens[:50_000], tokens[50_000:]
    model, loss = best_order(train, valid, 8)
    assert model.order <= 3
    assert loss == pytest.approx(entropy, rel=0.02)


def test_a_token_never_seen_still_has_a_probability():
    model = NGram.fit(np.array([0, 1, 0, 1, 0]), 6, 3)
    assert np.isfinite(model.loss(np.array([5, 4, 5])))


def test_save_and_load(tmp_path):
    model = NGram.fit(np.array(TEXT), V, 3)
    model.save(tmp_path / "n.npz")
    again = NGram.load(tmp_path / "n.npz")
    assert np.array_equal(again.logprobs(np.array(TEXT)), model.logprobs(np.array(TEXT)))
    assert again.parameters == model.parameters == sum(level.counts.size for level in model.levels)
    (tmp_path / "n.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DamagedFile, match=r"n\.npz is not an n-gram model"):
        NGram.load(tmp_path / "n.npz")


def test_what_does_not_fit_is_named():
    with pytest.raises(InputError, match="needs at least 5 tokens, but 3"):
        NGram.fit(np.array([0, 1, 2]), 4, 5)
    with pytest.raises(InputError, match="must lie in 0 … 3, but 0 … 9"):
        NGram.fit(np.array([0, 9, 2]), 4, 2)
    with pytest.raises(ConfigError, match="at least 1, but 0"):
        NGram.fit(np.array([0, 1, 2]), 4, 0)
