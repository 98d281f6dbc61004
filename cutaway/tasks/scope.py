"""What is none of the known labels: told from the logits, learned from validation data.

Where these have texts out of scope, a logistic regression on a few signs says how likely one is, for the share of them
that is expected in use; where they have none, a text is out of scope that is less like the known ones than nearly all.

Shapes: N examples, L labels, K signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

KEPT = 0.95  # share of the known texts that stay in scope, where none that is out of it is known


def fit_scope(
    logits: np.ndarray, targets: np.ndarray, inside: np.ndarray, place: int | None, share: float = 0.0
) -> dict[str, Any]:
    """How texts out of scope are told.

    Args:
        logits: (N, L), scaled.
        targets: (N,) numbers of labels.
        inside: (N,) bool, whether a text is in scope.
        place: the number of the label that means none; None: the network has none.
        share: of texts out of scope where it is used; 0: as it is here.

    Returns:
        Plain data for `scope_of`.
    """
    signs = scope_signs(logits, place)
    if inside.all():
        slopes = [-1.0, *[0.0] * (signs.shape[1] - 1)]
        return {"signs": slopes, "bias": 0.0, "limit": float(np.quantile(-signs[:, 0], KEPT)), "known": False}
    share = share or float((~inside).mean())
    weights = np.where(inside, (1 - share) / max(1, inside.sum()), share / (~inside).sum()) * len(inside)
    slopes, bias = logistic(signs, (~inside).astype(float), weights)
    others = logits.copy()
    if place is not None:
        others[:, place] = -np.inf
    right = inside & (others.argmax(1) == targets)
    chances = 1 / (1 + np.exp(-(signs @ np.array(slopes) + bias)))
    limit = scope_threshold(chances, right, ~inside, weights)
    return {"signs": slopes, "bias": bias, "limit": limit, "known": True}


def scope_of(logits: np.ndarray, place: int | None, scope: Mapping[str, Any]) -> tuple[bool, float | None, float]:
    """Whether a text is out of scope, how likely that is (None where that cannot be known), and how unlike it is.

    Args:
        logits: (L,), scaled.
        place: as in `fit_scope`.
        scope: what that gave.
    """
    unlike = float(scope_signs(logits[None], place)[0] @ np.array(scope["signs"])) + scope["bias"]
    if not scope["known"]:
        return unlike > scope["limit"], None, unlike
    chance = float(1 / (1 + np.exp(-np.clip(unlike, -500, 500))))
    return chance >= scope["limit"], chance, unlike


def scope_signs(logits: np.ndarray, outside: int | None) -> np.ndarray:
    """What tells a text of no known label, (N, 2 or 3).

    The largest logit of the known labels; by how much their log-sum-exp (the "energy", Liu et al. 2020) exceeds it,
    which is how unsure the network is between them; and by how much the label of those that are none exceeds both.

    Args:
        logits: (N, L).
        outside: the number of the label of those that are none; None: the network has none.
    """
    inside = logits if outside is None else np.delete(logits, outside, axis=1)
    top = inside.max(1)
    energy = top + np.log(np.exp(inside - top[:, None]).sum(1))
    signs = [top, energy - top] if outside is None else [top, energy - top, logits[:, outside] - energy]
    return np.stack(signs, axis=1)


def logistic(signs: np.ndarray, true: np.ndarray, weights: np.ndarray) -> tuple[list[float], float]:
    """A logistic regression by Newton's method with a slight prior: a weight for each sign, and a bias.

    Args:
        signs: (N, K).
        true: (N,) 0 or 1.
        weights: (N,) of the examples.
    """
    spread = signs.std(0) + 1e-9
    x = np.concatenate([signs / spread, np.ones((len(signs), 1))], axis=1)
    found = np.zeros(x.shape[1])
    prior = np.r_[np.full(signs.shape[1], 1e-2), 1e-6]
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ found, -30, 30)))
        slope = x.T @ (weights * (true - p)) - prior * found
        curve = (x * (weights * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ x + np.diag(prior)
        move = np.linalg.solve(curve, slope)
        found += move * min(1.0, 5 / max(1e-12, np.abs(move).max()))
        if np.abs(move).max() < 1e-9:
            break
    return (found[:-1] / spread).tolist(), float(found[-1])


def scope_threshold(chances: np.ndarray, right: np.ndarray, outside: np.ndarray, weights: np.ndarray) -> float:
    """From which probability of being out of scope on a text should be called so: the most weight is right then.

    Args:
        chances: (N,) of being out of scope.
        right: (N,) 1 where the answer would be right if it were in scope.
        outside: (N,) 1 where it is out of scope.
        weights: (N,) of the examples.
    """
    order = np.argsort(-chances, kind="stable")
    gain = np.cumsum((weights * (outside.astype(float) - right))[order])
    ranked = chances[order]
    last = np.r_[np.flatnonzero(np.diff(ranked)), len(ranked) - 1]
    place = last[np.argmax(gain[last])]
    if gain[place] <= 0:
        return float((1 + ranked[0]) / 2)
    return float((ranked[place] + (ranked[place + 1] if place + 1 < len(ranked) else 0.0)) / 2)
