"""What tokens are drawn from, against transformers' processors and by counting."""

import math
from collections import Counter
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from cutaway.errors import ConfigError, NonFinite
from cutaway.generation.largest import at_least, largest, reaching, running
from cutaway.generation.sampling import Sampling, Seen, distribution, draw, keep, likeliest, pick

SEEN = [3, 7, 7, 11]
CASES = {
    "temperature": (Sampling(temperature=0.3), [TemperatureLogitsWarper(0.3)]),
    "top-k": (Sampling(temperature=1.0, top_k=5), [TopKLogitsWarper(5)]),
    "top-p": (Sampling(temperature=1.0, top_p=0.6), [TopPLogitsWarper(0.6)]),
    "top-p, nearly all": (Sampling(temperature=1.0, top_p=0.999), [TopPLogitsWarper(0.999)]),
    "min-p": (Sampling(temperature=1.0, min_p=0.2), [MinPLogitsWarper(0.2)]),
    "top-p, then min-p": (
        Sampling(temperature=1.0, top_p=0.5, min_p=0.3),
        [TopPLogitsWarper(0.5), MinPLogitsWarper(0.3)],
    ),
    "typical": (Sampling(temperature=1.0, typical_p=0.5), [TypicalLogitsWarper(0.5)]),
    "typical, nearly all": (Sampling(temperature=1.0, typical_p=0.99), [TypicalLogitsWarper(0.99)]),
    "penalty": (Sampling(temperature=1.0, repetition_penalty=1.4), [RepetitionPenaltyLogitsProcessor(1.4)]),
    "suppress": (Sampling(temperature=1.0, suppress=(3, 5)), [SuppressTokensLogitsProcessor([3, 5], device="cpu")]),
    "bias": (Sampling(temperature=1.0, logit_bias={4: 2.5, 6: -3}), [[[[4], 2.5], [[6], -3.0]]]),
    "all": (
        Sampling(
            suppress=(1,), repetition_penalty=1.2, temperature=0.7, top_k=20, top_p=0.9, min_p=0.05, typical_p=0.8
        ),
        [
            SuppressTokensLogitsProcessor([1], device="cpu"),
            RepetitionPenaltyLogitsProcessor(1.2),
            TemperatureLogitsWarper(0.7),
            TopKLogitsWarper(20),
            TopPLogitsWarper(0.9),
            MinPLogitsWarper(0.05),
            TypicalLogitsWarper(0.8),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [40, 9_001])
def test_equals_transformers(name: str, size: int):
    how, processors = CASES[name]
    logits = torch.randn(4, size, generator=torch.Generator().manual_seed(size)) * 3
    theirs = logits.clone()
    for processor in processors:
        if isinstance(processor, list):  # this one is for one size of vocabulary
            processor = SequenceBiasLogitsProcessor(processor)
        theirs = processor(cast(Any, torch.tensor([SEEN] * 4)), theirs)
    expected = theirs.softmax(-1)
    ours = distribution(logits, how, SEEN)
    assert ((ours > 0) == (expected > 0)).all()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)
    assert ours[2].equal(distribution(logits[2], how, SEEN)), "a row does not depend on the others"


def test_frequency_and_presence_are_taken_off_what_was_written():
    logits = torch.zeros(6)
    how = Sampling(temperature=1.0, frequency_penalty=0.5, presence_penalty=0.25)
    expected = torch.tensor([0, 0, -0.75, -1.25, 0, 0]).softmax(
        -1
    )  # OpenAI's formula: - count × 0.5 - (count > 0) × 0.25
    torch.testing.assert_close(distribution(logits, how, [1, 2], [3, 2, 3]), expected)


def test_what_was_seen_can_be_taken_back():
    seen = Seen([5, 3, 5], [3, 9])
    guesses = [3, 200, 200, *range(300, 500)]
    for id in guesses:
        seen.add(id)
    assert dict(zip(seen.ids.tolist(), seen.times.tolist(), strict=True)) == (
        {5: 0, 3: 2, 9: 1, 200: 2} | dict.fromkeys(range(300, 500), 1)
    )
    for id in reversed(guesses):
        seen.take_back(id)
    assert dict(zip(seen.ids.tolist(), seen.times.tolist(), strict=True)) == {5: 0, 3: 1, 9: 1}


HOWS = {
    "top-p": Sampling(temperature=0.9, top_p=0.99),
    "everything": Sampling(temperature=1.3),
    "top-k": Sampling(temperature=1.0, top_k=7),
    "min-p": Sampling(temperature=1.0, min_p=0.02),
    "typical": Sampling(temperature=1.0, typical_p=0.9),
    "penalties": Sampling(temperature=1.0, repetition_penalty=1.3, presence_penalty=0.4, logit_bias={2: 1.0}),
}


@pytest.mark.parametrize("size", [40, 6_000])
@pytest.mark.parametrize("name", HOWS)
def test_draws_follow_the_distribution(name: str, size: int):
    logits = torch.randn(size, generator=torch.Generator().manual_seed(1)) * 1.5
    logits[5::97] += 4
    expected = distribution(logits, HOWS[name], [1], [2])
    generator, seen = np.random.default_rng(0), Seen([1], [2])
    drawn = torch.bincount(
        torch.tensor([pick(logits.numpy(), HOWS[name], generator, seen) for _ in range(8_000)]), minlength=size
    )
    assert drawn[expected == 0].sum() == 0
    often = expected * 8_000 >= 5
    counted = [*drawn[often].tolist(), int(drawn[~often].sum())]
    wanted = [*(expected[often].double() * 8_000).tolist(), float(expected[~often].double().sum() * 8_000)]
    if wanted[-1] < 5:  # too few for the test
        assert counted.pop() < 20
        wanted.pop()
    scale = sum(counted) / sum(wanted)
    assert len(counted) > 1
    assert chisquare(counted, [n * scale for n in wanted]).pvalue > 0.001


@pytest.mark.parametrize("size", [100, 8_000])
def test_a_uniform_number_gives_the_token_where_the_running_sum_exceeds_it(size: int):
    logits = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    logits[: size // 3] = -math.inf  # what never comes, before, between and after
    logits[size // 2 :: 3] = logits[-size // 5 :] = -math.inf
    kept = keep(logits, Sampling(temperature=1.0))
    sums = kept.dense(size).cumsum()
    for uniform in [0.0, 1e-300, *np.random.default_rng(1).random(200), 1 - 2**-53]:
        token = draw(kept, float(uniform))
        assert logits[token] > -math.inf
        assert (sums[token - 1] if token else 0) - 1e-6 <= uniform <= sums[token] + 1e-6


def test_the_same_seed_draws_the_same_and_another_one_others():
    logits = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    one, same, other = (np.random.default_rng(seed) for seed in (3, 3, 4))
    how = Sampling(temperature=1.0)
    first = [pick(logits, how, one) for _ in range(20)]
    assert first == [pick(logits, how, same) for _ in range(20)]
    assert first != [pick(logits, how, other) for _ in range(20)]
    assert one.random() == same.random(), "one number for a token"


def test_temperature_zero_takes_the_likeliest_and_no_random_number():
    logits = np.array([0.0, 3.0, 2.9, 3.0], np.float32)
    generator, untouched = np.random.default_rng(0), np.random.default_rng(0)
    greedy = Sampling(temperature=0)
    assert pick(logits, greedy, generator) == 1
    assert pick(logits, Sampling(temperature=0, suppress=(1,)), generator) == 3
    assert pick(logits, Sampling(temperature=0, top_k=1, typical_p=0.1, logit_bias={2: 1}), generator) == 2
    assert pick(logits, greedy, generator, allowed=np.array([True, False, True, False])) == 2
    assert generator.random() == untouched.random()
    assert distribution(torch.from_numpy(logits), greedy).tolist() == [0, 1, 0, 0]


def test_only_what_is_allowed_comes():
    logits = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    allowed = np.zeros(300, bool)
    allowed[[5, 17, 200]] = True
    kept = keep(logits, Sampling(temperature=0.7), allowed=allowed)
    expected = torch.from_numpy(np.where(allowed, logits, -math.inf) / 0.7).softmax(-1)
    np.testing.assert_allclose(kept.dense(300), expected, rtol=1e-5)
    assert kept.probability(17) == pytest.approx(float(expected[17]), rel=1e-5)
    assert kept.probability(18) == 0


@pytest.mark.parametrize("size", [50, 5000, 70_001])
def test_the_largest_are_found_without_sorting(size: int):
    generator = np.random.default_rng(size)
    values = generator.standard_normal(size).round(2).astype(np.float32)  # with many ties
    for k in (1, 3, 60, 64, 700, size - 1, size, size + 1):
        low = np.sort(values)[max(size - k, 0)]
        assert largest(values, k).tolist() == np.flatnonzero(values >= low).tolist()
    for low in (-1.0, 1.5, 2.5, 9.0):
        assert at_least(values, low).tolist() == np.flatnonzero(values >= low).tolist()
    weights = np.exp(values - values.max())
    for share in (0.001, 0.3, 0.9, 0.9999):
        downwards = np.sort(weights)[::-1]
        last = downwards[int((downwards.cumsum(dtype=np.float64) < share * weights.sum(dtype=np.float64)).sum())]
        near = np.abs(weights - last) < 1e-12
        for order in (weights, weights * 2):
            found = reaching(order, weights, share)
            assert set(np.flatnonzero(near)) <= set(found.tolist())
            assert found.tolist() == np.flatnonzero(weights >= last).tolist()
    whole = weights.cumsum(dtype=np.float64)
    for share in generator.random(50):
        place = running(weights, share, "right")
        assert (whole[place - 1] if place else 0) <= share * whole[-1] * (1 + 1e-6)
        assert whole[place] >= share * whole[-1] * (1 - 1e-6)


def test_the_likeliest_alternatives_are_told_under_the_model():
    logits = torch.randn(9000, generator=torch.Generator().manual_seed(0))
    logits[[7, 3]] = 6.0
    best, places = logits.log_softmax(-1).topk(6)
    told = likeliest(logits.numpy(), float(logits.logsumexp(-1)), 6)
    assert [id for id, _ in told[:2]] == [3, 7]
    assert [id for id, _ in told[2:]] == places[2:].tolist()
    assert [logprob for _, logprob in told] == pytest.approx(best.tolist(), abs=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_stops(bad: float):
    with pytest.raises(NonFinite):
        distribution(torch.tensor([0.0, bad]), Sampling())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be a number from 0"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"temperature": math.inf}, "temperature must be"),
        ({"temperature": True}, "temperature must be a number .* but True was given"),
        ({"temperature": "1"}, "temperature must be a number .* but '1' was given"),
        ({"top_k": 0}, "top_k must be at least 1 and a whole number"),
        ({"top_k": 2.0}, "top_k must be at least 1 and a whole number"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, but 1.1"),
        ({"top_p": math.nan}, "top_p must be"),
        ({"min_p": 2.0}, "min_p must be in 0 … 1"),
        ({"typical_p": 0}, "typical_p must be above 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"frequency_penalty": 2.5}, "frequency_penalty must be in -2 … 2"),
        ({"presence_penalty": None}, "presence_penalty must be in -2 … 2"),
        ({"suppress": (-1,)}, "suppress must hold token ids"),
        ({"suppress": 5}, "suppress must hold token ids"),
        ({"logit_bias": {1: math.inf}}, "logit_bias must give token ids finite numbers"),
        ({"logit_bias": {"1": 1.0}}, "logit_bias must give token ids finite numbers, but '1'"),
        ({"logit_bias": [1]}, "logit_bias must give token ids numbers"),
    ],
)
def test_numbers_out_of_range_are_named(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Sampling(**options)


def test_tokens_outside_the_vocabulary_are_named():
    with pytest.raises(ConfigError, match=r"tokens to suppress must lie in 0 … 3, and leave one"):
        distribution(torch.zeros(4), Sampling(suppress=(4,)))
    with pytest.raises(ConfigError, match="and leave one"):
        distribution(torch.zeros(2), Sampling(suppress=(0, 1)))
    with pytest.raises(ConfigError, match=r"logit_bias must name tokens in 0 … 3, not 9"):
        distribution(torch.zeros(4), Sampling(logit_bias={9: 1.0}))
    with pytest.raises(ConfigError, match="no token is left to choose from"):
        pick(np.zeros(4, np.float32), Sampling(), np.random.default_rng(0), allowed=np.zeros(4, bool))


def test_seeds_count_draws():
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    drawn = Counter(pick(logits, Sampling(temperature=1), np.random.default_rng([seed, 0])) for seed in range(3000))
    assert chisquare([drawn[0], drawn[1], drawn[2]], [1500, 900, 600]).pvalue > 0.001
