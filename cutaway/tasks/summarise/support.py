"""Which sentences of a document support a sentence of its summary, by the words they share and, where vectors are at
hand, by what they mean; with places and verbatim quotations. What nothing supports is marked so.

A word counts the more, the fewer sentences of the document hold it, and little if it only holds sentences together.
Numbers must be found: a figure that no supporting sentence holds was not taken from the document.

Shapes: S sentences of the document, C channels.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from cutaway.tasks.summarise.extract import units
from cutaway.text.sentences import sentence_spans

MOST = 3  # sentences that support one
COVERED = 0.5  # share of a sentence's words, by their weight, that must be found in those that support it
ALIKE = 0.7  # or the cosine of vectors with one of them
ADDS = 0.1  # what a further supporting sentence must cover that those before do not
LIGHT = 0.1  # how much words count that hold sentences together
FUNCTION = re.compile(
    r"an?|the|this|that|these|those|it|its|he|she|they|we|i|you|his|her|their|our|my|your|who|which|what|there|here|and|"
    r"or|but|nor|not|no|so|as|if|than|then|also|too|of|in|on|at|to|for|from|by|with|about|into|over|under|between|is|are|"
    r"was|were|be|been|being|am|has|have|had|do|does|did|can|could|will|would|may|might|must|shall|should|的|了|在|是|和|"
    r"与|也|都|就|而|及|被|把|对|从|到|这|那|有|为"
)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Supports:
    """A document, ready to be asked.

    Args:
        document: its text.
        spans: of its sentences; None: as `sentence_spans` tells them.
        vectors: (S, C) of its sentences, of length 1; None: words alone are compared.
    """

    def __init__(
        self, document: str, spans: Sequence[tuple[int, int]] | None = None, vectors: np.ndarray | None = None
    ) -> None:
        self.document, self.vectors = document, vectors
        self.spans = sentence_spans(document) if spans is None else spans
        self.quotes = [document[start:end] for start, end in self.spans]
        self._bags = [set(units(quote)) for quote in self.quotes]
        self._spread = Counter(word for bag in self._bags for word in bag)
        self._numbers = [set(NUMBER.findall(quote)) for quote in self.quotes]

    def of(self, sentence: str, vector: np.ndarray | None = None) -> dict[str, Any]:
        """What supports a sentence: {"text", "supported", "covered", "support": [{"start", "end", "quote", …}]}.

        `covered` is the share of its words, by weight, that the supporting sentences hold; of each of these `overlap`
        is the share that it holds alone, and `similarity` the cosine with it.

        Args:
            sentence: of a summary.
            vector: (C,) of it, as those of the document.
        """
        words = set(units(sentence))
        weights = {word: self._weight(word) for word in words}
        whole = sum(weights.values())
        overlaps = np.array([sum(weights[word] for word in words & bag) for bag in self._bags]) / (whole or 1)
        alike = None if vector is None or self.vectors is None else self.vectors @ vector
        worth = overlaps if alike is None else (overlaps + np.maximum(alike, 0)) / 2
        left, chosen, covered = set(words), [], 0.0
        while len(chosen) < MOST and len(chosen) < len(self.spans):
            adds = np.array([sum(weights[word] for word in left & bag) for bag in self._bags]) / (whole or 1)
            merit = worth if not chosen else np.where(np.isin(np.arange(len(adds)), chosen), -1.0, adds)
            best = int(merit.argmax())
            if (chosen and adds[best] < ADDS) or merit[best] <= 0:
                break
            chosen.append(best)
            covered += float(adds[best])
            left -= self._bags[best]
        numbers = set(NUMBER.findall(sentence))
        found = set().union(*(self._numbers[number] for number in chosen))
        means = alike is not None and bool(chosen) and max(float(alike[number]) for number in chosen) >= ALIKE
        return {
            "text": sentence,
            "supported": bool(chosen) and (covered >= COVERED or means) and numbers <= found,
            "covered": round(min(1.0, covered), 4),
            "support": [self._told(number, overlaps, alike) for number in sorted(chosen)],
        }

    def _weight(self, word: str) -> float:
        rarity = math.log(1 + (1 + len(self.spans)) / (1 + self._spread[word]))
        return LIGHT * rarity if FUNCTION.fullmatch(word) else rarity

    def _told(self, number: int, overlaps: np.ndarray, alike: np.ndarray | None) -> dict[str, Any]:
        start, end = self.spans[number]
        told = {"sentence": number, "start": start, "end": end, "quote": self.quotes[number]}
        told["overlap"] = round(float(overlaps[number]), 4)
        return told if alike is None else {**told, "similarity": round(float(alike[number]), 4)}
