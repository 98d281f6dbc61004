"""Intervals and tests against scipy's, and against what is known of them."""

import numpy as np
import pytest
from scipy import stats

from cutaway.evaluation.significance import figure, mcnemar, paired_p, resampled_sums


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def with_ones(values: np.ndarray) -> np.ndarray:
    return np.stack((values, np.ones(len(values))), axis=1)


@pytest.mark.parametrize("pair", [(0, 0), (1, 0), (3, 12), (40, 40), (400, 470), (20_000, 20_700)])
def test_mcnemar_is_scipys_exact_binomial_test(pair: tuple[int, int]) -> None:
    wanted = stats.binomtest(pair[0], sum(pair), 0.5).pvalue if sum(pair) else 1.0
    assert mcnemar(*pair) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("few", [True, False])
def test_an_interval_is_scipys(few: bool) -> None:
    """Once for values that repeat, which are drawn by how often each comes, and once for values that do not."""
    draw = np.random.default_rng(1)
    values = (draw.random(300) < 0.7).astype(float) if few else draw.lognormal(size=300)
    made = figure(with_ones(values), ratio)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=draw).confidence_interval
    assert made.value == pytest.approx(values.mean())
    width = theirs.high - theirs.low
    assert made.low == pytest.approx(theirs.low, abs=0.1 * width)
    assert made.high == pytest.approx(theirs.high, abs=0.1 * width)


def test_resamples_have_as_many_items_and_are_the_same_each_time() -> None:
    values = with_ones(np.random.default_rng(0).normal(size=500))
    sums = resampled_sums(values, 50)
    assert (sums[:, 1] == 500).all()
    assert np.array_equal(sums, resampled_sums(values, 50))
    assert len(np.unique(sums[:, 0])) == 50


def test_a_difference_is_found_where_there_is_one_and_not_where_there_is_none() -> None:
    """The p value is small for a shift of the mean that a paired t test finds, and no smaller than it may be."""
    draw = np.random.default_rng(3)
    base = draw.normal(size=400)

    def difference(sums: np.ndarray) -> np.ndarray:
        return (sums[..., 1] - sums[..., 0]) / 400

    shifted = np.stack((base, base + draw.normal(0.2, 0.5, size=400)), axis=1)
    assert stats.ttest_rel(*shifted.T).pvalue < 1e-6
    assert paired_p(shifted, difference) == pytest.approx(2 / 2001)
    found = []
    for _ in range(20):
        same = np.stack((base, base + draw.normal(0, 0.5, size=400)), axis=1)
        found.append((paired_p(same, difference), stats.ttest_rel(*same.T).pvalue))
    assert np.abs(np.subtract(*np.transpose(found))).max() < 0.1


def test_a_few_pairs_that_agree_do_not_say_much() -> None:
    def difference(sums: np.ndarray) -> np.ndarray:
        return sums[..., 1] - sums[..., 0]

    for count in (1, 2, 5):
        p = paired_p(np.tile([[1.0, 2.0]], (count, 1)) + np.arange(count)[:, None] * [0.0, 0.1], difference)
        assert p == pytest.approx(2 * 0.5**count)  # of so many coins that fall alike
