"""The usual simple method: words and letter n-grams weighed by rarity (TF-IDF), and a logistic regression.

It learns from the same training examples in seconds, and says what a network has to beat. Chinese is read by letters
alone, which are its words.

Shapes: N examples, L labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from cutaway.errors import need

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
MOST_FEATURES = 200_000
NAME = "TF-IDF and logistic regression"


def linear_probabilities(
    train: Sequence[str], targets: np.ndarray, test: Sequence[str], *, several: bool = False, seed: int = 0
) -> np.ndarray:
    """The probability of each label for each test text, (N, L) float64; one that no training text has has none.

    Args:
        train: texts.
        targets: (N,) int64 numbers of labels up to L - 1; or with `several` (N, L) of 0 and 1.
        test: texts.
        several: each label is asked by itself.
        seed: of the solver.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    linear = need("sklearn.linear_model", "classic", "the baseline")
    before, after = _vectors(train, test)
    if several:
        columns = []
        for label in range(targets.shape[1]):
            holds = targets[:, label] > 0.5
            if holds.all() or not holds.any():
                columns.append(np.full(len(test), float(holds.all())))
                continue
            model = linear.LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
            columns.append(model.fit(before, holds).predict_proba(after)[:, 1])
        return np.stack(columns, axis=1)
    known = np.unique(targets)
    made = np.zeros((len(test), int(known[-1]) + 1))
    if len(known) == 1:  # nothing to decide
        made[:, known] = 1.0
    else:
        model = linear.LogisticRegression(C=10.0, max_iter=1000, random_state=seed).fit(before, targets)
        made[:, model.classes_] = model.predict_proba(after)
    return made


def word_pattern(texts: Sequence[str]) -> str:
    """What a word is, as scikit-learn wants it: letters and digits; where no text has any, every sign (emoji)."""
    return r"(?u)\b\w+\b" if any(re.search(r"\w", text) for text in texts) else r"(?u)\S"


def _vectors(train: Sequence[str], test: Sequence[str]) -> tuple[Any, Any]:
    sklearn = need("sklearn.feature_extraction.text", "classic", "the baseline")
    sparse = need("scipy.sparse", "classic", "the baseline")
    chinese = sum(bool(HAN.search(text)) for text in train[:1000]) > 0.3 * len(train[:1000])
    shared = {"sublinear_tf": True, "min_df": 1 if len(train) < 1000 else 2, "max_features": MOST_FEATURES}
    makers = [sklearn.TfidfVectorizer(analyzer="char", ngram_range=(1, 4), **shared)]
    if not chinese:
        pattern = word_pattern(train)
        makers = [
            sklearn.TfidfVectorizer(ngram_range=(1, 2), token_pattern=pattern, **shared),
            sklearn.TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **shared),
        ]
    pairs = [(maker.fit_transform(train), maker.transform(test)) for maker in makers]
    return sparse.hstack([a for a, _ in pairs]).tocsr(), sparse.hstack([b for _, b in pairs]).tocsr()
