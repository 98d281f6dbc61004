"""Duplicates: exact ones by a hash of the normalised text, near ones by MinHash (Broder 1997) and banding.

Both are decided on small keys, not on texts, so a corpus of any size is decided in one place in document order while
the keys are computed anywhere: the first of a group stays, and the outcome does not depend on who computed what when.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from cutaway.errors import need
from cutaway.text.documents import Document
from cutaway.text.measure import Measured
from cutaway.text.outcome import Dropped, Outcome

# Two texts are the same if they differ in ASCII case and white space alone.
_LOWER = bytes(range(256)).translate(bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz"))
_SPACES = b" \t\n\r\f\v"

# FineWeb's choice (Penedo et al. 2024, section 3.4): 5-grams, 112 hashes in 14 bands of 8. Two texts with Jaccard
# similarity s meet in a band with probability 1 - (1 - s**8)**14: 0.56 at s = 0.7, 0.77 at 0.75, 0.92 at 0.8, and
# 0.05 at 0.5.
SHINGLE, BANDS, ROWS = 5, 14, 8

SAME, NEARLY_SAME = "the same text came before", "nearly the same text came before"


def text_key(text: str) -> int:
    """A 64-bit key that is equal for texts equal up to ASCII case and white space.

    Among ten million different texts the chance that any two share a key is about 3 in a million.
    """
    return bytes_key(text.encode("utf-8", "surrogatepass"))


def bytes_key(text: bytes) -> int:
    """`text_key` of a text's UTF-8."""
    normal = text.translate(_LOWER, _SPACES)
    return int.from_bytes(blake2b(normal, digest_size=8).digest(), "little")


def text_keys(texts: Sequence[str]) -> np.ndarray:
    """`text_key` of each text: (N,) uint64."""
    return np.fromiter(map(text_key, texts), np.uint64, len(texts))


def band_keys(texts: Sequence[str], *, seed: int = 0) -> np.ndarray:
    """The keys of the MinHash bands of each text: (N, BANDS) uint64. Texts that share a key are near-duplicates.

    Raises:
        MissingExtra: rensa is not installed.
    """
    rensa: Any = need("rensa", "documents", "near-duplicate removal")
    if not texts:
        return np.zeros((0, BANDS), np.uint64)
    hashes, offsets = Measured(texts).ngrams(SHINGLE)
    digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets.tolist(), BANDS * ROWS, seed
    ).to_rows()
    rows = np.array(digests, np.uint64).reshape(len(texts), BANDS, ROWS)
    keys = np.arange(1, BANDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # bands do not meet one another
    keys = np.broadcast_to(keys, (len(texts), BANDS)).copy()
    for row in range(ROWS):
        keys = mix(keys ^ rows[:, :, row])
    # A text shorter than a shingle has no 5-gram and would be near to every other such text: it is near only to itself.
    short = np.flatnonzero(np.diff(offsets) == 0)
    keys[short] = mix(text_keys([texts[i] for i in short.tolist()])[:, None] ^ keys[short])
    return keys


class Seen:
    """A growing set of 64-bit keys at some 8 bytes a key (a Python set takes about 90).

    Sorted runs of doubling sizes, merged like binary carries (Bentley & Saxe 1980): adding and looking up a batch of
    keys takes O(log n) sorted searches.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def has(self, keys: np.ndarray) -> np.ndarray:
        """Which of `keys` are in the set: bool, the shape of `keys`."""
        found = np.zeros(keys.shape, bool)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            found |= run[place] == keys
        return found

    def add(self, keys: np.ndarray) -> None:
        """Put `keys` (any shape) into the set."""
        new = np.unique(keys.ravel())
        new = new[~self.has(new)]
        if not len(new):
            return
        while self._runs and len(self._runs[-1]) <= 2 * len(new):
            new = np.concatenate((self._runs.pop(), new))
            new.sort()
        self._runs.append(new)

    def first(self, keys: np.ndarray) -> np.ndarray:
        """Which documents are new: those none of whose keys is in the set or belongs to a new document before them.

        Args:
            keys: (N,) one key a document, or (N, K) several. The keys of new documents are added.

        Returns:
            (N,) bool.
        """
        rows = keys[:, None] if keys.ndim == 1 else keys
        new: np.ndarray = np.logical_not(self.has(rows)).min(axis=1)
        here: set[int] = set()
        for number in np.flatnonzero(new).tolist():
            own = rows[number].tolist()
            if here.isdisjoint(own):
                here.update(own)
            else:
                new[number] = False
        self.add(rows[new])
        return new


def exact_duplicates(documents: Sequence[Document], seen: Seen | None = None) -> Outcome:
    """Drop documents whose normalised text came before, in this batch or in `seen` (which is then extended)."""
    return _drop(documents, text_keys, seen, "exact_duplicates", SAME)


def near_duplicates(documents: Sequence[Document], seen: Seen | None = None) -> Outcome:
    """Drop documents that share a MinHash band with a document kept before (similar in about 3/4 of their 5-grams).

    Raises:
        MissingExtra: rensa is not installed.
    """
    return _drop(documents, band_keys, seen, "near_duplicates", NEARLY_SAME)


def near_groups(texts: Sequence[str]) -> np.ndarray:
    """For each text the lowest index of its group of near-duplicates, links followed both ways: (N,) int64."""
    group = list(range(len(texts)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    owner: dict[int, int] = {}
    for i, keys in enumerate(band_keys(texts).tolist()):
        for key in keys:
            a, b = root(owner.setdefault(key, i)), root(i)
            group[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(len(texts))], np.int64)


def _drop(
    documents: Sequence[Document],
    keys: Callable[[Sequence[str]], np.ndarray],
    seen: Seen | None,
    step: str,
    reason: str,
) -> Outcome:
    new = (Seen() if seen is None else seen).first(keys([document.text for document in documents]))
    outcome = Outcome()
    for document, fresh in zip(documents, new.tolist(), strict=True):
        if fresh:
            outcome.kept.append(document)
        else:
            outcome.dropped.append(Dropped(document, step, reason))
    return outcome


def mix(keys: np.ndarray) -> np.ndarray:
    """A bijective mix of 64 bits (the finaliser of splitmix64: Steele, Lea & Flood 2014)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
