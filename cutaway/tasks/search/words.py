"""Search by words: BM25 (Robertson & Zaragoza 2009) over passages, by bm25s (Lù 2024) with Lucene's formula.

score = Σ over words of the question  ln(1 + (N - n + ½) / (n + ½)) · f / (f + k1 · (1 - b + b · length / mean length))

N passages, n of them with the word, f times in this one. What a word adds to a passage is computed once, when they are
indexed, so a search is a sum. Words are cut by script: Chinese by jieba or by characters.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64

from cutaway.errors import ConfigError, DamagedFile, need, unknown
from cutaway.files import holds, inside
from cutaway.tasks.search.store import load_array
from cutaway.text.bag import HAN, SNOWBALL, WORDS

K1, B = 1.5, 0.75
SEGMENTERS = ("jieba", "characters")
RUNS = re.compile(r"\w+")
ARRAYS, KINDS = ("indptr", "indices", "data"), (np.int64, np.int32, np.float32)
VOCABULARY = "vocabulary.json"


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


@dataclass(frozen=True)
class WordIndex:
    """The words of passages, and what each adds to the score of those that hold it.

    Attributes:
        passages: how many there are.
        vocabulary: word -> its number.
        indptr: (V + 1,) int64; what belongs to word v stands from indptr[v] to indptr[v + 1].
        indices: int32, numbers of passages, those of a word in their order.
        data: float32, what the word adds to the score of each.
    """

    passages: int
    vocabulary: Mapping[str, int] = field(default_factory=dict)
    indptr: Int64[np.ndarray, " V"] = field(default_factory=lambda: np.zeros(1, np.int64))
    indices: Int32[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0, np.int32))
    data: Float32[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0, np.float32))

    @classmethod
    def of(cls, cut: Sequence[list[str]]) -> WordIndex:
        """Index passages that were cut into words.

        Raises:
            MissingExtra: bm25s is not installed.
        """
        bm25s = need("bm25s", "search", "search by words")
        if not any(cut):
            return cls(len(cut))
        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(word, len(vocabulary)) for word in words] for words in cut]
        engine = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy", csc_backend="numpy")
        engine.index((ids, vocabulary), show_progress=False, create_empty_token=False)
        return cls(len(cut), vocabulary, *(engine.scores[name] for name in ARRAYS))

    def scores(self, words: Sequence[str]) -> Float32[np.ndarray, " N"]:
        """(N,) float32, of each passage."""
        total = np.zeros(self.passages, np.float32)
        for places, found in map(self._column, words):
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
        number = self.vocabulary.get(word)
        part = slice(0, 0) if number is None else slice(int(self.indptr[number]), int(self.indptr[number + 1]))
        return self.indices[part], self.data[part]

    def save(self, folder: Path) -> None:
        """Write arrays and JSON into an existing folder; nothing is pickled."""
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
        (folder / VOCABULARY).write_text(json.dumps(self.vocabulary, ensure_ascii=False), "utf-8")

    @classmethod
    def load(cls, folder: Path, within: str, passages: int) -> WordIndex:
        """Read what `save` wrote; arrays stay on the disk until they are needed.

        Args:
            folder: of the index.
            within: the folder in it where the words lie.
            passages: of the index.

        Raises:
            DamagedFile: it is not that.
        """
        if not holds(folder / within, VOCABULARY):  # of passages without any word, an older index wrote nothing
            return cls(passages)
        indptr, indices, data = (
            load_array(folder, f"{within}/{name}.npy", kind, 1) for name, kind in zip(ARRAYS, KINDS, strict=True)
        )
        path = inside(folder, f"{within}/{VOCABULARY}")
        try:
            vocabulary = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DamagedFile(f"{path} cannot be read ({error}); build the index again") from error
        numbers = list(vocabulary.values()) if isinstance(vocabulary, dict) else [None]
        known = all(type(number) is int and 0 <= number < len(indptr) - 1 for number in numbers)
        ends = [*indptr[:1].tolist(), *indptr[-1:].tolist()]
        fits = ends == [0, len(indices)] and len(indices) == len(data) and bool((np.diff(indptr) >= 0).all())
        if not (known and fits and not (len(indices) and not 0 <= indices.min() <= indices.max() < passages)):
            raise DamagedFile(f"the words in {folder / within} do not fit the passages; build the index again")
        return cls(passages, vocabulary, indptr, indices, data)
