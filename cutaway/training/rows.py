"""Encoded examples in memory: what a task trains on, where a token store on disk would be too much.

A split holds named parts, each an array for every example: `ids` that a network reads, `types` of its tokens, `target`
and whatever else an objective asks for. They are drawn, padded and scored as those of a token store are.

Shapes: N examples, B batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np
from jaxtyping import Int64

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.tokenizers import Tokenizer
from cutaway.tokenizers.order import drawn

Parts = Mapping[str, Sequence[np.ndarray]]


class Rows:
    """One split.

    Args:
        name: "train", "valid" …
        parts: name -> an array for each of N examples; their lengths may differ.
        tokenizer: what ids mean.
        sources: where each example came from; () numbers them.
        reads: the parts that a network reads, whose tokens make the length of an example.

    Raises:
        ConfigError: parts of different numbers of examples.
    """

    group = 1

    def __init__(
        self,
        name: str,
        parts: Parts,
        tokenizer: Tokenizer,
        sources: Sequence[str] = (),
        reads: Sequence[str] = ("ids",),
    ) -> None:
        counts = {part: len(arrays) for part, arrays in parts.items()}
        if len(set(counts.values())) > 1:
            raise ConfigError(f"the parts of {name} have different numbers of examples: {counts}")
        self.name, self.parts, self.tokenizer = name, parts, tokenizer
        self.examples = next(iter(counts.values()), 0)
        self.sources = list(sources) or [f"{name}:{number}" for number in range(self.examples)]
        self.end_of_text = tokenizer.end_of_text or 0
        self._lengths = np.zeros(self.examples, np.int64)
        for part in reads:
            self._lengths += np.array([len(array) for array in parts[part]], np.int64)
        self.tokens = int(self._lengths.sum())
        self.reads = tuple(reads)
        self.bytes = 0

    def __getitem__(self, part: str) -> Sequence[np.ndarray]:
        if part not in self.parts:
            raise ConfigError(unknown(f"part of {self.name}", part, self.parts))
        return self.parts[part]

    def some(self, part: str, numbers: Int64[np.ndarray, " B"]) -> list[np.ndarray]:
        """The arrays of these examples."""
        arrays = self[part]
        return [arrays[number] for number in numbers.tolist()]

    def lengths(self, numbers: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """The tokens of these examples, (B,) int64."""
        return self._lengths[numbers]

    def draw(
        self, step: int, *, seed: int, batch: int, rank: int = 0, world: int = 1
    ) -> tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " N"]]:
        """Which examples a step's batch has, as `order.drawn` says.

        Raises:
            InputError: the split is empty.
        """
        if not self.examples:
            raise InputError(f"there are no examples in {self.name!r}; give more")
        return drawn(step, self.examples, self.lengths, seed=seed, batch=batch, rank=rank, world=world)

    def read_ids(self) -> Int64[np.ndarray, " U"]:
        """Every id that a network reads here, padding included, (U,) int64 in order."""
        every = [np.unique(np.concatenate(self.parts[part])) for part in self.reads if self.examples]
        return np.unique(np.concatenate([np.array([0, self.tokenizer.pad or 0], np.int64), *every]))

    def source(self, number: int) -> str:
        """Where an example came from."""
        return self.sources[number]


class RowStore:
    """All splits: `store["train"]` are Rows.

    Attributes:
        tokenizer: what ids mean.
        splits: name -> Rows.
        folder: what to call it in messages.
        labels: names of the labels, where there are any.
    """

    kind = "rows"

    def __init__(
        self,
        splits: Mapping[str, Rows],
        tokenizer: Tokenizer,
        *,
        labels: Sequence[str] = (),
        name: str = "the examples",
    ) -> None:
        self.splits, self.tokenizer, self.labels, self.folder = dict(splits), tokenizer, tuple(labels), name

    def __getitem__(self, split: str) -> Rows:
        if split not in self.splits:
            raise ConfigError(unknown(f"split of {self.folder}", split, self.splits))
        return self.splits[split]

    def fingerprint(self) -> str:
        """A SHA-256 of all that is in it: a run is continued with nothing else."""
        whole = sha256(repr((self.labels, self.tokenizer.fingerprint)).encode())
        for name, rows in sorted(self.splits.items()):
            for part, arrays in sorted(rows.parts.items()):
                whole.update(f"{name}\0{part}\0{rows.examples}".encode())
                for array in arrays:
                    whole.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return whole.hexdigest()
