"""Words and letters beside a network: n-grams weighed by their rarity (TF-IDF) and one matrix, kept as plain arrays.

A linear model knows single words that a small network has never learned, and a network what a row of words means; their
logits added, with weights found on validation data, are right more often than either. Nothing of scikit-learn is needed
to answer, only to fit.

Shapes: N texts, F n-grams, L labels, P parts (the network, the words).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.errors import DamagedFile, need
from cutaway.tasks.baseline import HAN, MOST_FEATURES

if TYPE_CHECKING:
    from cutaway.interp.attribution import Attribution
    from cutaway.models import Model

WORD = re.compile(r"\b\w+\b")
GRAMS, RARITY, WEIGHTS, BIAS = "words.grams", "words.rarity", "words.weights", "words.bias"
STRENGTH = 10.0  # of the data against the prior of small weights (scikit-learn's C)


@dataclass(frozen=True)
class Words:
    """A linear model on n-grams.

    Attributes:
        grams: F n-grams; the first letter says of what: "w" words, "l" letters within words, "h" Chinese letters.
        rarity: (F,) float32, the weight of an n-gram before its text is brought to length one.
        weights: (F, L) float16.
        bias: (L,) float32.
    """

    grams: list[str]
    rarity: np.ndarray
    weights: np.ndarray
    bias: np.ndarray

    @cached_property
    def place(self) -> dict[str, int]:
        """N-gram -> its number."""
        return {gram: number for number, gram in enumerate(self.grams)}

    @cached_property
    def kinds(self) -> str:
        """The kinds of n-grams there are."""
        return "".join(sorted({gram[0] for gram in self.grams}))

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """What it says of each text, (N, L) float32."""
        made = np.tile(self.bias, (len(texts), 1)).astype(np.float32)
        for row, (numbers, values) in zip(made, vectors(texts, self.place, self.rarity, self.kinds), strict=True):
            row += values @ self.weights[numbers].astype(np.float32)
        return made

    def tensors(self) -> dict[str, Tensor]:
        """As a file keeps them."""
        grams = np.frombuffer("\n".join(self.grams).encode(), np.uint8).copy()
        arrays = {GRAMS: grams, RARITY: self.rarity, WEIGHTS: self.weights, BIAS: self.bias}
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def words_of(kept: Mapping[str, Tensor]) -> Words:
    """The model that `Words.tensors` gave.

    Raises:
        DamagedFile: arrays are missing or do not fit each other.
    """
    try:
        grams = bytes(kept[GRAMS].numpy()).decode().split("\n")
        made = Words(grams, *(kept[name].numpy() for name in (RARITY, WEIGHTS, BIAS)))
    except (KeyError, UnicodeDecodeError) as error:
        raise DamagedFile(f"what is kept of the words is damaged ({error})") from error
    if not len(grams) == len(made.rarity) == len(made.weights) or made.weights.shape[1:] != made.bias.shape:
        raise DamagedFile("what is kept of the words does not fit together")
    return made


def fit_words(texts: Sequence[str], targets: np.ndarray, count: int) -> Words:
    """Learn which n-grams speak for which label.

    Args:
        texts: N.
        targets: (N,) int64 numbers of labels, or (N, L) of 0 and 1 where several may hold.
        count: of labels.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    linear = need("sklearn.linear_model", "classic", "a linear model on words")
    sparse = need("scipy.sparse", "classic", "a linear model on words")
    chinese = sum(bool(HAN.search(text)) for text in texts[:1000]) > 0.3 * len(texts[:1000])
    kinds = "h" if chinese else "lw"
    grams, rarity = _vocabulary(texts, kinds)
    place = {gram: number for number, gram in enumerate(grams)}
    rows = list(vectors(texts, place, rarity, kinds))
    starts = np.r_[0, np.cumsum([len(numbers) for numbers, _ in rows])]
    values, numbers = np.concatenate([v for _, v in rows]), np.concatenate([n for n, _ in rows])
    matrix: Any = sparse.csr_matrix((values, numbers, starts), shape=(len(texts), len(grams)))
    weights, bias = np.zeros((len(grams), count), np.float32), np.full(count, -20.0, np.float32)

    def fitted(true: np.ndarray) -> Any:
        return linear.LogisticRegression(C=STRENGTH, max_iter=1000).fit(matrix, true)

    if targets.ndim == 2:
        for label in range(count):
            holds = targets[:, label] > 0.5
            if holds.all() or not holds.any():
                bias[label] = 20.0 if holds.all() else -20.0
                continue
            model = fitted(holds)
            weights[:, label], bias[label] = model.coef_[0], model.intercept_[0]
    else:
        model = fitted(targets)
        there = model.classes_  # a label of no example keeps a logit that never wins
        if len(there) == 2:
            halves = np.array([-0.5, 0.5], np.float32)
            weights[:, there], bias[there] = model.coef_[0][:, None] * halves, model.intercept_[0] * halves
        else:
            weights[:, there], bias[there] = model.coef_.T, model.intercept_
    return Words(grams, rarity, weights.astype(np.float16), bias)


def _vocabulary(texts: Sequence[str], kinds: str) -> tuple[list[str], np.ndarray]:
    """The n-grams of at least two texts (of few texts, of one), the commonest of each kind, and their rarity."""
    least = 1 if len(texts) < 1000 else 2
    found: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for grams in counted(texts, kinds):
        found.update(grams.keys())
        total.update(grams)
    kept: list[str] = []
    for kind in kinds:
        own = [gram for gram, texts_with in found.items() if gram[0] == kind and texts_with >= least]
        own.sort(key=lambda gram: (-total[gram], gram))
        kept += sorted(own[:MOST_FEATURES])
    rarity = np.log((1 + len(texts)) / (1 + np.array([found[gram] for gram in kept], np.float64))) + 1
    return kept, rarity.astype(np.float32)


def vectors(
    texts: Sequence[str], place: Mapping[str, int], rarity: np.ndarray, kinds: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each text the numbers of its n-grams and their values: (1 + log count) · rarity, each kind of length one."""
    for grams in counted(texts, kinds):
        numbers, values = [], []
        for kind in kinds:
            own = [(place[gram], count) for gram, count in grams.items() if gram[0] == kind and gram in place]
            at = np.array([number for number, _ in own], np.int64)
            value = (1 + np.log(np.array([count for _, count in own], np.float32))) * rarity[at]
            numbers.append(at)
            values.append(value / max(1e-12, float(np.linalg.norm(value))))
        yield np.concatenate(numbers), np.concatenate(values).astype(np.float32)


def counted(texts: Sequence[str], kinds: str) -> Iterator[Counter[str]]:
    """The n-grams of each text, as scikit-learn's analysers "word" (1, 2), "char_wb" (2 … 5) and "char" (1 … 4) do."""
    known: dict[str, list[str]] = {}
    for text in texts:
        text, grams = " ".join(text.lower().split()), Counter[str]()
        if "h" in kinds:
            grams.update("h" + text[at : at + n] for n in range(1, 5) for at in range(len(text) - n + 1))
        if "w" in kinds:
            found = WORD.findall(text)
            grams.update("w" + word for word in found)
            grams.update(f"w{a} {b}" for a, b in pairwise(found))
        if "l" in kinds:
            for word, count in Counter(text.split()).items():
                if word not in known:
                    known[word] = list(_within(f" {word} "))
                for gram in known[word]:
                    grams[gram] += count
        yield grams


def _within(word: str) -> Iterator[str]:
    for n in range(2, 6):
        yield from ("l" + word[at : at + n] for at in range(max(1, len(word) - n + 1)))
        if n >= len(word):  # longer n-grams would be the same word again
            break


def with_words(
    found: Attribution,
    words: Words,
    model: Model,
    token: str | None,
    minus: str | None,
    weights: list[float],
) -> Attribution:
    """What a network's answer is owed to, with what the linear model loses when each word is taken away.

    Args:
        found: of the network, a score a word.
        words: the linear model.
        model: the network's, with the labels of both.
        token: the label that is explained; None: the likeliest.
        minus: the one that is subtracted, if any.
        weights: of the network's logits and the linear model's.
    """
    labels, special = list(model.config.labels), set(model.tokenizer.special.values())  # pyright: ignore[reportAttributeAccessIssue]
    places = [n for n, text in enumerate(found.tokens) if found.ids[n] not in special and text.strip()]
    there, between = [found.tokens[n].strip() for n in places], "" if "h" in words.kinds else " "
    logits = words.logits([between.join(there), *(between.join(there[:n] + there[n + 1 :]) for n in range(len(there)))])
    chosen = labels.index(token) if token in labels else int(logits[0].argmax())
    said = logits[:, chosen] - (logits[:, labels.index(minus)] if minus in labels else 0)
    scores = [None if score is None else weights[0] * score for score in found.scores]
    for place, lost in zip(places, said[0] - said[1:], strict=True):
        scores[place] = (scores[place] or 0.0) + weights[1] * float(lost)
    value = weights[0] * found.value + weights[1] * float(said[0])
    target = f"{found.target}, of the network and the words together"
    return replace(found, scores=scores, value=value, target=target, baseline=None, by_token=None, claims=None)


def weights_of(parts: Tensor, targets: Tensor, *, several: bool = False) -> list[float]:
    """What to multiply the logits of each part with before they are added, so that the truth is likeliest.

    Args:
        parts: (N, P, L) float.
        targets: (N,) int64, or with `several` (N, L) in 0 … 1.
        several: each label is asked by itself.
    """
    parts = parts.double()
    logs = torch.full((parts.shape[1],), -float(np.log(parts.shape[1])), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([logs], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        logits = (parts * logs.exp()[:, None]).sum(1)
        if several:
            loss = F.binary_cross_entropy_with_logits(logits, targets.double())
        else:
            loss = F.cross_entropy(logits, targets)
        loss = loss + logs.square().sum() / len(parts)  # where everything is right, weights would grow for ever
        loss.backward()
        return loss

    with torch.enable_grad():
        search.step(closure)  # pyright: ignore[reportArgumentType]
    return logs.detach().exp().tolist()
