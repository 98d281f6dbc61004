"""How sure an answer is, and when to say that there is none; both learned from validation examples.

Shapes: N examples.
"""

from __future__ import annotations

import numpy as np

MOST = 60.0  # nats; more is as sure as can be


def sure(score: float, rest: np.ndarray) -> float:
    """By how many nats a choice is likelier than all the others together, at most MOST.

    Args:
        score: of the choice.
        rest: (N,) of the others.
    """
    if not len(rest):
        return MOST
    top = float(rest.max())
    return float(np.clip(score - top - np.log(np.exp(rest - top).sum()), -MOST, MOST))


def best_none(gaps: np.ndarray, best: np.ndarray, silent: np.ndarray) -> float:
    """From which lead of "no answer" over the best one on it should be said, for the best figure on these examples.

    Args:
        gaps: (N,) the lead.
        best: (N,) how right the best answer is.
        silent: (N,) how right "no answer" is.
    """
    order = np.argsort(-gaps, kind="stable")
    finite = gaps[order]
    # with the first k of them silent
    figures = np.r_[0.0, np.cumsum((silent - best)[order])]
    last = np.r_[True, np.r_[finite[1:] != finite[:-1], True]] if len(finite) else np.array([True])  # ties go together
    count = int(np.argmax(np.where(last, figures, -np.inf)))
    if count == 0:
        return float(finite[0]) if len(finite) and np.isfinite(finite[0]) else 0.0
    after = finite[count] if count < len(finite) else finite[count - 1] - 2.0
    return float((finite[count - 1] + after) / 2) if np.isfinite(finite[count - 1]) else float(after)


def logistic(margins: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Scale and shift that make a probability of a margin, by its likelihood (Platt 1999, with his soft targets).

    Args:
        margins: (N,) nats.
        right: (N,) 0 or 1.
    """
    if not len(margins):
        return 1.0, 0.0
    yes, no = float(right.sum()), float(len(right) - right.sum())
    targets = np.where(right > 0.5, (yes + 1) / (yes + 2), 1 / (no + 2))
    x = np.stack([margins, np.ones(len(margins))], axis=1)
    weights = np.zeros(2)
    for _ in range(100):  # Newton's steps with a little ridge; the likelihood is concave
        chances = 1 / (1 + np.exp(-np.clip(x @ weights, -MOST, MOST)))
        slope = x.T @ (targets - chances) - 1e-3 * weights
        curve = (x * (chances * (1 - chances))[:, None]).T @ x + 1e-3 * np.eye(2)
        move = np.linalg.solve(curve, slope)
        weights = weights + move * min(1.0, 2.0 / max(1e-12, np.abs(move).max()))
        if np.abs(move).max() < 1e-8:
            break
    return float(weights[0]), float(weights[1])
