"""What tokens are drawn from, against transformers' processors and by counting."""

import math

import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from cutaway.errors import ConfigError, NonFinite
from cutaway.generation.sampling import Sampling, distribution, pick

SEEN = [3, 7, 7, 11]
CASES = {
    "temperature": (Sampling(temperature=0.3), [TemperatureLogitsWarper(0.3)]),
    "top-k": (Sampling(temperature=1.0, top_k=5), [TopKLogitsWarper(5)]),
    "top-p": (Sampling(temperature=1.0, top_p=0.6), [TopPLogitsWarper(0.6)]),
    "min-p": (Sampling(temperature=1.0, min_p=0.2), [MinPLogitsWarper(0.2)]),
    "penalty": (Sampling(temperature=1.0, repetition_penalty=1.4), [RepetitionPenaltyLogitsProcessor(1.4)]),
    "all": (
        Sampling(1.2, 0.7, 20, 0.9, 0.05),
        [
            RepetitionPenaltyLogitsProcessor(1.2),
            TemperatureLogitsWarper(0.7),
            TopKLogitsWarper(20),
            TopPLogitsWarper(0.9),
            MinPLogitsWarper(0.05),
        ],
    ),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", CASES)
def test_equals_transformers(name: str, seed: int):
    how, processors = CASES[name]
    logits = torch.randn(40, generator=torch.Generator().manual_seed(seed)) * 3
    theirs = logits[None].clone()
    for processor in processors:
        theirs = processor(torch.tensor([SEEN]), theirs)
    torch.testing.assert_close(distribution(logits, how, SEEN), theirs[0].softmax(-1), rtol=1e-5, atol=1e-7)


def test_draws_follow_the_distribution():
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -9.0])
    how = Sampling(temperature=0.9, top_p=0.99)
    expected = distribution(logits, how)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.bincount(torch.tensor([pick(logits, how, [], generator) for _ in range(20_000)]), minlength=6)
    kept = expected > 0
    assert drawn[~kept].sum() == 0
    wanted = expected[kept].double()
    assert chisquare(drawn[kept].numpy(), (wanted / wanted.sum() * 20_000).numpy()).pvalue > 0.001


def test_temperature_zero_takes_the_likeliest():
    logits = torch.tensor([0.0, 3.0, 2.9])
    assert pick(logits, Sampling(temperature=0.0), [], torch.Generator()) == 1
    assert distribution(logits, Sampling(temperature=0.0)).tolist() == [0, 1, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_stops(bad: float):
    with pytest.raises(NonFinite):
        distribution(torch.tensor([0.0, bad]), Sampling())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be a number from 0"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, but 1.1"),
        ({"min_p": 2.0}, "min_p must be in"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
    ],
)
def test_numbers_out_of_range_are_named(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Sampling(**options)
