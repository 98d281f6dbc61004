"""Counting, done well: an interpolated modified Kneser–Ney n-gram model (Kneser & Ney 1995; Chen & Goodman 1998).

It is the baseline that every training run is compared with: how much better than counting? numpy only.

Level n holds every n-gram seen, with its count: how often it occurred at the highest level, and after how many
different tokens below. A level's probability is the discounted count's share of its context's counts, and what the
discounts free goes to the level below; below unigrams all tokens are equally likely.

Shapes: N tokens, V vocabulary, G n-grams of a level, X contexts of a level.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from jaxtyping import Float64, Int64

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.files import write_atomic

ORDERS = (2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Level:
    """The n-grams of one length.

    An n-gram is numbered by its place here, and its context by that number one level below (there is one empty
    context). So context and next token pack exactly into 64 bits, whatever the length and the vocabulary.

    Attributes:
        keys: (G,) int64, ascending: number of the context x V + next token.
        counts: (G,) int64.
        discounts: subtracted from counts of 1, of 2, and of 3 or more.
        sums: (X,) int64, the counts after each context together; 0 after what only the end of the text followed.
        freed: (X,) float64, the share of that sum which the discounts free.
    """

    keys: Int64[np.ndarray, " G"]
    counts: Int64[np.ndarray, " G"]
    discounts: tuple[float, float, float]
    sums: Int64[np.ndarray, " X"]
    freed: Float64[np.ndarray, " X"]

    @classmethod
    def of(
        cls,
        keys: Int64[np.ndarray, " G"],
        counts: Int64[np.ndarray, " G"],
        discounts: tuple[float, float, float],
        contexts: int,
        vocab_size: int,
    ) -> Level:
        """Derive the sums over each of the X contexts."""
        context = keys // vocab_size
        taken = np.bincount(context, weights=_by_count(counts, discounts), minlength=contexts)
        sums = np.bincount(context, weights=counts, minlength=contexts).astype(np.int64)
        freed = np.divide(taken, sums, out=np.ones(contexts), where=sums > 0)
        return cls(keys, counts, discounts, sums, freed)

    def mix(
        self, place: Int64[np.ndarray, " K"], context: Int64[np.ndarray, " K"], below: Float64[np.ndarray, " K"]
    ) -> Float64[np.ndarray, " K"]:
        """Probabilities at this level, of K n-grams.

        Args:
            place: of each n-gram in `keys`, or -1.
            context: number of each n-gram's context.
            below: probability of its last token at the level below.
        """
        counts = np.where(place >= 0, self.counts[place], 0)
        kept = counts - _by_count(counts, self.discounts)
        return kept / np.maximum(self.sums[context], 1) + self.freed[context] * below


class NGram:
    """An n-gram model over token ids.

    Args:
        levels: from unigrams up.
        vocab_size: V.
    """

    def __init__(self, levels: list[Level], vocab_size: int) -> None:
        self.levels, self.vocab_size = levels, vocab_size

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.levels)

    @property
    def parameters(self) -> int:
        """How many counts are stored."""
        return sum(level.counts.size for level in self.levels)

    @classmethod
    def fit(
        cls,
        tokens: np.ndarray,
        vocab_size: int,
        order: int = 5,
        *,
        modified: bool = True,
        discount: float | None = None,
    ) -> NGram:
        """Count.

        Args:
            tokens: (N,) ids.
            vocab_size: V; every id is below it.
            order: length of the longest n-grams, at least 1.
            modified: estimate three discounts per level (Chen & Goodman); else one (Kneser & Ney).
            discount: one number in [0, 1] to subtract from every count instead of an estimate. With 0, probabilities
                are plain shares, and what never occurred has none.

        Raises:
            InputError: fewer tokens than the order, or something that is no id of the vocabulary.
            ConfigError: order below 1, or a discount outside [0, 1].
        """
        if order < 1:
            raise ConfigError(f"the order of an n-gram model must be at least 1, but {order} was given")
        if discount is not None and not 0 <= discount <= 1:
            raise ConfigError(f"the discount of an n-gram model must be in [0, 1], but {discount} was given")
        tokens = _checked(tokens, vocab_size)
        if tokens.size < order:
            raise InputError(
                f"an n-gram model of order {order} needs at least {order} tokens, but {tokens.size} were given; "
                "give more text or a lower order"
            )
        *_, model = _growing(tokens, vocab_size, order, modified, discount)
        return model

    def logprobs(self, tokens: np.ndarray) -> Float64[np.ndarray, " N"]:
        """(N,) natural log of each token's probability after the up to order - 1 tokens before it.

        Raises:
            InputError: something that is no id of the vocabulary.
        """
        tokens = _checked(tokens, self.vocab_size)
        probabilities = np.full(tokens.size, 1 / self.vocab_size)
        context = np.zeros(tokens.size, dtype=np.int64)  # of the n-gram that starts at each token, -1 if unseen
        for n, level in enumerate(self.levels[: tokens.size], start=1):
            context = context[: tokens.size - n + 1]
            place = self._find(level, context, tokens[n - 1 :])
            seen = np.flatnonzero(context >= 0)
            last = seen + n - 1
            probabilities[last] = level.mix(place[seen], context[seen], probabilities[last])
            context = place
        with np.errstate(divide="ignore"):  # with a discount of 0, minus infinity is the answer
            return np.log(probabilities)

    def loss(self, tokens: np.ndarray) -> float:
        """Mean nats per token.

        Raises:
            InputError: no tokens, or something that is no id of the vocabulary.
        """
        if not len(tokens):
            raise InputError("a mean over no tokens does not exist; give at least one")
        return float(-self.logprobs(tokens).mean())

    def next(self, ids: Iterable[int]) -> Float64[np.ndarray, " V"]:
        """(V,) probabilities of the token after `ids`.

        Raises:
            InputError: something that is no id of the vocabulary.
        """
        past = _checked(np.fromiter(ids, dtype=np.int64), self.vocab_size)
        past = past[past.size - min(past.size, self.order - 1) :]
        probabilities = np.full(self.vocab_size, 1 / self.vocab_size)
        context = np.zeros(past.size + 1, dtype=np.int64)  # the last one is of what comes next
        for n, level in enumerate(self.levels[: past.size + 1], start=1):
            if context[-1] < 0:
                break
            here = np.full(self.vocab_size, context[-1])
            place = self._find(level, here, np.arange(self.vocab_size))
            probabilities = level.mix(place, here, probabilities)
            context = self._find(level, context[:-1], past[n - 1 :])
        return probabilities

    def _find(
        self, level: Level, context: Int64[np.ndarray, " K"], token: Int64[np.ndarray, " K"]
    ) -> Int64[np.ndarray, " K"]:
        """The place in `level` of each n-gram, -1 where it or its context (-1) was not seen."""
        wanted = np.where(context >= 0, context * self.vocab_size + token, -1)
        place = np.minimum(np.searchsorted(level.keys, wanted), level.keys.size - 1)
        return np.where(level.keys[place] == wanted, place, -1)

    def save(self, path: str | Path) -> None:
        """Write one .npz file, whole or not at all.

        Raises:
            InputError: the disk is full or the place cannot be written.
        """
        arrays = {"vocab_size": np.array(self.vocab_size)}
        for n, level in enumerate(self.levels, start=1):
            arrays |= {
                f"{n}.keys": level.keys,
                f"{n}.counts": level.counts,
                f"{n}.discounts": np.array(level.discounts),
            }
        file = io.BytesIO()
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]  # no array is named allow_pickle
        write_atomic(Path(path), file.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> NGram:
        """Read what `save` wrote.

        Raises:
            InputError: no such file.
            DamagedFile: not an n-gram model, or not a whole one.
        """
        try:
            with ZipFile(path) as file:
                return cls._of_arrays(
                    {info.filename.removesuffix(".npy"): _array(file, info) for info in file.infolist()}
                )
        except FileNotFoundError as error:
            raise InputError(f"{path} does not exist") from error
        except (
            ValueError,
            TypeError,
            KeyError,
            OSError,
            EOFError,
            BadZipFile,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise DamagedFile(f"{path} is not an n-gram model ({error}); fit it again") from error

    @classmethod
    def _of_arrays(cls, arrays: dict[str, np.ndarray]) -> NGram:
        """The model, checked to hold together; ValueError or KeyError if it does not."""
        vocab_size, levels, contexts = int(arrays["vocab_size"]), [], 1
        for n in range(1, max(2, (len(arrays) - 1) // 3 + 1)):
            keys, counts = arrays[f"{n}.keys"], arrays[f"{n}.counts"]
            one, two, more = arrays[f"{n}.discounts"].tolist()
            whole = keys.ndim == 1 and keys.shape == counts.shape and keys.dtype == counts.dtype == np.int64
            if not (whole and keys.size and (np.diff(keys) > 0).all() and counts.min() > 0):
                raise ValueError(f"the {n}-grams do not fit each other")
            if keys[0] < 0 or keys[-1] >= contexts * vocab_size:
                raise ValueError(f"the {n}-grams do not fit the vocabulary or the shorter n-grams")
            if not (0 <= one <= 1 and 0 <= two <= 2 and 0 <= more <= 3):
                raise ValueError(f"the discounts of the {n}-grams are larger than the counts")
            levels.append(Level.of(keys, counts, (one, two, more), contexts, vocab_size))
            contexts = keys.size
        return cls(levels, vocab_size)


def _array(file: ZipFile, info: ZipInfo) -> np.ndarray:
    """An array of an .npz, which is as large as its bytes: neither packed nor larger by what its head says."""
    if info.compress_type != ZIP_STORED or info.compress_size != info.file_size:
        raise ValueError(f"{info.filename} is packed, as n-gram models are not")
    data = io.BytesIO(file.read(info))
    if np.lib.format.read_magic(data) != (1, 0):
        raise ValueError(f"{info.filename} is no array of version 1")
    shape, _, dtype = np.lib.format.read_array_header_1_0(data)
    left = data.getbuffer()[data.tell() :]
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(left):
        raise ValueError(f"{info.filename} has {len(left):,} bytes, not the {shape} numbers that it speaks of")
    return np.frombuffer(left, dtype).reshape(shape)


def best_order(
    train: np.ndarray, valid: np.ndarray, vocab_size: int, orders: Iterable[int] = ORDERS
) -> tuple[NGram, float]:
    """The n-gram model with the lowest loss on `valid`, and that loss.

    One pass of counting serves all orders; those longer than the text are left out.

    Raises:
        InputError: fewer training tokens than the lowest order, no validation tokens, or ids outside the vocabulary.
        ConfigError: no order, or one below 1.
    """
    wanted = sorted(set(orders))
    if not wanted or wanted[0] < 1:
        raise ConfigError(f"the orders to try must be at least 1, but {wanted or 'none'} was given")
    train = _checked(train, vocab_size)
    if train.size < wanted[0]:
        raise InputError(f"an n-gram model needs at least {wanted[0]} tokens, but {train.size} were given")
    growing = _growing(train, vocab_size, min(wanted[-1], train.size))
    scored = ((model, model.loss(valid)) for model in growing if model.order in wanted)
    return min(scored, key=lambda pair: pair[1])


def _growing(
    tokens: np.ndarray, vocab_size: int, order: int, modified: bool = True, discount: float | None = None
) -> Iterator[NGram]:
    """Models of order 1, 2, … `order`: all that is counted for one serves the next."""

    def level(keys: np.ndarray, counts: np.ndarray, contexts: int) -> Level:
        discounts = _discounts(counts, modified) if discount is None else (discount, discount, discount)
        return Level.of(keys, counts, discounts, contexts, vocab_size)

    lower: list[Level] = []
    number, shorter = np.zeros(tokens.size, dtype=np.int64), np.zeros(1, dtype=np.int64)
    contexts = 1  # how many n-grams one shorter there are; `number` is which of them starts at each token
    for n in range(1, order + 1):
        size = tokens.size - n + 1
        keys, longer, counts = np.unique(
            number[:size] * vocab_size + tokens[n - 1 :], return_inverse=True, return_counts=True
        )
        if n > 1:
            # each different n-gram is one token more that the (n-1)-gram at its end came after
            somewhere = np.empty(keys.size, dtype=np.int64)
            somewhere[longer] = np.arange(size)
            after = np.bincount(number[somewhere + 1], minlength=contexts)
            after[number[0]] = max(after[number[0]], 1)  # the text's first words came after its beginning
            lower.append(level(shorter, after, lower[-1].keys.size if lower else 1))
        yield NGram([*lower, level(keys, counts, contexts)], vocab_size)
        number, shorter, contexts = longer, keys, keys.size


def _discounts(counts: np.ndarray, modified: bool) -> tuple[float, float, float]:
    """The discounts of counts of 1, of 2, and of 3 or more, estimated from how many counts are 1, 2, 3 and 4.

    The three of Chen & Goodman (1998) must lie between 0 and the count. In small texts, or where n-grams
    are few and frequent as letters are, they may not: then Kneser & Ney's one serves for all counts, and where it does
    not exist either (no n-gram occurred once, or none twice), the customary 0.75.
    """
    n1, n2, n3, n4 = (int(n) for n in np.bincount(np.minimum(counts, 5), minlength=5)[1:5])
    if not n1 or not n2:
        return 0.75, 0.75, 0.75
    single = n1 / (n1 + 2 * n2)
    if modified and n3:
        two, more = 2 - 3 * single * n3 / n2, 3 - 4 * single * n4 / n3
        if 0 < two < 2 and 0 < more < 3:
            return 1 - 2 * single * n2 / n1, two, more
    return single, single, single


def _by_count(counts: np.ndarray, discounts: tuple[float, float, float]) -> np.ndarray:
    """What is subtracted from each count; nothing from 0."""
    return np.array([0.0, *discounts])[np.minimum(counts, 3)]


def _checked(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """The ids as int64."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or (tokens.size and not np.issubdtype(tokens.dtype, np.integer)):
        raise InputError(f"token ids must be one row of integers, but {tokens.dtype} of shape {tokens.shape} was given")
    if tokens.size and (tokens.min() < 0 or tokens.max() >= vocab_size):
        raise InputError(f"token ids must lie in 0 … {vocab_size - 1}, but {tokens.min()} … {tokens.max()} was given")
    return tokens.astype(np.int64)
