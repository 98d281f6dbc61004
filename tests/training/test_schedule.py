"""The learning rate by step."""

from itertools import pairwise

import pytest

from cutaway.training import lr_scale


def rates(steps: int = 100, **settings) -> list[float]:
    return [lr_scale(step, steps, **settings) for step in range(steps)]


def test_warm_up_is_a_straight_line_that_never_stands_at_zero():
    assert rates(warmup=4, kind="constant")[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_wsd_is_flat_and_then_falls_in_a_straight_line():
    found = rates(warmup=10, cooldown=0.4, final=0.1)
    assert found[10:60] == [1.0] * 50
    falls = [a - b for a, b in pairwise(found[59:])]
    assert falls == pytest.approx([0.9 / 41] * 40)
    assert found[-1] > 0.1  # the share is reached after the last step, so that no step is wasted at zero


def test_cosine_is_half_a_wave():
    found = rates(kind="cosine", final=0.1)
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.55)
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("kind", ["wsd", "cosine", "constant"])
def test_a_run_of_one_step_moves(kind: str):
    assert lr_scale(0, 1, kind=kind, warmup=0) > 0
