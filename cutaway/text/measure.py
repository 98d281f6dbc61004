"""Counting characters, words and repeated n-grams of a whole batch at once, for any script.

The texts of a batch are laid end to end as code points (U of them), and a table gives each its kinds. A *unit* is a
word in scripts that put spaces between words, and a single character in those that do not (Chinese, Japanese, Thai
…), so that one rule serves all.

Legend: N documents, U code points, W units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LETTER, SPACE, SYMBOL, UNSPACED, BROKEN = 1, 2, 4, 8, 16

# Scripts written without spaces between words: Thai to Tibetan, Myanmar, Khmer, Hangul stays out, kana, Han and its
# extensions.
_UNSPACED_RANGES = (
    (0x0E00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
MANY = 2048  # n-grams; of longer documents a sample is looked at for repetition
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2**64
_MIX = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True)
class Counts:
    """What one document consists of, in characters; `units` are words, or characters of unspaced scripts."""

    characters: int
    letters: int
    spaces: int
    symbols: int
    unspaced: int
    broken: int
    units: int


class Measured:
    """The counts of every document of a batch, and the hashes of its n-grams of units."""

    def __init__(self, texts: Sequence[str]) -> None:
        joined = "\n".join(texts) + "\n"
        self.codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)  # (U,)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + 1  # with the line feed between
        self.bounds = np.concatenate(([0], np.cumsum(lengths)))  # (N + 1,) where each document starts
        kinds = np.take(kind_table(), self.codes)  # (U,)
        space = (kinds & SPACE) != 0
        alone = ((kinds[1:] | kinds[:-1]) & UNSPACED) != 0  # neighbours of which one is a unit by itself
        first, last = ~space, ~space
        first[1:] &= space[:-1] | alone
        last[:-1] &= space[1:] | alone
        self.units = np.flatnonzero(first)  # (W,) where each unit starts
        self.unit_ends = np.flatnonzero(last) + 1  # (W,)
        self.unit_bounds = np.searchsorted(self.units, self.bounds)  # (N + 1,)
        spaces = self._count(space) - 1
        # Most characters are letters, so counting the few that are neither letter nor space is quicker.
        letters = lengths - 1 - spaces - self._count((kinds & (LETTER | SPACE)) == 0)
        rare = [self._count((kinds & kind) != 0) for kind in (SYMBOL, UNSPACED, BROKEN)]
        columns = (lengths - 1, letters, spaces, *rare, np.diff(self.unit_bounds))
        self.counts = [Counts(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def _count(self, flags: np.ndarray) -> np.ndarray:
        """How many of `flags` (U,) are set in each document: (N,)."""
        return np.diff(np.searchsorted(np.flatnonzero(flags), self.bounds))

    def ngrams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The 64-bit hashes of every document's n-grams of units, in order: (G,) uint64, and where each document's
        start: (N + 1,).

        A rolling polynomial hash (Karp & Rabin 1987): prefix sums of code × base**position modulo 2**64; the
        difference of two, divided by the base to the power of the start, depends on the characters between alone.
        """
        powers, inverses = _powers(1 << len(self.codes).bit_length())
        prefix = np.zeros(len(self.codes) + 1, np.uint64)
        np.cumsum((self.codes.astype(np.uint64) + np.uint64(1)) * powers[: len(self.codes)], out=prefix[1:])
        counts = np.maximum(np.diff(self.unit_bounds) - n + 1, 0)  # (N,)
        offsets = np.concatenate(([0], np.cumsum(counts)))
        # n-gram g of document d starts with unit g - offsets[d] + unit_bounds[d].
        unit = np.arange(offsets[-1]) + np.repeat(self.unit_bounds[:-1] - offsets[:-1], counts)
        start, stop = self.units[unit], self.unit_ends[unit + n - 1]
        hashes = (prefix[stop] - prefix[start]) * inverses[start]
        return (hashes ^ (hashes >> np.uint64(29))) * _MIX, offsets

    def repeated_ngrams(self, n: int) -> np.ndarray:
        """Which share of each document's n-grams of units repeats an earlier one: (N,) from 0 to 1.

        Of documents with more than MANY n-grams a quarter is looked at, chosen by their hashes: all copies of an n-gram
        are in the sample or none, so the share stays unbiased (its standard error is then below 0.02).
        """
        hashes, offsets = self.ngrams(n)
        counts = np.diff(offsets)
        number = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
        if (counts > MANY).any():
            sampled = ((hashes & np.uint64(3)) == 0) | (counts <= MANY)[number]
            hashes, number = hashes[sampled], number[sampled]
            counts = np.bincount(number.astype(np.int64), minlength=len(counts))
        # the document's number above what is left of the hash: one sort for all
        bits = np.uint64(len(counts).bit_length())
        keys = np.sort((number << (np.uint64(64) - bits)) | (hashes >> bits))
        repeats = keys[1:][keys[1:] == keys[:-1]] >> (np.uint64(64) - bits)
        return np.bincount(repeats.astype(np.int64), minlength=len(counts)) / np.maximum(counts, 1)


@lru_cache(maxsize=1)
def kind_table() -> np.ndarray:
    """The kinds of every code point as bit flags, (0x110000,) uint8; from Python's own Unicode data."""
    table = np.zeros(0x110000, np.uint8)
    for code in range(0x323B0):  # planes 0 to 3: above them no letters and no spaces are assigned
        character = chr(code)
        table[code] = LETTER * character.isalpha() | SPACE * character.isspace()
    for low, high in _UNSPACED_RANGES:
        table[low : high + 1] |= (table[low : high + 1] & LETTER) * np.uint8(UNSPACED)  # LETTER is 1
    table[[ord("#"), ord("…")]] |= SYMBOL
    table[0xFFFD] |= BROKEN
    return table


@lru_cache(maxsize=1)
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """base**i and base**-i modulo 2**64 for i < count."""
    inverse = np.uint64(pow(int(_BASE), -1, 1 << 64))
    both = []
    for base in (_BASE, inverse):
        powers = np.full(count, base, np.uint64)
        powers[0] = 1
        both.append(np.cumprod(powers))
    return both[0], both[1]
