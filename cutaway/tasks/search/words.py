"""Search by words: BM25 (Robertson & Zaragoza 2009) over passages, by bm25s (Lù 2024) with Lucene's formula.

score = Σ over words of the question  ln(1 + (N - n + ½) / (n + ½)) · f / (f + k1 · (1 - b + b · length / mean length))

N passages, n of them with the word, f times in this one. Words are cut by script: Chinese by jieba or by characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cutaway.errors import ConfigError, DamagedFile, need, unknown
from cutaway.text.bag import HAN, SNOWBALL, WORDS

K1, B = 1.5, 0.75
SEGMENTERS = ("jieba", "characters")
RUNS = re.compile(r"\w+")


def usual_segmenter() -> str:
    """jieba where it is installed, else characters."""
    return "jieba" if find_spec("jieba") is not None else "characters"


@lru_cache(maxsize=8)
def cutter(segmenter: str, language: str = "") -> Callable[[str], list[str]]:
    """What cuts a text into the words that are counted.

    Args:
        segmenter: of Chinese: "jieba" or "characters".
        language: ISO 639-1 of the language whose endings are cut off; "": none are.

    Raises:
        ConfigError: an unknown segmenter or language.
        MissingExtra: what it needs is not installed.
    """
    if segmenter not in SEGMENTERS:
        raise ConfigError(unknown("segmenter", segmenter, SEGMENTERS))
    if language and language not in SNOWBALL:
        raise ConfigError(unknown("language with a stemmer", language, SNOWBALL))
    chinese: Any = None
    if segmenter == "jieba":
        jieba = need("jieba", "documents", "cutting Chinese into words")
        jieba.setLogLevel("ERROR")
        chinese = jieba.Tokenizer()
    stemmer = (
        need("snowballstemmer", "documents", "cutting off endings").stemmer(SNOWBALL[language]) if language else None
    )

    def cut(text: str) -> list[str]:
        text = unicodedata.normalize("NFKC", text).casefold()
        if chinese is not None and HAN.search(text):
            words = [word for piece in chinese.lcut_for_search(text) for word in RUNS.findall(piece)]
        else:
            words = WORDS.findall(text)
        return stemmer.stemWords(words) if stemmer is not None else words

    return cut


class WordIndex:
    """The words of passages.

    Args:
        engine: a bm25s.BM25 that has indexed them; None where there is not one word.
        passages: how many there are.
    """

    FILES = ("data.npy", "indices.npy", "indptr.npy", "vocabulary.json", "bm25.json")

    def __init__(self, engine: Any, passages: int) -> None:
        self.engine, self.passages = engine, passages

    @classmethod
    def of(cls, cut: Sequence[list[str]]) -> WordIndex:
        """Index passages that were cut into words."""
        bm25s = need("bm25s", "search", "search by words")
        if not any(cut):
            return cls(None, len(cut))
        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(word, len(vocabulary)) for word in words] for words in cut]
        engine = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy", csc_backend="numpy")
        engine.index((ids, vocabulary), show_progress=False, create_empty_token=False)
        return cls(engine, len(cut))

    def scores(self, words: Sequence[str]) -> np.ndarray:
        """(N,) float32, of each passage."""
        total = np.zeros(self.passages, np.float32)
        for places, found in (self._column(word) for word in words):
            total[places] += found
        return total

    def terms(self, words: Sequence[str], passage: int) -> dict[str, float]:
        """What each word of a question adds to a passage's score."""
        found: dict[str, float] = {}
        for word in words:
            places, scores = self._column(word)
            here = scores[places == passage]
            if len(here):
                found[word] = found.get(word, 0.0) + float(here[0])
        return found

    def _column(self, word: str) -> tuple[np.ndarray, np.ndarray]:
        """The passages with a word, and what it adds to the score of each."""
        number = None if self.engine is None else self.engine.vocab_dict.get(word)
        if self.engine is None or number is None:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        scores = self.engine.scores
        part = slice(int(scores["indptr"][number]), int(scores["indptr"][number + 1]))
        return scores["indices"][part], scores["data"][part]

    def save(self, folder: Path) -> None:
        """Write arrays and JSON; nothing is pickled."""
        if self.engine is None:
            return
        data, indices, indptr, vocabulary, parameters = self.FILES
        self.engine.save(
            folder,
            data_name=data,
            indices_name=indices,
            indptr_name=indptr,
            vocab_name=vocabulary,
            params_name=parameters,
            allow_pickle=False,
            show_progress=False,
        )

    @classmethod
    def load(cls, folder: Path, passages: int) -> WordIndex:
        """Read what `save` wrote.

        Raises:
            DamagedFile: it is not that.
        """
        data, indices, indptr, vocabulary, parameters = cls.FILES
        if not (folder / data).exists():
            return cls(None, passages)
        bm25s = need("bm25s", "search", "search by words")
        try:
            engine = bm25s.BM25.load(
                folder,
                data_name=data,
                indices_name=indices,
                indptr_name=indptr,
                vocab_name=vocabulary,
                params_name=parameters,
                allow_pickle=False,
                show_progress=False,
            )
            last = int(engine.scores["indptr"][-1])
            highest = int(engine.scores["indices"].max()) if last else -1
            fits = last == len(engine.scores["data"]) == len(engine.scores["indices"]) and highest < passages
        except Exception as error:
            raise DamagedFile(f"the words in {folder} cannot be read ({error}); build the index again") from error
        if not fits:
            raise DamagedFile(f"the words in {folder} are of other passages; build the index again")
        return cls(engine, passages)
