"""Where words begin in a sequence of ids, for what treats whole words alike (whole-word masking).

A word is a run of letters, digits and combining marks; every other sign stands for itself, as does each character of a
script that has no spaces.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64

from cutaway.tokenizers.spec import continuing_prefix

if TYPE_CHECKING:
    from cutaway.tokenizers.tokenizer import Tokenizer

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # as Unicode's names of characters begin


@dataclass(frozen=True)
class WordTable:
    """What is known of each id, V of them.

    Attributes:
        special: (V,) bool, a special token.
        opens: (V,) bool, its first character continues no word.
        closes: (V,) bool, no word goes on after its last character.
    """

    special: np.ndarray
    opens: np.ndarray
    closes: np.ndarray

    def starts(self, ids: Int64[np.ndarray, "*B T"]) -> Bool[np.ndarray, "*B T"]:
        """Where a word begins: (…, T) int64 -> (…, T) bool."""
        starts = self.opens[ids]
        starts[..., 1:] |= self.closes[ids[..., :-1]]
        return starts


def word_table(tokenizer: Tokenizer) -> WordTable:
    """The table of a tokenizer."""
    size, special = tokenizer.vocab_size, set(tokenizer.special.values())
    texts = [tokenizer.token_bytes(id) for id in range(size)]
    opens, closes = (np.array([not _continues(text, end) for text in texts]) for end in (0, -1))
    if prefix := continuing_prefix(tokenizer.spec):  # then the spelling says so
        opens = np.ones(size, bool)
        for spelled, id in tokenizer.spec["model"]["vocab"].items():
            opens[id] = not spelled.startswith(prefix)
    found = np.array([id in special for id in range(size)])
    return WordTable(found, opens | found, closes | found)


def _continues(text: bytes, end: int) -> bool:
    """Whether the first (0) or last (-1) character of a token's bytes is inside a word."""
    characters = text.decode("utf-8", "surrogateescape")
    if not characters:
        return True
    letter = characters[end]
    if (
        "\udc80" <= letter <= "\udcff"
    ):  # part of a character; those of three bytes and more are mostly of no spaced script
        return end == -1 or ord(letter) < 0xDCE0
    if unicodedata.category(letter)[0] not in "LMN":
        return False
    return not unicodedata.name(letter, "").startswith(_UNSPACED)
