"""Splits: which documents are for training, validation and test, decided by what they say and nothing else."""

from collections.abc import Sequence

import numpy as np

from cutaway.errors import ConfigError
from cutaway.text.dedup import mix, near_groups, text_keys

SPLITS = ("train", "valid", "test")


def check_fractions(valid: float, test: float) -> None:
    """Raise ConfigError unless both are shares that leave something to train on."""
    for name, value in (("valid", valid), ("test", test)):
        if not 0 <= value < 1:
            raise ConfigError(f"{name} must be a share of the documents, from 0 to below 1, but {value!r} was given")
    if valid + test >= 1:
        raise ConfigError(f"valid={valid} and test={test} leave nothing to train on; their sum must be below 1")


def pieces(text: str, size: int) -> list[str]:
    """Cut a text into consecutive pieces of about `size` characters, after empty lines, else lines, else words.

    The pieces add up to the text. A text up to 1.5 × size stays whole. Pieces are what long documents are divided by:
    one novel can then be in training and validation without any text being in both.
    """
    found, start = [], 0
    while len(text) - start > 3 * size // 2:
        low, high = start + size // 2, start + size
        for mark in ("\n\n", "\n", "。", " "):
            if cut := text.rfind(mark, low, high) + 1:
                cut += len(mark) - 1
                break
        else:
            cut = high
        found.append(text[start:cut])
        start = cut
    return [*found, text[start:]]


def positions(keys: np.ndarray, seed: int = 0) -> np.ndarray:
    """Where each key falls between 0 and 1: (N,) uint64 -> (N,) float64, a function of (key, seed) alone."""
    return (mix(mix(keys ^ np.uint64(seed % 2**64))) >> np.uint64(11)) * 2.0**-53


def choose(keys: np.ndarray, *, valid: float = 0.05, test: float = 0.0, seed: int = 0) -> np.ndarray:
    """The split of each key: (N,) uint64 -> (N,) int8, an index into SPLITS.

    The same text is always in the same split, whatever else is in the corpus, in whatever order, with however many
    workers. Enlarging `valid` or the corpus never moves a validation document into training.
    """
    place = positions(keys, seed)
    return np.where(place < valid, 1, np.where(place >= 1 - test, 2, 0)).astype(np.int8)


def split(
    texts: Sequence[str], *, valid: float = 0.05, test: float = 0.0, seed: int = 0, near: bool = False
) -> list[str]:
    """The split of each text, "train", "valid" or "test"; equal texts (up to case and white space) always share one.

    Args:
        texts: the documents' texts.
        valid: share of the documents for validation.
        test: share of the documents for testing.
        seed: another seed, another division.
        near: keep groups of near-duplicates together too: each group goes where its smallest key falls.

    Raises:
        ConfigError: shares that do not leave anything to train on.
        MissingExtra: `near` without rensa.
    """
    check_fractions(valid, test)
    keys = text_keys(texts)
    if near and len(texts):
        groups = near_groups(texts)
        smallest = np.full(len(texts), np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(smallest, groups, keys)
        keys = smallest[groups]
    return [SPLITS[i] for i in choose(keys, valid=valid, test=test, seed=seed).tolist()]
