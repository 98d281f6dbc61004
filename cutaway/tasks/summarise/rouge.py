"""ROUGE (Lin 2004) as the rouge-score package computes it, with stems; of several true summaries the best counts.

The package knows Latin letters and digits alone. Where a text is Chinese, Japanese or of another script, its units are
single Han characters and kana, and words of all other scripts, as is usual; then there are no stems.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cutaway.errors import need

KINDS = ("rouge1", "rouge2", "rougeL")
ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
UNITS = re.compile(rf"[{ALONE}]|(?:(?![{ALONE}])[^\W_])+")
OTHER = re.compile(r"(?![a-zA-ZÀ-ÿ])[^\W\d_]")  # letters that the package's own rule would lose


@dataclass(frozen=True)
class Units:
    """What the package asks a tokenizer to be."""

    def tokenize(self, text: str) -> list[str]:
        """Characters of scripts without spaces, and words of the others."""
        return UNITS.findall(text.lower())


@lru_cache(maxsize=2)
def scorer(plain: bool) -> Any:
    """The package's scorer, of Latin texts or of others."""
    module = need("rouge_score.rouge_scorer", "tasks", "ROUGE")
    return module.RougeScorer(KINDS, use_stemmer=plain, tokenizer=None if plain else Units())


def rouge(targets: Sequence[str], said: str) -> tuple[float, ...]:
    """ROUGE-1, -2 and -L (F1, 0 … 1) of a summary; each of the target with which it is best.

    Args:
        targets: true summaries, at least one.
        said: the summary.

    Raises:
        MissingExtra: rouge-score is not installed.
    """
    plain = not any(OTHER.search(text) for text in targets)
    found = scorer(plain).score_multi(list(targets), said)
    return tuple(found[kind].fmeasure for kind in KINDS)


def gains(targets: Sequence[str], sentences: Sequence[str]) -> np.ndarray:
    """How good each sentence would be as a summary: its ROUGE-1, (S,) float32."""
    return np.array([rouge(targets, sentence)[0] for sentence in sentences], np.float32)
