"""BLEU and chrF as sacrebleu computes them, in counts that add up over sentences, so that they get intervals and can be
compared in pairs.

A corpus' figure is made of sums over its sentences: counts of n-grams and lengths. sacrebleu's own tokenisers cut the
texts; the figures are its `corpus_bleu` and `corpus_chrf` of one reference (Papineni et al. 2002; Post 2018; Popović
2015).

Shapes: N sentences, R resamples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from cutaway.errors import need
from cutaway.tasks.task import Quantity

ORDER, LETTERS = 4, 6  # longest n-grams of words (BLEU) and of letters (chrF)
BETA = 2.0  # how much more recall weighs in chrF


def bleu(said: Sequence[str], true: Sequence[str], tokenize: str, name: str = "bleu") -> Quantity:
    """BLEU, in 0 … 100.

    Args:
        said: (N,) translations.
        true: (N,) references.
        tokenize: sacrebleu's name of a tokeniser: "13a", "zh" …
        name: of the figure.

    Raises:
        MissingExtra: sacrebleu is not installed.
    """
    cut = _metric("BLEU", tokenize=tokenize).tokenizer
    columns = np.zeros((len(said), 2 + 2 * ORDER))
    for row, one, other in zip(columns, said, true, strict=True):
        words, reference = cut(one.rstrip()).split(), cut(other.rstrip()).split()
        row[:2] = len(words), len(reference)
        for n in range(1, ORDER + 1):
            found, there = _ngrams(words, n), _ngrams(reference, n)
            row[1 + n] = sum(min(count, there[gram]) for gram, count in found.items())
            row[1 + ORDER + n] = max(0, len(words) - n + 1)
    return Quantity(name, columns, bleu_of)


def bleu_of(sums: np.ndarray) -> np.ndarray:
    """BLEU of sums of counts, (R, 10) -> (R,): lengths of both, right n-grams, all n-grams."""
    said, true = sums[:, 0], sums[:, 1]
    right, every = sums[:, 2 : 2 + ORDER], sums[:, 2 + ORDER :]
    # an order of which nothing is right counts as half a hit, the next one as a quarter … (NIST's smoothing)
    halves = 2.0 ** np.cumsum(right == 0, axis=1)
    there = np.maximum(every, 1)
    precision = np.where(right > 0, right / there, 1 / (halves * there))
    mean = np.exp(np.log(precision).mean(1))
    with np.errstate(over="ignore"):
        brevity = np.where(said < true, np.exp(1 - true / np.maximum(said, 1e-9)), 1.0)
    return 100 * brevity * mean * ((right > 0).any(1) & (every > 0).all(1))


def chrf(said: Sequence[str], true: Sequence[str], name: str = "chrf") -> Quantity:
    """ChrF, in 0 … 100.

    Args:
        said: (N,) translations.
        true: (N,) references.
        name: of the figure.
    """
    columns = np.zeros((len(said), 3 * LETTERS))
    for row, one, other in zip(columns, said, true, strict=True):
        letters, reference = "".join(one.split()), "".join(other.split())
        for n in range(1, LETTERS + 1):
            found, there = _ngrams(letters, n), _ngrams(reference, n)
            row[3 * n - 3 : 3 * n] = (
                max(0, len(letters) - n + 1) if there else 0,
                max(0, len(reference) - n + 1),
                sum(min(count, there[gram]) for gram, count in found.items()),
            )
    return Quantity(name, columns, chrf_of)


def chrf_of(sums: np.ndarray) -> np.ndarray:
    """ChrF of sums of counts, (R, 18) -> (R,): for each length of n-grams those said, those true, those right."""
    said, true, right = (sums[:, part::3] for part in range(3))
    counts = (said > 0) & (true > 0)  # lengths that both texts have
    orders = np.maximum(counts.sum(1), 1)
    precision = (right / np.maximum(said, 1) * counts).sum(1) / orders
    recall = (right / np.maximum(true, 1) * counts).sum(1) / orders
    below = BETA**2 * precision + recall
    return 100 * (1 + BETA**2) * precision * recall / np.where(below > 0, below, 1)


def signature(tokenize: str) -> str:
    """How the figures were computed, in sacrebleu's words."""
    version = need("sacrebleu", "tasks", "BLEU and chrF").__version__
    of_bleu = f"nrefs:1|case:mixed|eff:no|tok:{tokenize}|smooth:exp|version:{version}"
    return f"BLEU {of_bleu}; chrF nrefs:1|case:mixed|eff:yes|nc:{LETTERS}|nw:0|space:no|version:{version}"


def tokenizer_for(texts: Sequence[str]) -> str:
    """sacrebleu's tokeniser for a language: "zh" where it is written in Chinese characters, else "13a"."""
    letters = [letter for text in texts[:1000] for letter in text if letter.isalpha()]
    han = sum("\u3400" <= letter <= "\u9fff" for letter in letters)
    kana = sum("\u3040" <= letter <= "\u30ff" for letter in letters)
    if kana > 0.1 * max(1, len(letters)):
        return "char"  # sacrebleu's own for Japanese needs a dictionary
    return "zh" if han > 0.3 * max(1, len(letters)) else "13a"


def _ngrams(items: Sequence[str], n: int) -> Counter[tuple[str, ...] | str]:
    if isinstance(items, str):
        return Counter(items[i : i + n] for i in range(len(items) - n + 1))
    return Counter(tuple(items[i : i + n]) for i in range(len(items) - n + 1))


def _metric(name: str, **options: str) -> Any:
    return getattr(need("sacrebleu.metrics", "tasks", "BLEU"), name)(**options)
