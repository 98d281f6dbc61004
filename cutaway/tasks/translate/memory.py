"""A translation memory, the simple method to beat: the translation of the most similar sentence that was seen.

Shapes: N sentences.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cutaway.errors import need
from cutaway.tasks.translate.terms import UNSPACED

NAME = "translation memory (the most similar source by TF-IDF)"
AT_ONCE = 256


def nearest(known: Sequence[str], asked: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of each text the number of the known one that is most similar, (N,) int64, and how similar it is, (N,) float64.

    Similar is the cosine of counts of words and pairs of words, of letters in languages without spaces, weighed by
    rarity (TF-IDF). The first of several that are equally similar is taken.

    Args:
        known: texts.
        asked: texts.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    sklearn = need("sklearn.feature_extraction.text", "classic", "the baseline")
    unspaced = sum(bool(UNSPACED.search(text)) for text in known[:1000]) > 0.3 * len(known[:1000])
    how = {"analyzer": "char", "ngram_range": (1, 3)} if unspaced else {"ngram_range": (1, 2), "token_pattern": r"\w+"}
    maker = sklearn.TfidfVectorizer(sublinear_tf=True, **how)
    before, after = maker.fit_transform(known), maker.transform(asked)
    places, similar = np.zeros(len(asked), np.int64), np.zeros(len(asked))
    for start in range(0, len(asked), AT_ONCE):
        cosines = (after[start : start + AT_ONCE] @ before.T).toarray()
        places[start : start + AT_ONCE] = cosines.argmax(1)
        similar[start : start + AT_ONCE] = cosines.max(1)
    return places, similar
