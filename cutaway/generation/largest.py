"""The few largest of many numbers, without sorting: what choosing the next token out of a large vocabulary needs.

The numbers are laid in columns, and one pass gives each column's maximum. Only columns whose maximum is large can hold
a large number, so the rest is never looked at again. All here is one thread's work on numpy arrays, whose results
depend on nothing but the row.

Shapes: V numbers, K of them.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

ROWS = 64  # numbers in a column
BLOCK = 256  # numbers that are summed at once
FEW = 4096  # of fewer numbers than this a partial sort is quick enough


def largest(values: Float[np.ndarray, " V"], k: int) -> Int[np.ndarray, " K"]:
    """The places of the k largest, ascending; ties with the k-th are all among them, so K >= k (or all V)."""
    if k >= len(values):
        return np.arange(len(values))
    places = None
    if len(values) > FEW:
        tops = _column_maxima(values)
        if k < len(tops):
            places = _columns(values, tops, float(np.partition(tops, len(tops) - k)[len(tops) - k]))
    found = values if places is None else values[places]
    kept = np.flatnonzero(found >= np.partition(found, len(found) - k)[len(found) - k])
    return kept if places is None else np.sort(places[kept])


def at_least(values: Float[np.ndarray, " V"], low: float) -> Int[np.ndarray, " K"]:
    """The places of those that are at least `low`, ascending."""
    if len(values) > FEW:
        places = _columns(values, _column_maxima(values), low)
        if len(places) < len(values) // 4:
            return np.sort(places[values[places] >= low])
    return np.flatnonzero(values >= low)


def reaching(order: Float[np.ndarray, " V"], weights: Float[np.ndarray, " V"], share: float) -> Int[np.ndarray, " K"]:
    """The fewest places, largest in `order` first, that have this share of all weights; ties with the last are kept."""
    goal = share * float(weights.sum())
    for count in (64, 512, 4096):
        if 8 * count > len(order):
            break
        places = largest(order, count)
        found = order[places]
        downwards = np.argsort(-found, kind="stable")
        sums = weights[places[downwards]].cumsum(dtype=np.float64)
        last = int(sums.searchsorted(goal))
        if last < len(places):
            return places[found >= found[downwards[last]]]
    # a flat distribution; sorting numbers is several times quicker than sorting places
    if order is weights:
        downwards = np.sort(weights)[::-1].copy()
        low = downwards[running(downwards, share, "left")]
    else:
        places = np.argsort(order)[::-1]
        low = order[places[running(weights[places], share, "left")]]
    return np.flatnonzero(order >= low)


def running(weights: Float[np.ndarray, " V"], share: float, side: Literal["left", "right"]) -> int:
    """The place where the running sum of weights (0 and more) reaches a share of the whole, or on the right exceeds it.

    Blocks are summed first, so that one block is all that is summed up one by one.
    """
    start, goal = 0, None
    if len(weights) > FEW:
        count = len(weights) // BLOCK
        blocks = np.einsum("ij->i", weights[: BLOCK * count].reshape(count, BLOCK))
        sums = np.append(blocks, weights[BLOCK * count :].sum()).cumsum(dtype=np.float64)
        goal = share * float(sums[-1])
        block = _place(sums, goal, side)
        start, goal = BLOCK * block, goal - (float(sums[block - 1]) if block else 0.0)
        weights = weights[start : start + BLOCK] if block < count else weights[start:]
    sums = weights.cumsum(dtype=np.float64)
    return start + _place(sums, share * float(sums[-1]) if goal is None else goal, side)


def _place(sums: Float[np.ndarray, " V"], goal: float, side: Literal["left", "right"]) -> int:
    """Where the goal is reached; where rounding has put it above all sums, the last place that adds something."""
    place = int(sums.searchsorted(goal, side))
    return place if place < len(sums) else int(sums.searchsorted(sums[-1]))


def _column_maxima(values: Float[np.ndarray, " V"]) -> Float[np.ndarray, " N"]:
    width = len(values) // ROWS
    return np.maximum.reduce(values[: ROWS * width].reshape(ROWS, width), axis=0)


def _columns(values: Float[np.ndarray, " V"], tops: Float[np.ndarray, " N"], low: float) -> Int[np.ndarray, " K"]:
    """The places of every column whose maximum is at least `low`, and of what is in no column."""
    width = len(tops)
    places = np.arange(0, ROWS * width, width)[:, None] + np.flatnonzero(tops >= low)  # (ROWS, columns)
    return np.concatenate([places.ravel(), np.arange(ROWS * width, len(values))])
