"""From probabilities to decisions, all chosen on validation data: thresholds, offsets of labels, when to say nothing.

Shapes: N examples, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

import numpy as np

from cutaway.tasks.task import Answer

ROUNDS = 5  # over all labels, in which offsets are improved one at a time


def best_threshold(chances: np.ndarray, true: np.ndarray, *, precision: float = 0.0, recall: float = 0.0) -> float:
    """From which probability on a label should be said for the best F1 on these examples; 0.5 where none has it.

    Where no threshold is precise enough it is above all of these examples, so that a label that cannot be trusted is
    hardly ever said.

    Args:
        chances: (N,) probabilities of the label.
        true: (N,) 1 where it holds.
        precision: share of those said that must be right.
        recall: share of those that hold that must be said.
    """
    limits, hits, said = _steps(chances, true)
    if not len(hits) or not hits[-1]:
        return 0.5
    good = (hits >= precision * said - 1e-9) & (hits >= recall * hits[-1] - 1e-9)
    if not good.any():
        return float((1 + chances.max()) / 2)
    return float(limits[np.argmax(np.where(good, 2 * hits / (said + hits[-1]), -1.0))])


def _steps(chances: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The thresholds that divide these examples, from above: each with how many true ones are said, and how many.

    A threshold lies halfway to the next example, so that it does not hang on the last digits; ties are said together.
    """
    order = np.argsort(-chances, kind="stable")
    ranked, hits = chances[order], np.cumsum(true[order] > 0.5)
    last = np.r_[np.flatnonzero(np.diff(ranked)), len(ranked) - 1] if len(ranked) else np.zeros(0, int)
    after = np.append(ranked, 0.0)[last + 1]
    return (ranked[last] + after) / 2, hits[last], last + 1


def offsets_for_f1(logits: np.ndarray, targets: np.ndarray) -> list[float]:
    """What to add to the logits of each label so that the answers' macro-F1 is highest on these examples.

    One label at a time, all others held, until none gets better.

    Args:
        logits: (N, L).
        targets: (N,) numbers of labels.
    """
    count = logits.shape[1]
    offsets = np.zeros(count)
    best = _macro_f1(logits.argmax(1), targets, count)
    for _ in range(ROUNDS):
        before = best
        for label in range(count):
            moved = logits + offsets
            others = np.delete(moved, label, axis=1).max(1)
            edges = np.sort(others - logits[:, label])
            rest = np.where(np.arange(count) == label, -np.inf, moved).argmax(1)
            tried = np.unique(np.quantile(edges, np.linspace(0, 1, 201)))
            for value in (tried[:-1] + tried[1:]) / 2:
                said = np.where(logits[:, label] + value > others, label, rest)
                figure = _macro_f1(said, targets, count)
                if figure > best + 1e-9:
                    best, offsets[label] = figure, value
        if best == before:
            break
    return (offsets - offsets.mean()).tolist()


def _macro_f1(said: np.ndarray, true: np.ndarray, count: int) -> float:
    there, guessed = np.bincount(true, minlength=count), np.bincount(said, minlength=count)
    right, seen = np.bincount(true[said == true], minlength=count), there + guessed > 0
    return float((2 * right[seen] / (there + guessed)[seen]).mean())


def least_sure(chances: np.ndarray, right: np.ndarray, wanted: float) -> float:
    """The lowest probability from which on a share of `wanted` of the answers is right; 1 where none gets there.

    Args:
        chances: (N,) of the answers.
        right: (N,) 0 or 1.
        wanted: share, 0 … 1.
    """
    limits, hits, said = _steps(chances, right)
    good = np.flatnonzero(hits >= wanted * said - 1e-9)
    return float(limits[good[-1]]) if len(good) else 1.0


def threshold_of(chances: Sequence[float], offsets: Sequence[float], said: int) -> float:
    """From which probability on a label is said, where offsets choose, and all others stay as likely to each other.

    Args:
        chances: (L,) of the labels.
        offsets: (L,) of their logits.
        said: the number of the label.
    """
    rest = max(1e-300, 1 - chances[said])
    others = (chance / rest * exp(offset) for chance, offset in zip(chances, offsets, strict=True))
    strongest = max(value for number, value in enumerate(others) if number != said)
    return strongest / (strongest + exp(offsets[said]))


def limit_of(answer: Answer, label: str) -> float | None:
    """From which probability on a label was said; None: because it was the likeliest."""
    if "thresholds" in answer.more:
        return answer.more["thresholds"].get(label)
    said = answer.answer if answer.answer is not None else answer.more.get("instead_of")
    return answer.more.get("threshold") if label == said else None


def unlikely(answer: Answer) -> list[tuple[str, float, float]]:
    """The labels that were said though they are less likely than not: each with its probability, and from which on it
    is said.
    """
    said = [answer.answer] if isinstance(answer.answer, str) else answer.answer or ()
    chances = answer.more.get("probabilities", {})
    found = [(label, chances[label], limit_of(answer, label)) for label in said if label in chances] if chances else []
    return [(label, chance, limit) for label, chance, limit in found if limit is not None and chance < 0.5]
