"""Counting, done well: an interpolated modified Kneser–Ney n-gram model (Kneser & Ney 1995; Chen & Goodman 1998).

It is the baseline that every training run is compared with: how much better than counting? numpy only.

A context is a run of ids. Level n holds every n-gram seen, sorted, with its count: how often it occurred at the highest
level, and in how many left contexts it occurred below. The probability at each level is the discounted count plus the
left-over mass times the level below; at the bottom it is uniform.

Shapes: N tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from cutaway.errors import ConfigError, DamagedFile, InputError

ORDERS = (2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Level:
    """The n-grams of one length.

    A context is numbered by its place among the n-grams one shorter, so that context and next id pack exactly into
    64 bits, whatever the length.

    Attributes:
        keys: sorted, context number x V + next id, one per n-gram.
        counts: per n-gram.
        sums: per context, the counts of its n-grams together; 0 where only the end of the text follows.
        left: per context, the mass that the discounts free for the level below, as a share of its count.
        discounts: subtracted from counts of 1, 2, and 3 or more.
    """

    keys: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    left: np.ndarray
    discounts: tuple[float, float, float]


class NGram:
    """An n-gram model.

    Args:
        levels: from unigrams up.
        vocab_size: V.
    """

    def __init__(self, levels: list[Level], vocab_size: int) -> None:
        self.levels, self.vocab_size = levels, vocab_size

    @property
    def order(self) -> int:
        """The longest n-gram."""
        return len(self.levels)

    @property
    def parameters(self) -> int:
        """How many counts are stored."""
        return sum(level.counts.size for level in self.levels)

    @classmethod
    def fit(cls, tokens: np.ndarray, vocab_size: int, order: int = 5, *, modified: bool = True) -> NGram:
        """Count.

        Args:
            tokens: (N,) ids.
            vocab_size: V; every id is below it.
            order: the longest n-gram, at least 1.
            modified: three discounts per level from the counts of counts; else one, as Kneser & Ney had it.

        Raises:
            InputError: fewer tokens than the order, or an id outside the vocabulary.
            ConfigError: order below 1.
        """
        tokens = _checked(tokens, vocab_size)
        if order < 1:
            raise ConfigError(f"the order of an n-gram model must be at least 1, but {order} was given")
        if tokens.size < order:
            raise InputError(
                f"an n-gram model of order {order} needs at least {order} tokens, but {tokens.size} were given"
            )
        # number[i] is the n-gram that starts at i, among the n-grams of that length
        number = np.zeros(tokens.size, dtype=np.int64)
        grams, numbers = [], [number]
        for n in range(1, order + 1):
            size = tokens.size - n + 1
            keys, number, counts = np.unique(
                number[:size] * vocab_size + tokens[n - 1 :], return_inverse=True, return_counts=True
            )
            grams.append((keys, counts))
            numbers.append(number)
        levels = []
        for n, (keys, counts) in enumerate(grams, start=1):
            if n < order:  # in how many different left contexts the n-gram was seen; at the text's very start, in one
                longer, size = grams[n][0], tokens.size - n
                firsts = np.zeros(longer.size, dtype=np.int64)
                firsts[numbers[n + 1]] = np.arange(size)
                counts = np.bincount(numbers[n][firsts + 1], minlength=keys.size)
                counts[numbers[n][0]] = max(1, counts[numbers[n][0]])
            contexts = 1 if n == 1 else grams[n - 2][0].size
            levels.append(_level(keys, counts.astype(np.float64), contexts, vocab_size, modified))
        return cls(levels, vocab_size)

    def logprobs(self, tokens: np.ndarray) -> np.ndarray:
        """(N,) natural log of each token's probability after up to order - 1 tokens before it."""
        tokens = _checked(tokens, self.vocab_size)
        probabilities = np.full(tokens.size, 1.0 / self.vocab_size)
        places = np.zeros(tokens.size, dtype=np.int64)  # number of the context that ends before each token, or -1
        for n, level in enumerate(self.levels, start=1):
            if n > 1:
                places = self._contexts(tokens, n - 1)
            here = np.flatnonzero(places >= 0)
            context = places[here]
            probabilities[here] = _mix(self.vocab_size, level, context, tokens[here], probabilities[here])
        return np.log(probabilities)

    def loss(self, tokens: np.ndarray) -> float:
        """Mean nats per token."""
        return float(-self.logprobs(tokens).mean())

    def next(self, ids: Iterable[int]) -> np.ndarray:
        """(V,) probabilities of the token after `ids`."""
        history = _checked(np.asarray(list(ids), dtype=np.int64), self.vocab_size)
        everything = np.arange(self.vocab_size)
        probabilities = np.full(self.vocab_size, 1.0 / self.vocab_size)
        for n, level in enumerate(self.levels, start=1):
            if n - 1 > history.size:
                break
            context = 0
            for k in range(1, n):
                context = int(_find(self.levels[k - 1].keys, context * self.vocab_size + history[history.size - n + k]))
                if context < 0:
                    break
            if context < 0:
                break
            places = np.full(self.vocab_size, context)
            probabilities = _mix(self.vocab_size, level, places, everything, probabilities)
        return probabilities

    def save(self, path: str | Path) -> None:
        """Write one .npz file."""
        arrays = {"vocab_size": np.array(self.vocab_size)}
        for n, level in enumerate(self.levels):
            for name in ("keys", "counts", "sums", "left"):
                arrays[f"{n}.{name}"] = getattr(level, name)
            arrays[f"{n}.discounts"] = np.array(level.discounts)
        np.savez_compressed(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> NGram:
        """Read what `save` wrote.

        Raises:
            DamagedFile: not such a file.
        """
        try:
            with Path(path).open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                levels = []
                while f"{len(levels)}.keys" in file:
                    n = len(levels)
                    keys, counts, sums, left = (file[f"{n}.{name}"] for name in ("keys", "counts", "sums", "left"))
                    one, two, more = (float(d) for d in file[f"{n}.discounts"])
                    levels.append(Level(keys, counts, sums, left, (one, two, more)))
                return cls(levels, int(file["vocab_size"]))
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise DamagedFile(f"{path} is not an n-gram model ({error}); fit it again") from error

    def _contexts(self, tokens: np.ndarray, length: int) -> np.ndarray:
        """(N,) number of the n-gram of this length that ends right before each token, -1 where unseen or too early."""
        found = np.full(tokens.size, -1, dtype=np.int64)
        size = tokens.size - length
        if size <= 0:
            return found
        number = np.zeros(size, dtype=np.int64)
        for k in range(length):
            keys = np.where(number >= 0, number * self.vocab_size + tokens[k : k + size], -1)
            number = _find(self.levels[k].keys, keys)
        found[length:] = number
        return found


def best_order(
    train: np.ndarray, valid: np.ndarray, vocab_size: int, orders: Iterable[int] = ORDERS
) -> tuple[NGram, float]:
    """The n-gram model with the lowest loss on `valid`, and that loss.

    Orders are tried upwards, and the search ends when a longer one is no better.
    """
    best: tuple[NGram, float] | None = None
    for order in sorted(orders):
        if train.size < order:
            break
        model = NGram.fit(train, vocab_size, order)
        loss = model.loss(valid)
        if best is not None and loss >= best[1]:
            break
        best = model, loss
    if best is None:
        raise InputError(f"an n-gram model needs at least {min(orders)} tokens, but {train.size} were given")
    return best


def _level(keys: np.ndarray, counts: np.ndarray, contexts: int, vocab_size: int, modified: bool) -> Level:
    discounts = _discounts(counts, modified)
    starts = np.searchsorted(keys, np.arange(contexts + 1) * vocab_size)
    ones, twos, more = discounts
    freed = np.select([counts == 1, counts == 2], [ones, twos], more)
    total = np.concatenate(([0.0], np.cumsum(counts)))
    given = np.concatenate(([0.0], np.cumsum(np.minimum(freed, counts))))
    sums = total[starts[1:]] - total[starts[:-1]]
    left = np.divide(given[starts[1:]] - given[starts[:-1]], sums, out=np.ones(contexts), where=sums > 0)
    return Level(keys, counts, sums, left, discounts)


def _discounts(counts: np.ndarray, modified: bool) -> tuple[float, float, float]:
    """Chen & Goodman's estimates; where a small text lacks the counts of counts, 0.75 as is common practice."""
    n1, n2, n3, n4 = (int((counts == k).sum()) for k in (1, 2, 3, 4))
    if not n1 or not n2:
        return 0.75, 0.75, 0.75
    base = n1 / (n1 + 2 * n2)
    if not modified:
        return base, base, base
    if not n3 or not n4:
        return base, base, base
    found = 1 - 2 * base * n2 / n1, 2 - 3 * base * n3 / n2, 3 - 4 * base * n4 / n3
    return tuple(min(max(d, 0.0), float(k)) for k, d in enumerate(found, start=1))  # pyright: ignore[reportReturnType]


def _mix(vocab_size: int, level: Level, context: np.ndarray, token: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Discounted count over the context's sum, plus the freed mass times the level below."""
    place = _find(level.keys, context * vocab_size + token)
    counts = np.where(place >= 0, level.counts[place], 0.0)
    ones, twos, more = level.discounts
    discount = np.select([counts == 0, counts == 1, counts == 2], [0.0, ones, twos], more)
    # after a context that only ends the text there is nothing but the level below
    sums = np.maximum(level.sums[context], 1.0)
    return np.maximum(counts - discount, 0.0) / sums + level.left[context] * below


def _find(keys: np.ndarray, wanted: np.ndarray | int) -> np.ndarray:
    """The place of each wanted key among the sorted ones, or -1."""
    place = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[place] == wanted, place, -1)


def _checked(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    tokens = np.asarray(tokens).astype(np.int64).ravel()
    if tokens.size and (tokens.min() < 0 or tokens.max() >= vocab_size):
        raise InputError(f"token ids must lie in 0 … {vocab_size - 1}, but {tokens.min()} … {tokens.max()} was given")
    return tokens
