"""How sure a figure is, and whether two models differ: the bootstrap and McNemar's test.

Shapes: N items, K columns, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES, SEED, SHARE = 2000, 0, 0.95
DRAWN = 2**22  # numbers of items that are drawn at a time
FEW = 4096  # different rows, up to which they are drawn by how often each comes

Statistic = Callable[[np.ndarray], np.ndarray]  # (R, K) sums over items -> (R,)


@dataclass(frozen=True)
class Figure:
    """A number, and where it would lie with other items of the same kind.

    Attributes:
        value: measured.
        low: of its 95 % interval (bootstrap over items, percentiles).
        high: the same.
    """

    value: float
    low: float
    high: float


def figure(columns: np.ndarray, statistic: Statistic) -> Figure:
    """A figure with its interval.

    Args:
        columns: (N, K) float64, what each item adds.
        statistic: makes figures of sums over items.
    """
    drawn = statistic(resampled_sums(columns))
    low, high = np.quantile(drawn, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Figure(float(statistic(columns.sum(0)[None])[0]), float(low), float(high))


def paired_p(columns: np.ndarray, statistic: Statistic) -> float:
    """The two-sided p value of a difference that the statistic makes of pairs' sums, by the paired bootstrap.

    Twice the share of resamples in which the difference has the other sign, or is none (Koehn 2004). Resamples of a few
    items that agree all agree; what N pairs can say at the most is what N coins can, 2^(1 - N).

    Args:
        columns: (N, K) float64, what each item adds with one model, and with the other.
        statistic: makes differences of sums over items.
    """
    drawn = statistic(resampled_sums(columns))
    below, above = np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0)
    return min(1.0, max(2 * (min(below, above) + 1) / (len(drawn) + 1), 2.0 ** (1 - len(columns))))


def resampled_sums(columns: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """(R, K) sums of N items drawn from N with replacement, the same ones for the same number of items and seed.

    Args:
        columns: (N, K) float64.
        resamples: R.
        seed: of the draws.
    """
    draw = np.random.default_rng(seed)
    count = len(columns)
    kinds, times = np.unique(columns, axis=0, return_counts=True)
    if len(kinds) <= FEW:  # how often each kind is drawn is all that matters
        return draw.multinomial(count, times / count, size=resamples) @ kinds
    made = np.empty((resamples, columns.shape[1]))
    step = max(1, DRAWN // count)
    for begin in range(0, resamples, step):
        chosen = draw.integers(0, count, size=(min(step, resamples - begin), count))
        made[begin : begin + len(chosen)] = columns[chosen].sum(1)
    return made


def mcnemar(first_only: int, second_only: int) -> float:
    """The exact two-sided p value of McNemar's test: a fair coin for each item that one model alone has right.

    Args:
        first_only: items that the first model has right and the second wrong.
        second_only: the other way round.
    """
    count, few = first_only + second_only, min(first_only, second_only)
    whole = math.lgamma(count + 1) - count * math.log(2)
    logs = np.array([whole - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(few + 1)])
    return min(1.0, 2 * float(np.exp(logs).sum()))
