"""The usual simple method for spans: what a word and its neighbours look like, and a linear model of its tag.

Shapes: W words of all texts, L tags.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from cutaway.errors import need
from cutaway.tasks.decode import LEAST, best_tags

NAME = "words, their shapes and neighbours, and a linear model"
AROUND = 2  # words to either side


def linear_tags(
    train: Sequence[Sequence[str]], tags: Sequence[np.ndarray], test: Sequence[Sequence[str]], *, seed: int = 0
) -> list[np.ndarray]:
    """The tags of the words of each test text, each of which may follow the one before.

    Args:
        train: words of texts.
        tags: of them, numbered as in `text.tags`.
        test: words of texts.
        seed: of the order in which it learns.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    known = np.unique(np.concatenate(tags))
    if len(known) < 2:  # nothing to decide
        return [np.full(len(words), known[0] if len(known) else 0) for words in test]
    features = need("sklearn.feature_extraction", "classic", "the baseline")
    linear = need("sklearn.linear_model", "classic", "the baseline")
    maker = features.FeatureHasher(2**20, input_type="string")
    before = maker.transform(row for words in train for row in described(words))
    model = linear.SGDClassifier(loss="log_loss", alpha=2e-6, average=True, max_iter=15, tol=None, random_state=seed)
    model.fit(before, np.concatenate(tags))
    chances = np.full((sum(map(len, test)), int(model.classes_.max()) + 1 | 1), LEAST)
    if len(chances):
        chances[:, model.classes_] = model.predict_proba(maker.transform(row for w in test for row in described(w)))
    ends = np.cumsum([len(words) for words in test])[:-1]
    return [best_tags(np.log(np.maximum(part, LEAST))) if len(part) else part[:, 0] for part in np.split(chances, ends)]


def described(words: Sequence[str]) -> list[list[str]]:
    """What is seen of each word: itself, its ends and shape, and its neighbours."""
    lower, shapes = [word.lower() for word in words], [shape(word) for word in words]
    made = []
    for place, word in enumerate(lower):
        seen = [f"w {word}", f"s {shapes[place]}"]
        seen += [f"< {word[:size]}" for size in (2, 3, 4)] + [f"> {word[-size:]}" for size in (2, 3, 4)]
        for step in range(-AROUND, AROUND + 1):
            other = place + step
            if step and 0 <= other < len(words):
                seen += [f"{step} {lower[other]}", f"{step}s {shapes[other]}", f"{step}> {lower[other][-3:]}"]
        if place:
            seen.append(f"p {lower[place - 1]} {word}")
        if place + 1 < len(words):
            seen.append(f"n {word} {lower[place + 1]}")
        made.append(seen)
    return made


def shape(word: str) -> str:
    """Capitals as A, other letters as a, digits as 0, each run once: "BRCA1" is "A0"."""
    plain = re.sub(r"\d", "0", "".join("A" if c.isupper() else "a" if c.isalpha() else c for c in word))
    return "".join(sign for sign, _ in groupby(plain))
