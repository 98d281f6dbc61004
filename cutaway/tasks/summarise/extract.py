"""Which sentences say most of a text, without training: the first ones, those near its centre, or those that the others
resemble (TextRank, Mihalcea & Tarau 2004; on vectors of sentences, as LexRank, Erkan & Radev 2004, is on words).

Shapes: S sentences, C channels.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
DAMPING, ROUNDS, CLOSE = 0.85, 200, 1e-10
MOST_SENTENCES = 4000  # that are compared with each other: so many take 128 MB


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


def choose(scores: np.ndarray, vectors: np.ndarray, count: int, redundancy: float) -> list[int]:
    """The best sentences that do not say the same, in the order of the text (MMR, Carbonell & Goldstein 1998).

    Args:
        scores: (S,), higher is better.
        vectors: (S, C), by which they are compared.
        count: how many.
        redundancy: 0 … 1, how much the likeness to a chosen sentence counts against a score.
    """
    spread = float(scores.max() - scores.min())
    worth = (scores - scores.min()) / spread if spread > 0 else np.ones(len(scores))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    chosen: list[int] = []
    nearest = np.zeros(len(scores))
    for _ in range(min(count, len(scores))):
        merit = (1 - redundancy) * worth - redundancy * nearest
        merit[chosen] = -np.inf
        best = int(merit.argmax())  # of equals the first
        chosen.append(best)
        nearest = np.maximum(nearest, unit @ unit[best])
    return sorted(chosen)
