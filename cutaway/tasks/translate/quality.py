"""How good a translation will probably be, from how sure the model was of it: a curve, fitted on validation sentences.

Shapes: N sentences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

STEPS = 50  # of Newton's method, of which it needs few
RIDGE = 1e-3  # keeps the slope finite where every sentence is right, or none


def curve_of(logprobs: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """A logistic curve from a sentence's mean log-probability to how right it is: its slope and its intercept.

    It is the one of highest likelihood, a sentence of chrF 0.7 counting as 0.7 of a success.

    Args:
        logprobs: (N,) mean log-probability of a sentence's tokens, in nats.
        right: (N,) in 0 … 1.
    """
    if len(logprobs) < 2:
        return {}
    given = np.stack([logprobs, np.ones(len(logprobs))], axis=1)
    weights = np.zeros(2)
    for _ in range(STEPS):
        chances = 1 / (1 + np.exp(-(given @ weights).clip(-30, 30)))
        slope = given.T @ (right - chances) - RIDGE * weights
        bend = (given * (chances * (1 - chances))[:, None]).T @ given + RIDGE * np.eye(2)
        step = np.linalg.solve(bend, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return {"slope": float(weights[0]), "intercept": float(weights[1])}


def expected(logprob: float, calibration: Mapping[str, Any]) -> float:
    """The chrF that is to be expected, in 0 … 1; without a curve the geometric mean of the tokens' probabilities."""
    if "slope" not in calibration:
        return math.exp(logprob)
    inside = calibration["slope"] * logprob + calibration["intercept"]
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, inside))))
