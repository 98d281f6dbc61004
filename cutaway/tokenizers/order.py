"""The order in which training sees a split: a pure function of (seed, step), in no memory, for any number of processes.

A pass over the split (an epoch) is a pseudo-random permutation of its windows, computed and not stored: a Feistel
network on a grid of rows and columns just larger than the number of windows, walked until it lands inside (Black &
Rogaway 2002, "Ciphers with arbitrary finite domains": generalised Feistel, cycle walking). Each epoch has
keys of its own.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64, Integer, UInt64

ROUNDS = 6
POOL = 64  # batches of examples that are sorted by length together
_GOLDEN = 0x9E3779B97F4A7C15


def mix(values: UInt64[np.ndarray, "*S"]) -> UInt64[np.ndarray, "*S"]:
    """Scramble uint64 numbers, one to one: the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keys(seed: int, epochs: Integer[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
    """One uint64 key per (seed, epoch)."""
    start = mix(np.array([(seed * _GOLDEN + 1) % 2**64], np.uint64))
    return mix(start ^ mix(epochs.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(2)))


def uniform(keys: UInt64[np.ndarray, " N"], draws: int, length: int) -> Float64[np.ndarray, "D N T"]:
    """Random numbers in [0, 1) of which each row depends on its key alone: (draws, N, length) float64.

    They are SplitMix64's, which scrambles a counter, so any of them is had without those before it.

    Args:
        keys: uint64 (N,), one for each row.
        draws: how many tables of numbers.
        length: of a row.
    """
    count = np.arange(1, draws * length + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    numbers = mix(keys[:, None] + count) >> np.uint64(11)  # the 53 bits that a float64 holds
    return (numbers * 2.0**-53).reshape(len(keys), draws, length).transpose(1, 0, 2)


def permute(index: UInt64[np.ndarray, " N"], size: int, key: UInt64[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
    """Send each index of 0 … size-1 to its place in the permutation that its key names.

    Args:
        index: uint64 (N,), each below `size`.
        size: how many there are to permute, at least 1.
        key: uint64 (N,); rows with the same key share a permutation.
    """
    columns = int(np.ceil(np.sqrt(size)))
    rows = -(-size // columns)
    out = _feistel(index, rows, columns, key)
    while (outside := out >= size).any():
        out[outside] = _feistel(out[outside], rows, columns, key[outside])
    return out


def drawn(
    step: int,
    examples: int,
    lengths: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int,
    batch: int,
    rank: int = 0,
    world: int = 1,
) -> tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " N"]]:
    """Which examples a step's batch has, a pure function of (seed, step).

    An epoch goes through the examples in an order of its own. Those of POOL batches are sorted by length before they
    are divided, so that little is padded, and the batches then come in any order.

    Args:
        step: 0, 1, 2 …
        examples: how many there are, at least 1.
        lengths: of the examples of these numbers, in tokens.
        seed: any integer.
        batch: rows over all processes.
        rank: which process this is, which gets its share.
        world: how many processes there are; must divide `batch`.

    Returns:
        The numbers of this process's examples, (B,) int64; and the lengths of all rows of the batch, (N,) int64.
    """
    pool, place = divmod(step, POOL)
    walk = np.arange(pool * POOL * batch, (pool + 1) * POOL * batch, dtype=np.uint64)
    epoch, index = np.divmod(walk, np.uint64(examples))
    numbers = permute(index, examples, keys(seed, epoch)).astype(np.int64)
    size = lengths(numbers)
    key = keys(seed, np.array([pool]))
    chosen = int(permute(np.array([place], np.uint64), POOL, key)[0])
    rows = np.argsort(size, kind="stable")[chosen * batch : (chosen + 1) * batch]
    share = batch // world
    return numbers[rows][rank * share : (rank + 1) * share], size[rows]


def _feistel(
    index: UInt64[np.ndarray, " N"], rows: int, columns: int, key: UInt64[np.ndarray, " N"]
) -> UInt64[np.ndarray, " N"]:
    """A permutation of rows × columns places: shift each row by a hash of its number, then each column, again."""
    height, width = np.uint64(rows), np.uint64(columns)
    row, column = np.divmod(index, width)
    for step in range(0, ROUNDS, 2):
        column = (column + mix(row + key + np.uint64(step)) % width) % width
        row = (row + mix(column + key + np.uint64(step + 1)) % height) % height
    return row * width + column
