"""Thresholds, offsets and abstention against the slow way: every choice tried."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from cutaway.tasks.decide import best_threshold, least_sure, offsets_for_f1


@pytest.fixture(params=range(20))
def chances_and_truth(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Noisy probabilities, with ties, of labels that are rarer or more common."""
    draw = np.random.default_rng(request.param)
    true = (draw.random(60) < draw.uniform(0.1, 0.7)).astype(float)
    true[0] = 1.0
    return np.round(np.clip(0.3 * true + draw.random(60) * 0.7, 0, 1), 2), true


def every_threshold(chances: np.ndarray) -> list[float]:
    values = np.unique(chances)
    return [*((values[:-1] + values[1:]) / 2), 0.0]


def test_the_best_threshold_has_the_best_f1(chances_and_truth):
    chances, true = chances_and_truth
    best = max(f1_score(true, chances >= limit) for limit in every_threshold(chances))
    assert f1_score(true, chances >= best_threshold(chances, true)) == pytest.approx(best)


def test_a_precise_threshold_has_the_best_f1_of_those_that_are_right_often_enough(chances_and_truth):
    chances, true = chances_and_truth
    found = best_threshold(chances, true, precision=0.75)
    good = [limit for limit in every_threshold(chances) if precision_score(true, chances >= limit) >= 0.75]
    if good:
        assert f1_score(true, chances >= found) == max(f1_score(true, chances >= limit) for limit in good)
        assert precision_score(true, chances >= found) >= 0.75
    else:
        assert found > chances.max()


def test_a_complete_threshold_has_the_best_f1_of_those_that_miss_few_enough(chances_and_truth):
    chances, true = chances_and_truth
    found = best_threshold(chances, true, recall=0.75)
    good = [limit for limit in every_threshold(chances) if recall_score(true, chances >= limit) >= 0.75]
    assert f1_score(true, chances >= found) == max(f1_score(true, chances >= limit) for limit in good)
    assert recall_score(true, chances >= found) >= 0.75


@pytest.mark.parametrize("reach", [{}, {"precision": 0.9}, {"recall": 0.9}])
def test_a_label_that_no_example_has_is_said_from_a_half_on(reach):
    assert best_threshold(np.array([0.1, 0.9, 0.2]), np.zeros(3), **reach) == 0.5


def test_abstention_answers_as_many_as_it_can(chances_and_truth):
    chances, right = chances_and_truth
    limit = least_sure(chances, right, 0.8)
    shares = {one: right[chances >= one].mean() for one in every_threshold(chances)}
    good = [one for one, share in shares.items() if share >= 0.8]
    if good:
        assert (chances >= limit).sum() == max((chances >= one).sum() for one in good)
        assert right[chances >= limit].mean() >= 0.8
    else:
        assert limit == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_offsets_of_two_labels_are_as_good_as_any(seed: int):
    draw = np.random.default_rng(seed)
    true = (draw.random(150) < 0.15).astype(int)
    logits = draw.normal(size=(150, 2)) + np.stack([1.5 - true, 1.2 * true - 1], axis=1)
    offsets = np.array(offsets_for_f1(logits, true))
    found = f1_score(true, (logits + offsets).argmax(1), average="macro")
    edges = np.sort(logits[:, 0] - logits[:, 1])
    every = [f1_score(true, logits[:, 1] + edge + 1e-9 > logits[:, 0], average="macro") for edge in edges]
    assert found == pytest.approx(max(every), abs=0.005)  # it tries 200 of them
    assert found >= f1_score(true, logits.argmax(1), average="macro")
