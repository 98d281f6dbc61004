"""Which sentences say most of a text, without training: the first ones, those near its centre, or those that the others
resemble (TextRank, Mihalcea & Tarau 2004; on vectors of sentences, as LexRank, Erkan & Radev 2004, is on words).

Shapes: S sentences, C channels.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
DAMPING, ROUNDS, CLOSE = 0.85, 200, 1e-10
AT_ONCE = 1000  # sentences that are compared with each other; a longer text is ranked in parts of about as many
CANDIDATES = 100  # the best sentences, among which those are looked for that do not say the same


def word_vectors(sentences: Sequence[str]) -> np.ndarray:
    """Vectors of sentences by their words (Chinese: pairs of characters), weighed by rarity among them, (S, C) of
    length 1 (or 0, of one without any word)."""
    bags = [Counter(units(sentence)) for sentence in sentences]
    spread = Counter(word for bag in bags for word in bag)
    words = {word: number for number, word in enumerate(spread)}
    made = np.zeros((len(sentences), max(1, len(words))), np.float32)
    for row, bag in zip(made, bags, strict=True):
        for word, count in bag.items():
            row[words[word]] = (1 + math.log(count)) * math.log(1 + len(sentences) / spread[word])
    return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)


def units(text: str) -> list[str]:
    """Words in lower case; of Chinese the overlapping pairs of characters, and a character that stands alone."""
    found: list[str] = []
    for match in re.finditer(rf"[{ALONE}]+|(?:(?![{ALONE}])[^\W_])+", text.lower()):
        run = match[0]
        alone = re.match(rf"[{ALONE}]", run)
        found += [run[n : n + 2] for n in range(len(run) - 1)] if alone and len(run) > 1 else [run]
    return found


def prior(count: int, weight: float) -> np.ndarray:
    """How much is expected of each sentence for its place alone, (S,), their sum 1; weight 0: the same of all."""
    made = (1 + np.arange(count)) ** -float(weight)
    return made / made.sum()


def centroid(vectors: np.ndarray) -> np.ndarray:
    """How near each sentence is to the mean of all (Radev et al. 2004), (S,) cosines."""
    middle = vectors.mean(0)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(middle)
    return vectors @ middle / np.maximum(lengths, 1e-12)


def links(vectors: np.ndarray) -> np.ndarray:
    """(S, S) float64: how much of each sentence's weight (row) goes to each other one, by their cosine above 0; a
    sentence that resembles none gives to all alike."""
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    alike = np.maximum(vectors @ vectors.T, 0).astype(np.float64)
    np.fill_diagonal(alike, 0)
    sums = alike.sum(1, keepdims=True)
    return np.where(sums > 1e-12, alike / np.maximum(sums, 1e-12), 1 / len(alike))


def textrank(vectors: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The share of time that a reader spends in each sentence who goes on to a similar one, or, in 15 of 100 cases,
    begins anew, (S,) of sum 1 (PageRank by power iteration).

    Args:
        vectors: (S, C).
        start: (S,) of sum 1, where the reader begins.
    """
    ways, rank = links(vectors), start.astype(np.float64)
    for _ in range(ROUNDS):
        after = DAMPING * rank @ ways + (1 - DAMPING) * start
        if np.abs(after - rank).sum() < CLOSE:
            return after
        rank = after
    return rank


def parts(count: int) -> list[tuple[int, int]]:
    """Stretches of sentences that are ranked at a time, about equally long."""
    pieces = max(1, -(-count // AT_ONCE))
    bounds = [round(n * count / pieces) for n in range(pieces + 1)]
    return list(pairwise(bounds))


def choose(
    scores: np.ndarray, vectors_of: Callable[[list[int]], np.ndarray], count: int, redundancy: float
) -> list[int]:
    """The best sentences that do not say the same, in the order of the text (MMR, Carbonell & Goldstein 1998).

    Args:
        scores: (S,), higher is better.
        vectors_of: of these sentences, (K, C), by which they are compared.
        count: how many.
        redundancy: 0 … 1, how much the likeness to a chosen sentence counts against a score.
    """
    best = np.argsort(-scores, kind="stable")[: max(CANDIDATES, 10 * count)]  # of equals the first
    if count == 1 or redundancy == 0 or len(best) == 1:
        return sorted(best[:count].tolist())
    worth = scores[best] - scores[best].min()
    worth = worth / worth.max() if worth.max() > 0 else np.ones(len(best))
    vectors = vectors_of(best.tolist())
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    chosen: list[int] = []
    nearest = np.zeros(len(best))
    for _ in range(min(count, len(best))):
        merit = (1 - redundancy) * worth - redundancy * nearest
        merit[chosen] = -np.inf
        chosen.append(int(merit.argmax()))
        nearest = np.maximum(nearest, unit @ unit[chosen[-1]])
    return sorted(best[chosen].tolist())
