"""The usual simple method for two texts: how much their words overlap, weighed by rarity, and a logistic regression.

Shapes: N pairs, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cutaway.errors import need
from cutaway.tasks.baseline import word_pattern

NAME = "TF-IDF of both texts and logistic regression"
Pairs = Sequence[tuple[str, str]]


def linear_probabilities(train: Pairs, targets: np.ndarray, test: Pairs, *, seed: int = 0) -> np.ndarray:
    """The probability of each label for each test pair, (N, L) float64.

    It sees the cosine of words and of letters, the difference in length, and which words the texts share or not.

    Args:
        train: pairs of texts.
        targets: (N,) int64 numbers of labels up to L - 1.
        test: pairs of texts.
        seed: of the solver.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    known = np.unique(targets)
    made = np.zeros((len(test), int(known[-1]) + 1))
    if len(known) == 1:  # nothing to decide
        made[:, known] = 1.0
        return made
    text = need("sklearn.feature_extraction.text", "classic", "the baseline")
    linear = need("sklearn.linear_model", "classic", "the baseline")
    sparse = need("scipy.sparse", "classic", "the baseline")
    every = [one for pair in train for one in pair]
    words = text.TfidfVectorizer(token_pattern=word_pattern(every), sublinear_tf=True).fit(every)
    letters = text.TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True).fit(every)

    def seen(pairs: Pairs) -> Any:
        sides = [[pair[side] for pair in pairs] for side in (0, 1)]
        columns, shared = [], []
        for maker in (words, letters):
            a, b = (maker.transform(side) for side in sides)
            columns.append(np.asarray(a.multiply(b).sum(1)))
            shared += [a.multiply(b), abs(a - b)] if maker is words else []
        lengths = np.array([[len(a), len(b)] for a, b in pairs], float)
        columns.append(np.abs(np.log(np.maximum(lengths[:, :1], 1) / np.maximum(lengths[:, 1:], 1))))
        return sparse.hstack([np.concatenate([2 * columns[0], 2 * columns[1], columns[2]], axis=1), *shared]).tocsr()

    model = linear.LogisticRegression(C=1.0, max_iter=1000, random_state=seed).fit(seen(train), targets)
    made[:, known] = model.predict_proba(seen(test))
    return made
