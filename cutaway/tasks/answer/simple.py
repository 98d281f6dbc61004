"""The simple way to answer: the sentence of the text that shares most with the question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from cutaway.text.bag import WORDS
from cutaway.text.sentences import sentence_spans


def likeliest_sentences(asked: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
    """Where the sentence stands whose words that are in the question weigh most (inverse document frequency).

    Args:
        asked: questions and the texts that they are about; rarity is counted over the sentences of all texts.
    """
    texts = {text: [(span, _words(text[span[0] : span[1]])) for span in sentence_spans(text)] for _, text in asked}
    seen = Counter(word for spans in texts.values() for _, words in spans for word in words)
    total = sum(map(len, texts.values()))
    found = []
    for question, text in asked:
        words = _words(question)
        scores = [sum(np.log(1 + total / seen[word]) for word in words & there) for _, there in texts[text]]
        found.append(texts[text][int(np.argmax(scores))][0] if scores else (0, len(text)))
    return found


def _words(text: str) -> set[str]:
    return set(WORDS.findall(text.lower()))
