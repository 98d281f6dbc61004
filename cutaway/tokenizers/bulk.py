"""Encoding many texts fast: by tokie where it gives the ids that the tokenizers library gives, else by that library.

tokie re-implements published tokenizers at several times the speed but guesses at pre-tokenizers it does not know,
so it is believed only after it has agreed on a set of probe texts that no two readings of a pre-tokenizer share.
"""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

PROBES = (
    "The quick brown fox doesn't jump; it's 1,234.56 metres -- isn't it? I'LL say SO, they'd've said.",
    "def f(x, *, y=0x1F):\n    return [x**2 for _ in range(10)]  # comment\n\n\nclass A_b(C):\r\n\tpass\n",
    "中文没有空格，标点也不同。《红楼梦》第一百二十回！１２３４ 日本語のテキスト 한국어",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 e\u0301a\u0308 n\u0303 नमस्ते สวัสดี العربية עברית Ελληνικά Кириллица ½²³ Ⅷ ①",
    " \t \n\n  \r\n \u3000\u00a0\u2003 x  y   z\t\tw \n ",
    "\x00\x01\x1f\x7f\u0085\u200b\ufeff\ufffd <|endoftext|> <|pad|> [UNK] </s> <0x41> ▁ Ġ ##a",
    "a" * 300 + " " * 40 + "中" * 60 + "-" * 50 + "0" * 40,
)
PIECES = (
    *(
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
    ),
    *(" ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "1", "23", "456", "7890", "²", "Ⅷ", "٣"),
    *(
        ".",
        ",",
        "!?",
        "--",
        "_",
        "(",
        ")",
        "=",
        "/",
        "#",
        "…",
        "。",
        "，",
        "\u0301",
        "\u200d",
        "ि",
        "😀",
        "👩‍👧",
        "\x00",
        "\ufeff",
    ),
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
    engine: Any = field(repr=False)

    def encode(self, texts: Sequence[str], dtype: np.dtype) -> list[np.ndarray]:
        """The ids of each text."""
        if self.name == "tokie":
            flat, lengths = self.engine.encode_batch_flat(texts, add_special_tokens=False)
            flat = flat.astype(dtype)
            ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()
            return [flat[start:end] for start, end in pairwise(ends)]
        encodings = self.engine.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype) for encoding in encodings]

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def choose_bulk(text: str, slow: tokenizers.Tokenizer) -> Bulk:
    """tokie if its ids equal those of `slow` on every probe, else `slow`.

    Args:
        text: the tokenizer.json without special tokens.
        slow: the same, built.
    """
    try:
        import tokie
    except ImportError:
        return Bulk("tokenizers", "tokie is not installed", slow)
    try:
        with tempfile.TemporaryDirectory() as folder:  # tokie reads files only
            path = Path(folder) / "tokenizer.json"
            path.write_text(text, "utf-8")
            fast = tokie.Tokenizer.from_json(str(path))
    except Exception as error:  # whatever it does not understand
        return Bulk("tokenizers", f"tokie does not read this tokenizer ({error})", slow)
    probes = probe_texts()
    one, other = Bulk("tokie", "", fast), Bulk("tokenizers", "", slow)
    dtype = np.dtype(np.uint32)
    for probe, got, expected in zip(probes, one.encode(probes, dtype), other.encode(probes, dtype), strict=True):
        if not np.array_equal(got, expected):
            return Bulk("tokenizers", f"tokie gives other ids, for instance for {probe[:24]!r}", slow)
    return Bulk("tokie", f"its ids equal those of tokenizers on {len(probes):,} probe texts", fast)


def probe_texts() -> list[str]:
    """The probes: a few texts of every sort, and a thousand random strings of pieces that pre-tokenizers disagree on."""
    draw = random.Random(0)
    return [*PROBES, *("".join(draw.choices(PIECES, k=draw.randint(1, 24))) for _ in range(1000))]
