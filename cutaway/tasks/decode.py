"""From scores of tags to spans: the likeliest tags of which each may follow the one before, and how likely a span is.

Tags are numbered as in `text.tags`. Every tag but I may follow any other, and I-X only B-X and I-X. Without that, words
are independent, so what is likeliest (Viterbi 1967) and how likely it is (forward and backward sums, Rabiner 1989) take
a few numbers a word.

Shapes: W words, L tags, K types, S spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64

from cutaway.text.tags import spans_of

LEAST = 1e-30  # a probability is at least this, so that no sum of all is zero


def best_tags(scores: Float64[np.ndarray, "W L"]) -> Int64[np.ndarray, " W"]:
    """The tags with the highest sum of scores of which each may follow the one before, (W,) int64."""
    plain = scores.argmax(1)
    inside = (plain > 0) & (plain % 2 == 0)
    kind = (plain + 1) // 2
    if not (inside & (kind != np.r_[0, kind[:-1]])).any():  # then nothing better can be
        return plain
    count, tags = scores.shape
    best = scores[0].copy()
    best[2::2] = -np.inf
    came = np.zeros((count, tags), np.int64)
    for word in range(1, count):
        top = int(best.argmax())
        came[word] = top
        grown = best[top] + scores[word]
        begins, goes_on = best[1::2], best[2::2]
        came[word, 2::2] = np.where(begins >= goes_on, np.arange(1, tags, 2), np.arange(2, tags, 2))
        grown[2::2] = np.maximum(begins, goes_on) + scores[word, 2::2]
        best = grown
    made = np.empty(count, np.int64)
    made[-1] = best.argmax()
    for word in range(count - 1, 0, -1):
        made[word - 1] = came[word, made[word]]
    return made


def chances_of(
    logits: Float64[np.ndarray, "W L"], tags: Int64[np.ndarray, " W"]
) -> tuple[Int64[np.ndarray, "S 3"], Float64[np.ndarray, " S"], float]:
    """The spans of tags, the probability of each (its type and both ends), and that of all tags together.

    Args:
        logits: of the tags of each word, after any temperature.
        tags: each of which may follow the one before.
    """
    count = len(tags)
    spans = spans_of(tags)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p = np.maximum(p / p.sum(1, keepdims=True), LEAST)
    scale = _before(p)
    each = np.log(p[np.arange(count), tags]) - np.log(scale)
    leaves = _after(p, scale) if len(spans) else scale
    sure = [np.exp(each[first:last].sum()) * leaves[last - 1] for first, last, _ in spans.tolist()]
    return spans, np.minimum(np.array(sure), 1.0), min(1.0, float(np.exp(each.sum())))


def _before(p: Float64[np.ndarray, "W L"]) -> Float64[np.ndarray, " W"]:
    """How likely each word's tags are, given that those before it were allowed: forward sums, (W,)."""
    scale = np.empty(len(p))
    inside = np.zeros((p.shape[1] - 1) // 2)  # of B and I of each type, at the word before
    for word, row in enumerate(p):
        begins, goes_on = row[1::2], row[2::2] * inside
        scale[word] = row[0] + begins.sum() + goes_on.sum()
        inside = (begins + goes_on) / scale[word]
    return scale


def _after(p: Float64[np.ndarray, "W L"], scale: Float64[np.ndarray, " W"]) -> Float64[np.ndarray, " W"]:
    """How much likelier what comes after each word is for its span ending with it: backward sums, (W,)."""
    after, leaves = np.ones((len(p), (p.shape[1] - 1) // 2)), np.ones(len(p))  # of B and I of each type (W, K)
    for word in range(len(p) - 2, -1, -1):
        row = p[word + 1]
        leaves[word] = (row[0] * leaves[word + 1] + (row[1::2] * after[word + 1]).sum()) / scale[word + 1]
        after[word] = leaves[word] + row[2::2] * after[word + 1] / scale[word + 1]
    return leaves


def windows_of(first: Sequence[bool], room: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """How a text is read by windows, each piece of it kept from where it has most around it.

    Args:
        first: of each piece whether a word begins at it; windows begin there where they can.
        room: pieces of a window at the most.
        overlap: pieces that a window shares with the one before, about.

    Returns:
        Of each window its first piece and behind its last, and the first and behind the last that are kept of it.
    """
    count = len(first)
    bounds = [(0, min(room, count))]
    while bounds[-1][1] < count:
        begin, end = bounds[-1]
        start = end - overlap
        earliest = max(begin + 1, start - overlap)  # a word that is longer is cut
        while start > earliest and not first[start]:
            start -= 1
        bounds.append((start, min(start + room, count)))
    kept = [0, *((begin + end) // 2 for (_, end), (begin, _) in pairwise(bounds)), count]
    return [(begin, end, kept[i], kept[i + 1]) for i, (begin, end) in enumerate(bounds)]
