"""Figures of labels: accuracy, macro-F1 and F1, each as sums over examples, so that they get intervals and can be
compared in pairs.

Shapes: N examples, L labels, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cutaway.tasks.task import Quantity


def mean_of(name: str, values: np.ndarray) -> Quantity:
    """The mean over examples of one number each, (N,)."""
    columns = np.stack([values.astype(np.float64), np.ones(len(values))], axis=1)
    return Quantity(name, columns, lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1))


def macro_f1(true: np.ndarray, said: np.ndarray, name: str = "macro_f1") -> Quantity:
    """The mean of the labels' F1, as scikit-learn's f1_score(average="macro").

    Args:
        true: (N, L) of 0 and 1.
        said: (N, L) likewise.
        name: of the figure.
    """
    columns = np.concatenate([true, said, true * said], axis=1).astype(np.float64)

    def statistic(sums: np.ndarray) -> np.ndarray:
        there, guessed, right = np.split(sums, 3, axis=1)
        seen = there + guessed > 0
        f1 = 2 * right / np.where(seen, there + guessed, 1)
        return (f1 * seen).sum(1) / np.maximum(seen.sum(1), 1)

    return Quantity(name, columns, statistic)


def micro_f1(there: np.ndarray, said: np.ndarray, right: np.ndarray, name: str = "f1") -> Quantity:
    """F1 over all decisions together, of counts for each example.

    Args:
        there: (N,) how many are true.
        said: (N,) how many were said.
        right: (N,) how many of those are true.
        name: of the figure.
    """
    columns = np.stack([there, said, right], axis=1).astype(np.float64)
    return Quantity(name, columns, lambda sums: 2 * sums[:, 2] / np.maximum(sums[:, 0] + sums[:, 1], 1))


def one_hot(numbers: np.ndarray, count: int) -> np.ndarray:
    """(N,) numbers of labels as (N, L) of 0 and 1; -1 is none of them."""
    made = np.zeros((len(numbers), count))
    rows = np.flatnonzero(numbers >= 0)
    made[rows, numbers[rows]] = 1
    return made


def by_label(
    labels: Sequence[str], true: np.ndarray, said: np.ndarray
) -> tuple[str, list[str], list[list[str | int | float]]]:
    """A table of each label's precision, recall and F1."""
    rows: list[list[str | int | float]] = []
    for number, label in enumerate(labels):
        there, guessed, right = true[:, number].sum(), said[:, number].sum(), (true[:, number] * said[:, number]).sum()
        rows.append(
            [
                label,
                float(right / guessed) if guessed else 0.0,
                float(right / there) if there else 0.0,
                float(2 * right / (there + guessed)) if there + guessed else 0.0,
                int(there),
            ]
        )
    return "By label", ["label", "precision", "recall", "F1", "examples"], rows


def confusion(
    labels: Sequence[str], true: np.ndarray, said: np.ndarray
) -> tuple[str, list[str], list[list[str | int]]]:
    """How often each label (rows) was called what (columns); -1 is no answer.

    Args:
        labels: names.
        true: (N,) int64.
        said: (N,) int64.
    """
    names = [*labels, "(none)"] if (said < 0).any() or (true < 0).any() else list(labels)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (true % len(names), said % len(names)), 1)
    rows = [[name, *counts[number].tolist()] for number, name in enumerate(names) if counts[number].any()]
    return "Confusion: true label by answer", ["", *names], rows
