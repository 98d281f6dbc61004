"""How sure is sure: one temperature that makes probabilities match how often answers are right (Guo et al. 2017).

Shapes: N examples, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

LEAST, MOST = 0.05, 20.0


def temperature_of(logits: Tensor, targets: Tensor, *, several: bool = False) -> float:
    """What to divide logits by so that their log-likelihood is highest, by golden-section search on its logarithm.

    Beforehand the logarithm is normal around 0: with a hundred examples that is not felt, and with four that are all
    right it keeps the answers from being called certain.

    Args:
        logits: (N, L) float.
        targets: (N,) int64, or with `several` (N, L) in 0 … 1.
        several: each label is asked by itself.
    """

    def loss(log_t: float) -> float:
        scaled, beforehand = logits.double() / np.exp(log_t), log_t**2 / 2
        if several:
            return float(F.binary_cross_entropy_with_logits(scaled, targets.double(), reduction="sum")) + beforehand
        return float(F.cross_entropy(scaled, targets, reduction="sum")) + beforehand

    low, high, ratio = np.log(LEAST), np.log(MOST), (np.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    loss_a, loss_b = loss(a), loss(b)
    for _ in range(40):  # the interval shrinks to a millionth of a per cent
        if loss_a < loss_b:
            high, b, loss_b = b, a, loss_a
            a = high - ratio * (high - low)
            loss_a = loss(a)
        else:
            low, a, loss_a = a, b, loss_b
            b = low + ratio * (high - low)
            loss_b = loss(b)
    return float(np.exp((low + high) / 2))


def calibration_error(probabilities: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """The expected calibration error (Naeini et al. 2015): mean gap between how sure and how often right, in bins.

    Args:
        probabilities: (N,) of the answers given.
        right: (N,) 0 or 1.
        bins: of equal width.
    """
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    gaps = np.abs(np.bincount(place, probabilities, bins) - np.bincount(place, right, bins))
    return float(gaps.sum() / max(1, counts.sum()))


def calibration_curve(probabilities: np.ndarray, right: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """Of each bin that holds any: how sure on average, how often right, and how many."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    return [
        (float(probabilities[place == b].mean()), float(right[place == b].mean()), int((place == b).sum()))
        for b in range(bins)
        if (place == b).any()
    ]


def sureness_of(found: Sequence[tuple[float, bool]]) -> list[float]:
    """How to move probabilities so that they match how often they are right: slope and shift of the logit (Platt 1999).

    Args:
        found: a probability, and whether what it is of was right. With few of them it stays near what was given.

    Returns:
        The slope, not below 0, and the shift, for `sureness`.
    """
    if not found:
        return [1.0, 0.0]
    x = np.array([_logit(chance) for chance, _ in found])
    y = np.array([right for _, right in found], float)
    inputs, prior = np.stack([x, np.ones_like(x)], axis=1), np.array([1.0, 0.0])
    weights = prior.copy()
    for _ in range(50):  # Newton's method; the prior's pull makes it convex with one minimum
        p = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (p - y) + (weights - prior)
        bend = (inputs * (p * (1 - p))[:, None]).T @ inputs + np.eye(2)
        weights -= np.linalg.solve(bend, slope)
    return [max(0.0, float(weights[0])), float(weights[1])]


def sureness(probability: float, moved: Sequence[float] | None) -> float:
    """A probability as validation examples have taught to read it (see `sureness_of`)."""
    slope, shift = moved or (1.0, 0.0)
    return float(1 / (1 + np.exp(-(slope * _logit(probability) + shift))))


def _logit(probability: float) -> float:
    p = min(max(probability, 1e-9), 1 - 1e-9)
    return float(np.log(p) - np.log1p(-p))
