"""What is none of the known labels: a toy where it must be told, and thresholds against every choice."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cutaway.tasks.scope import fit_scope, logistic, scope_of, scope_threshold


def logits_of(seed: int, count: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three known labels; a fifth of the texts is of none and has small logits."""
    draw = np.random.default_rng(seed)
    targets, outside = draw.integers(0, 3, count), draw.random(count) < 0.2
    logits = draw.normal(size=(count, 3))
    logits[~outside, targets[~outside]] += 5
    return logits, targets, outside


def test_a_logistic_regression_is_scikit_learns():
    logits, _, outside = logits_of(0)
    slopes, bias = logistic(logits, outside.astype(float), np.ones(len(logits)))
    scaled = logits / logits.std(0)  # the prior is of signs of one spread
    peer = LogisticRegression(C=100.0, tol=1e-10, max_iter=10_000).fit(scaled, outside)
    ours = 1 / (1 + np.exp(-(logits @ np.array(slopes) + bias)))
    assert ours == pytest.approx(peer.predict_proba(scaled)[:, 1], abs=1e-4)


@pytest.mark.parametrize("seed", range(10))
def test_the_threshold_is_right_most_often(seed: int):
    draw = np.random.default_rng(seed)
    outside, weights = draw.random(80) < 0.3, draw.random(80)
    right = (draw.random(80) < 0.8) & ~outside
    chances = np.round(0.3 * outside + 0.7 * draw.random(80), 2)
    limit = scope_threshold(chances, right, outside, weights)

    def weight(limit: float) -> float:
        said = chances >= limit
        return float(weights[(said & outside) | (~said & right)].sum())

    assert weight(limit) == pytest.approx(max(weight(one) for one in [*np.unique(chances), 2.0]))


def test_texts_of_no_label_are_told_where_some_are_known():
    logits, targets, outside = logits_of(1)
    scope = fit_scope(logits, targets, ~outside, None)
    fresh, _, truth = logits_of(2)
    said = [scope_of(row, None, scope) for row in fresh]
    assert np.mean([out == true for (out, _, _), true in zip(said, truth, strict=True)]) > 0.95
    sure = np.array([chance for _, chance, _ in said])
    assert abs(sure.mean() - truth.mean()) < 0.03  # and how likely it is, is true


def test_a_larger_share_in_use_finds_more_of_them():
    logits, targets, outside = logits_of(3)
    logits[~outside] -= 2.5 * np.eye(3)[targets[~outside]]  # harder to tell
    found = []
    for share in (0.02, 0.2, 0.8):
        scope = fit_scope(logits, targets, ~outside, None, share)
        found.append(np.mean([scope_of(row, None, scope)[0] for row in logits[outside]]))
    assert found[0] < found[1] < found[2]


def test_without_any_example_the_known_texts_stay_in_scope():
    logits, targets, outside = logits_of(4, 2000)
    known = logits[~outside]
    scope = fit_scope(known, targets[~outside], np.ones(len(known), bool), None)
    said = [scope_of(row, None, scope) for row in logits]
    assert np.mean([out for (out, _, _), one in zip(said, outside, strict=True) if not one]) == pytest.approx(
        0.05, abs=0.01
    )
    assert np.mean([out for (out, _, _), one in zip(said, outside, strict=True) if one]) > 0.8
    assert all(chance is None for _, chance, _ in said)  # how likely it is cannot be known


def test_the_networks_own_label_for_them_counts():
    logits, targets, outside = logits_of(5)
    logits = np.concatenate([logits, 4.0 * outside[:, None] + np.random.default_rng(0).normal(size=(300, 1))], axis=1)
    scope = fit_scope(logits, np.where(outside, 3, targets), ~outside, 3)
    assert np.mean([scope_of(row, 3, scope)[0] == true for row, true in zip(logits, outside, strict=True)]) > 0.97
