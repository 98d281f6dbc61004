"""Encoding many texts fast: by tokie where it gives the ids that the tokenizers library gives, else by that library.

tokie re-implements published tokenizers at twenty times the speed, but guesses where it does not know a pre-tokenizer.
So it is believed only after it has agreed on probe texts: all sorts of text, mixtures on which pre-tokenizers disagree,
and the vocabulary itself, whose tokens show each cut that matters. Where it is known to cut otherwise (the tests find
that by trying all of Unicode, and every neighbourhood of three), the text always goes to the tokenizers library.
"""

import random
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from cutaway.tokenizers.spec import reraise_unless_rust

# Letter-like numbers (Roman Ⅷ, the Chinese zero 〇), circled letters, and characters newer than one of the two tables.
_DOUBTFUL = re.compile(
    "[\u088f\u0897\u0c5c\u0cdc\u16ee-\u16f0\u2160-\u2182\u2185-\u2188\u24b6-\u24e9\u3007\u3021-\u3029\u3038-\u303a"
    "\ua6e6-\ua6ef\ua7ce-\ua7d4\ua7f1]"
)
# Above U+FFFF emoji and the settled Chinese blocks are fine; ancient scripts and the like are not worth a list.
_DOUBTFUL_HIGH = re.compile(
    "[\U00010000-\U0001efff\U0001f130-\U0001f189\U0002b73a-\U0002b73f\U0002cea2-\U0002cead\U000323b0-\U0010ffff]"
)
# A tab, a mark and a letter ("\t(x"); a line of white space; a letter after a space that is not ASCII.
_DOUBTFUL_TAB = re.compile(r"\t(?:[^\w\s]|[_\x1c-\x1f])[^\W\d_]")
_DOUBTFUL_LINE = re.compile(r"\n[^\S\r\n]+\n")  # beginning with a letter, a search is several times as fast
_DOUBTFUL_RETURN = re.compile(r"[\r\n][^\S\r\n]+[\r\n]")
_SPACES = re.compile("[\x01\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")  # in `rare` characters
_DOUBTFUL_SPACE = re.compile("[\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\\W\\d_]")

# tokie merges in another order in a piece (a word, a run of spaces or of signs) of some 10,000 bytes and more. A run of
# twice a window's characters or more fills one of the windows that a text is looked at through.
WINDOW = 1024
_SIGNS = re.compile(r"(?:[^\w\s]|_)+")

MOST_TOKENS_TRIED = 10_000
PROBES = (
    "The quick brown fox doesn't jump; it's 1,234.56 metres -- isn't it? I'LL say SO, they'd've said.",
    "def f(x, *, y=0x1F):\n    return [x**2 for _ in range(10)]  # comment\n\n\nclass A_b(C):\r\n\tpass\n",
    "中文没有空格，标点也不同。《红楼梦》第一百二十回！１２３４ 日本語のテキスト 한국어",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 e\u0301a\u0308 n\u0303 नमस्ते สวัสดี العربية עברית Ελληνικά Кириллица ½²³ ①",
    " \t \n\n  \r\n \u3000\u00a0\u2003 x  y   z\t\tw \n ",
    "\x00\x01\x1f\x7f\u0085\u200b\ufeff\ufffd <|endoftext|> <|pad|> [UNK] </s> <0x41> ▁ Ġ ##a",
    "a" * 300 + " " * 40 + "中" * 60 + "-" * 50 + "0" * 40,
)
PIECES = (
    *[
        "a",
        "B",
        "z",
        "é",
        "the",
        "The",
        "ing",
        "Don't",
        "WE'LL",
        "'s",
        "'",
        "’",
        "ſ",
        "ß",
        "İ",
        "我",
        "的",
        "日",
        "あ",
        "한",
        "1",
        "23",
        "456",
        "7890",
        "²",
        "٣",
        "😀",
        "👩\u200d👧",
    ],
    *[".", ",", "!?", "--", "_", "(", ")", "=", "/", "#", "…", "。", "，", "́", "\u200d", "ि", "\ufeff", "\x00"],
    *(" ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000"),
)


@dataclass(frozen=True)
class Bulk:
    """What encodes in bulk.

    Attributes:
        name: "tokie" or "tokenizers".
        reason: why.
    """

    name: str
    reason: str
    _slow: tokenizers.Tokenizer = field(repr=False)
    _fast: Any = field(default=None, repr=False)

    def encode(self, texts: Sequence[str], dtype: np.dtype) -> list[np.ndarray]:
        """The ids of each text."""
        if self.name != "tokie":
            return _slow_ids(self._slow, texts, dtype)
        found = _fast_ids(self._fast, texts, dtype)
        doubts = [number for number, text in enumerate(texts) if doubtful(text)]
        for number, ids in zip(doubts, _slow_ids(self._slow, [texts[n] for n in doubts], dtype), strict=True):
            found[number] = ids
        return found

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def choose_bulk(text: str, slow: tokenizers.Tokenizer, vocabulary: Sequence[str] = ()) -> Bulk:
    """tokie if its ids equal those of `slow` on every probe, else `slow`.

    Args:
        text: the tokenizer.json without special tokens.
        slow: the same, built.
        vocabulary: the texts of its tokens.
    """
    try:
        import tokie
    except ImportError:
        return Bulk("tokenizers", "tokie is not installed", slow)
    probes, dtype = probe_texts(vocabulary), np.dtype(np.uint32)
    try:
        with tempfile.TemporaryDirectory() as folder:  # tokie reads files only
            path = Path(folder) / "tokenizer.json"
            path.write_text(text, "utf-8")
            fast = tokie.Tokenizer.from_json(str(path))
        found = _fast_ids(fast, probes, dtype)
    except BaseException as error:
        reraise_unless_rust(error)
        return Bulk("tokenizers", f"tokie does not read this tokenizer ({error})", slow)
    for probe, got, right in zip(probes, found, _slow_ids(slow, probes, dtype), strict=True):
        if not np.array_equal(got, right):
            return Bulk("tokenizers", f"tokie gives other ids, for instance for {probe[:24]!r}", slow)
    return Bulk("tokie", f"its ids equal those of tokenizers on {len(probes):,} probe texts", slow, fast)


def doubtful(text: str) -> bool:
    """Whether a text holds characters that tokie may sort otherwise than the tokenizers library."""
    from cutaway.text.clean.characters import rare  # late: with it come the readers, which loading need not wait for

    if len(text) > 2 * WINDOW and any(_uniform(text[i : i + WINDOW]) for i in range(0, len(text) - WINDOW + 1, WINDOW)):
        return True
    if "\v" in text or "\f" in text or ("\t" in text and _DOUBTFUL_TAB.search(text)):
        return True
    if "\r" in text and _DOUBTFUL_RETURN.search(text):
        return True
    beyond = rare(text)  # what the patterns below look for needs one of these, so most texts are not searched
    spaces = _SPACES.search(beyond)
    if (spaces or " \n" in text or "\t" in text) and _DOUBTFUL_LINE.search(text):
        return True
    if _DOUBTFUL.search(beyond) or (spaces and _DOUBTFUL_SPACE.search(text)):
        return True
    high = len(beyond.encode("utf-16-le")) > 2 * len(beyond)  # the fast way to ask for characters above U+FFFF
    return high and _DOUBTFUL_HIGH.search(beyond) is not None


def _uniform(window: str) -> bool:
    """Whether a piece could go all through this window."""
    return window.isalnum() or window.isspace() or _SIGNS.fullmatch(window) is not None


def probe_texts(vocabulary: Sequence[str] = ()) -> list[str]:
    """The probes: texts of every sort, random mixtures, and tokens (of many, some), alone and beside another."""
    draw = random.Random(0)
    mixed = ["".join(draw.choices(PIECES, k=draw.randint(1, 24))) for _ in range(1000)]
    tokens = draw.sample(vocabulary, min(len(vocabulary), MOST_TOKENS_TRIED))
    pairs = [token + draw.choice(tokens) for token in tokens]
    return [text for text in (*PROBES, *mixed, *tokens, *pairs) if not doubtful(text)]


def _fast_ids(fast: Any, texts: Sequence[str], dtype: np.dtype) -> list[np.ndarray]:
    flat, lengths = fast.encode_batch_flat(texts, add_special_tokens=False)
    flat = flat.astype(dtype)
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()
    return [flat[start:end] for start, end in pairwise(ends)]


def _slow_ids(slow: tokenizers.Tokenizer, texts: Sequence[str], dtype: np.dtype) -> list[np.ndarray]:
    return [np.array(encoding.ids, dtype) for encoding in slow.encode_batch_fast(texts, add_special_tokens=False)]
