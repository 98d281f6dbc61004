"""The n-gram model against a slow one with exact fractions, and against what is known of its input."""

import math
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def estimated(text: list[int], order: int, modified: bool) -> list[tuple[float, ...]]:
    """Each level's discounts from its counts of counts (Chen & Goodman 1998)."""
    discounts = []
    for n in range(1, order + 1):
        grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
        lefts = {gram: {text[i - 1] if i else "start" for i, g in enumerate(grams) if g == gram} for gram in grams}
        if n < order:  # the start counts only where nothing else does
            counts = [max(1, len(left - {"start"})) for left in lefts.values()]
        else:
            counts = list(Counter(grams).values())
        n1, n2, n3, n4 = (counts.count(k) for k in (1, 2, 3, 4))
        if not n1 or not n2:
            discounts.append((0.75,) * 3)
            continue
        y = Fraction(n1, n1 + 2 * n2)
        three = (y, 2 - 3 * y * Fraction(n3, n2), 3 - 4 * y * Fraction(n4, n3) if n3 else Fraction(3))
        whole = modified and all(0 < d < k for k, d in enumerate(three, 1))
        discounts.append(three if whole else (y,) * 3)
    return discounts


LONG = np.random.default_rng(5).zipf(1.5, 400).clip(1, V).tolist()


@pytest.mark.parametrize("text", [TEXT, [t - 1 for t in LONG]], ids=["short", "long"])
@pytest.mark.parametrize("modified", [True, False])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_equals_the_definition(order: int, modified: bool, text: list[int]):
    model = NGram.fit(np.array(text), V, order, modified=modified)
    discounts = estimated(text, order, modified)
    for level, expected in zip(model.levels, discounts, strict=True):
        assert level.discounts == pytest.approx([float(d) for d in expected], rel=1e-12)
    test = [3, 0, 1, 2, 2, 2, 1, 3, 0, 0, 1]
    got = np.exp(model.logprobs(np.array(test)))
    for i, token in enumerate(test):
        history = tuple(test[max(0, i - order + 1) : i])
        assert got[i] == pytest.approx(float(slow(text, order, history, token, discounts)), rel=1e-12), (i, history)


# Every pair of tokens occurs, so that unigrams are alike whether or not they are mixed with the uniform distribution
# (nltk's are not).
PAIRS = [0, 0, 1, 0, 2, 0, 3, 1, 1, 2, 1, 3, 2, 2, 3, 3, 0, 0, 1, 3, 3, 1, 1, 3, 0, 0, 0, 1, 3, 3, 1, 1, 3, 3, 2, 3, 0,
         3, 2, 3, 1, 1, 3, 0, 0, 0, 0, 0]  # fmt: skip
NLTK = {  # nltk 3.10.4, nltk.lm.KneserNeyInterpolated(order, discount=0.75), after everygrams(PAIRS)
    (0, 1): [0.1666666667, 0.0833333333, 0.0833333333, 0.6666666667],
    (2, 1): [0.125, 0.125, 0.125, 0.625],
    (2, 2): [0.15, 0.15, 0.15, 0.55],
    (3, 0): [0.6875, 0.0625, 0.0625, 0.1875],
    (3, 3): [0.2159090909, 0.4659090909, 0.2159090909, 0.1022727273],
    (0, 0, 1): [0.2083333333, 0.0625, 0.0625, 0.6666666667],
    (3, 2, 1): [0.125, 0.125, 0.125, 0.625],
    (2, 2, 2): [0.15, 0.15, 0.15, 0.55],
    (1, 3, 0): [0.84375, 0.03125, 0.03125, 0.09375],
    (3, 3, 3): [0.2878787879, 0.2878787879, 0.2878787879, 0.1363636364],
}


@pytest.mark.parametrize("history", NLTK)
def test_equals_nltk(history: tuple[int, ...]):
    model = NGram.fit(np.array(PAIRS), V, len(history) + 1, discount=0.75)
    assert model.next(history) == pytest.approx(NLTK[history], abs=1e-9)


def test_without_discount_it_is_counting():
    text = np.array(TEXT)
    shares = np.bincount(text, minlength=6) / text.size
    unigrams = NGram.fit(text, 6, 1, discount=0)
    assert unigrams.next([1, 2]) == pytest.approx(shares, abs=1e-15)
    assert unigrams.loss(text) == pytest.approx(-np.log(shares[text]).mean(), rel=1e-12)
    assert unigrams.logprobs(np.array([5]))[0] == -math.inf
    after_1 = np.bincount(text[1:][text[:-1] == 1], minlength=6)
    assert NGram.fit(text, 6, 2, discount=0).next([1]) == pytest.approx(after_1 / after_1.sum(), abs=1e-15)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({1: 40, 2: 20, 3: 12, 4: 8, 9: 5}, (0.5, 2 - 1.5 * 12 / 20, 3 - 2 * 8 / 12)),
        ({2: 9, 3: 9, 4: 9}, (0.75,) * 3),  # nothing once
        ({1: 9, 7: 1}, (0.75,) * 3),  # nothing twice
        ({1: 4, 2: 2, 5: 1}, (0.5,) * 3),  # nothing three times
        ({1: 4, 2: 2, 3: 2, 9: 1}, (0.5,) * 3),  # nothing four times
        ({1: 10, 2: 5, 3: 20, 4: 1}, (0.5,) * 3),  # the second would be negative
    ],
)
def test_discounts_where_counts_of_counts_fail(counts: dict[int, int], expected: tuple[float, ...]):
    text = [token for token, k in enumerate(k for k, types in counts.items() for _ in range(types)) for _ in range(k)]
    model = NGram.fit(np.array(text), 200, 1)
    assert model.levels[0].discounts == pytest.approx(expected)
    assert NGram.fit(np.array(text), 200, 1, modified=False).levels[0].discounts[1] == pytest.approx(expected[0])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.integers(1, 6), st.lists(st.integers(0, 6), max_size=7))
def test_any_text_gives_a_distribution_after_any_history(text: list[int], order: int, history: list[int]):
    order = min(order, len(text))
    model = NGram.fit(np.array(text), 7, order)
    probabilities = model.next(history)
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert (probabilities > 0).all()
    one_by_one = [model.logprobs(np.array([*history, token]))[-1] for token in range(7)]
    assert np.log(probabilities) == pytest.approx(one_by_one, rel=1e-12, abs=1e-12)


def test_large_ids_do_not_collide():
    rng = np.random.default_rng(1)
    small = rng.integers(0, 50, 3000)
    names = np.sort(rng.choice(2**31, 50, replace=False))
    for few, many in zip(NGram.fit(small, 50, 5).levels, NGram.fit(names[small], 2**31, 5).levels, strict=True):
        assert np.array_equal(few.counts, many.counts)
        assert np.array_equal(few.sums, many.sums)


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


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_one_pass_of_counting_serves_all_orders(order: int):
    text, valid = np.array(TEXT), np.array([3, 0, 1, 2, 2, 0])
    model, loss = best_order(text, valid, V, [order])
    assert model.order == order
    assert loss == NGram.fit(text, V, order).loss(valid)
    losses = [NGram.fit(text, V, n).loss(valid) for n in (1, 2, 3, 4)]
    assert best_order(text, valid, V, [1, 2, 3, 4])[1] == min(losses)


def test_a_text_shorter_than_the_orders_is_counted_as_far_as_it_goes():
    assert best_order(np.array([0, 1, 0]), np.array([0, 1]), V)[0].order <= 3
    with pytest.raises(InputError, match="at least 2 tokens, but 1"):
        best_order(np.array([0]), np.array([0, 1]), V)
    with pytest.raises(ConfigError, match="none"):
        best_order(np.array([0]), np.array([0, 1]), V, [])


def test_save_and_load(tmp_path):
    path = tmp_path / "n.npz"
    model = NGram.fit(np.array(TEXT), V, 3)
    model.save(path)
    again = NGram.load(path)
    assert np.array_equal(again.logprobs(np.array(TEXT)), model.logprobs(np.array(TEXT)))
    seen = sum(len({tuple(TEXT[i : i + n]) for i in range(len(TEXT) - n + 1)}) for n in (1, 2, 3))
    assert again.parameters == model.parameters == seen
    with pytest.raises(InputError, match="does not exist"):
        NGram.load(tmp_path / "m.npz")


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "n.npz"
    NGram.fit(np.array(TEXT), V, 3).save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    for damaged in (b"", b"PK\x03\x04 nothing", whole[:-40], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile, match=r"n\.npz is not an n-gram model"):
            NGram.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"1.keys": None},
        {"vocab_size": None},
        {"vocab_size": np.array(2)},
        {"1.keys": np.array([0, 2, 1, 3])},
        {"1.keys": np.array([-1, 1, 2, 3])},
        {"2.counts": np.array([1])},
        {"1.counts": np.array([1, 0, 2, 3])},
        {"1.counts": np.array([1.0, 1, 2, 3])},
        {"1.discounts": np.array([1.5, 1, 1])},
        {"1.discounts": np.array([math.nan, 1, 1])},
        {"1.keys": np.array([None, 1, 2, 3])},
    ],
)
def test_a_file_that_does_not_hold_together_is_refused(tmp_path, change: dict):
    path = tmp_path / "n.npz"
    NGram.fit(np.array(TEXT), V, 2).save(path)
    with np.load(path) as file:
        arrays = {name: value for name, value in (dict(file) | change).items() if value is not None}
    np.savez(path, **arrays)
    with pytest.raises(DamagedFile, match="is not an n-gram model"):
        NGram.load(path)


def test_what_does_not_fit_is_named():
    with pytest.raises(InputError, match="needs at least 5 tokens, but 3"):
        NGram.fit(np.array([0, 1, 2]), 4, 5)
    with pytest.raises(InputError, match="must lie in 0 … 3, but 0 … 9"):
        NGram.fit(np.array([0, 9, 2]), 4, 2)
    with pytest.raises(InputError, match="one row of integers, but float64"):
        NGram.fit(np.array([0.5, 1]), 4, 2)
    with pytest.raises(ConfigError, match="at least 1, but 0"):
        NGram.fit(np.array([0, 1, 2]), 4, 0)
    with pytest.raises(ConfigError, match=r"in \[0, 1\], but 2"):
        NGram.fit(np.array([0, 1, 2]), 4, 2, discount=2)
    with pytest.raises(InputError, match="no tokens"):
        NGram.fit(np.array(TEXT), V, 2).loss(np.array([], dtype=np.int64))
