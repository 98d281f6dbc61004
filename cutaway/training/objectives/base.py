"""What an objective is: how a batch is made of the data, how far off a network's answer was, and how that is scored.

A batch is a function of (seed, step) alone. What is drawn for a row depends on (seed, step, row), so neither the number
of processes nor that of pieces changes it. Losses are sums, with how many positions they are of.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError
from cutaway.models.assemble import Network
from cutaway.tokenizers import Tokenizer, TokenSplit, TokenStore
from cutaway.tokenizers.order import keys, uniform
from cutaway.training.losses import IGNORE
from cutaway.training.ranks import Ranks
from cutaway.training.rows import Rows, RowStore

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig

Piece = dict[str, Tensor]
Data = TokenStore | RowStore  # what is trained on: tokens on disk, or examples in memory
Split = TokenSplit | Rows
ROWS = 4096  # tokens per forward pass of an evaluation; more is no faster and its logits take a lot of memory
DRAWS = 1_000_003  # sets the draws for rows apart from those that order the data


@dataclass(frozen=True)
class Batch:
    """This process's rows of the batch of a step.

    Attributes:
        tensors: name -> (B, …); all have their rows in the same order.
        starts: where each row is from: the place of its first token in the split, or the number of its example.
        nominal: about how many positions of the whole batch count, the same for all processes.
        tokens: that the network reads in the whole batch.
    """

    tensors: Piece
    starts: list[int]
    nominal: float
    tokens: int

    def pieces(self, count: int) -> Iterator[Piece]:
        """The rows in at most `count` groups."""
        parts = [tensor.chunk(min(count, len(self.starts))) for tensor in self.tensors.values()]
        for part in zip(*parts, strict=True):
            yield dict(zip(self.tensors, part, strict=True))


@dataclass(frozen=True)
class Score:
    """How good a network is on a split.

    Attributes:
        loss: the mean of what is trained on; in nats, but for regression.
        tokens: how many positions (or texts, for those that are labelled whole) it is the mean of.
        figures: what else is natural to say: bits_per_byte, accuracy …
    """

    loss: float
    tokens: int
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective(ABC):
    """What a network learns; a small frozen config with its meaning.

    Attributes:
        name: as in OBJECTIVES.
        kinds: of networks that can learn it; the first is made when none is asked for.
        data: what the store must hold: "texts" (any does), "pairs", "labels" or "rows".
        parts: of rows in memory, the parts that are needed; (): it learns from none.
        speaks: whether the trained network continues a prompt, so that samples can be shown.
        drops: whether it learns of texts without some of their tokens (`TrainConfig.word_dropout`).
        counted: whether an n-gram model's loss can be compared with it.
        lr_rest: usual learning rate of embeddings, outputs and norms beside Muon.
        unit: of the loss, for people.
        shown: names of the figures that say most.
        whole: whether every token passes through every parameter, so that 6 · parameters · tokens is the work done.
    """

    name: ClassVar[str] = ""
    kinds: ClassVar[tuple[str, ...]] = ()
    data: ClassVar[str] = "texts"
    parts: ClassVar[tuple[str, ...]] = ()
    speaks: ClassVar[bool] = False
    drops: ClassVar[bool] = False
    counted: ClassVar[bool] = False
    lr_rest: ClassVar[float] = 0.01
    unit: ClassVar[str] = "nats a token"
    shown: ClassVar[tuple[str, ...]] = ("accuracy",)
    whole: ClassVar[bool] = True

    # the network

    def tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """The data's tokenizer, with what the objective adds to its vocabulary."""
        return tokenizer

    def features(self, store: Data, context: int) -> dict[str, Any]:
        """Fields of the network's config that follow from the objective and its data, unless the user gives others."""
        return {}

    def fit(self, network: Any) -> None:
        """Check that a network of this config can learn it.

        Raises:
            ConfigError: it cannot; says what it has and what is needed.
        """
        if network.kind not in self.kinds:
            raise ConfigError(
                f"the objective {self.name!r} trains {' or '.join(self.kinds)} networks, but network.kind is "
                f"{network.kind!r}; leave it out, or choose another objective"
            )

    def learner(self, network: Network, store: Data) -> nn.Module:
        """What is trained: the network, made ready; or a module that holds it and a helper."""
        return network

    def read_ids(self, store: Data) -> np.ndarray | None:
        """Every id that the network reads while it learns, (U,) int64; None: it may be any."""
        return None

    def helpers(self, learner: nn.Module) -> dict[str, Network]:
        """Networks that are trained beside it and saved in folders of these names."""
        return {}

    # the data

    def check(self, store: Data, config: TrainConfig) -> None:
        """Check that the data can be learned from.

        Raises:
            InputError: it is not what the objective needs, or too little.
        """
        if isinstance(store, RowStore):
            there = store["train"].parts
            if not self.parts or not set(self.parts) <= there.keys():
                needs = f"the parts {', '.join(self.parts)}" if self.parts else "a token store on disk"
                raise InputError(f"{store.folder} holds {', '.join(there)}; the objective {self.name!r} needs {needs}")
        elif self.data != "texts" and store.kind != self.data:
            raise InputError(f"{store.folder} holds {store.kind}; {self.how_to_prepare()}")
        self.batch(store["train"], config, Ranks(), 0)

    def how_to_prepare(self) -> str:
        """A sentence for who has other data."""
        how = {"pairs": "--source COLUMN --target COLUMN", "labels": "--text COLUMN --label COLUMN"}.get(self.data, "")
        return f"the objective {self.name!r} needs {self.data}; prepare them with: cutaway prepare FILE {how}"

    def notes(self, store: Data, config: TrainConfig) -> list[str]:
        """What the user should know about how the data is used."""
        return []

    @abstractmethod
    def batch(self, split: Split, config: TrainConfig, ranks: Ranks, step: int) -> Batch:
        """This process's rows of the batch of a step: a function of (seed, step)."""

    @abstractmethod
    def in_order(self, split: Split, context: int) -> Iterator[Batch]:
        """All of a split once, in batches of `rows`, the same at every evaluation."""

    @abstractmethod
    def rows(self, split: Split, context: int) -> tuple[int, float]:
        """How many rows the batches of `in_order` have, and of how many tokens on average."""

    @abstractmethod
    def sources(self, split: Split, starts: Sequence[int], context: int) -> list[str]:
        """The documents that a batch's rows are from, each once."""

    # the answer

    @abstractmethod
    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        """The sum of the losses, and of how many positions.

        Args:
            forward: the learner, perhaps compiled.
            piece: some rows of a batch.
            config: for label_smoothing and z_loss.
        """

    @abstractmethod
    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        """What `score` needs of some rows, as numbers that can be added up; the first counts positions."""

    @abstractmethod
    def score(self, sums: Sequence[float], split: Split) -> Score:
        """The figures, from the sums of what `measure` gave."""


class Windows(Objective):
    """An objective on raw text, in windows of `context` tokens that may span documents."""

    def windows(
        self, split: Split, config: TrainConfig, ranks: Ranks, step: int, length: int
    ) -> tuple[Tensor, list[int], np.ndarray]:
        """Ids (B, T) int64, the first token of each row, and a key (B,) uint64 to draw from."""
        ids, _, starts = on_disk(split).batch(
            step, seed=config.seed, batch=config.batch, context=length, rank=ranks.rank, world=ranks.world
        )
        first = step * config.batch + ranks.rank * len(ids)
        return torch.from_numpy(ids), starts.tolist(), keys(config.seed + DRAWS, np.arange(first, first + len(ids)))

    def windows_in_order(self, split: Split, length: int) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
        """Ids (B, T) int64, (B, T) bool False past the end of the split, and a key (B,) uint64 to draw from."""
        first = 0
        for _, targets in on_disk(split).in_order(self.rows(split, length)[0], length):
            real = targets != IGNORE
            ids = np.where(real, targets, split.end_of_text)
            yield torch.from_numpy(ids), torch.from_numpy(real), keys(DRAWS, np.arange(first, first + len(ids)))
            first += len(ids)

    def rows(self, split: Split, context: int) -> tuple[int, float]:
        return max(1, ROWS // context), context

    def sources(self, split: Split, starts: Sequence[int], context: int) -> list[str]:
        return on_disk(split).documents_at(starts, context)


class Examples(Objective):
    """An objective on examples, each a row of its own, padded to the longest of its batch."""

    @abstractmethod
    def pad(self, split: Split, numbers: np.ndarray, context: int) -> Piece:
        """The tensors of the examples of these numbers."""

    texts: ClassVar[bool] = True  # a whole text counts once; else every token of an answer

    def batch(self, split: Split, config: TrainConfig, ranks: Ranks, step: int) -> Batch:
        world = ranks.world
        numbers, lengths = split.draw(step, seed=config.seed, batch=config.batch, rank=ranks.rank, world=world)
        tokens = int(np.minimum(lengths, split.group * config.context).sum())  # longer ones are cut
        nominal = config.batch if self.texts else tokens
        return Batch(self.pad(split, numbers, config.context), numbers.tolist(), nominal, tokens)

    def in_order(self, split: Split, context: int) -> Iterator[Batch]:
        rows, _ = self.rows(split, context)
        for first in range(0, split.examples, rows):
            numbers = np.arange(first, min(first + rows, split.examples))
            tokens = int(split.lengths(numbers).sum())
            yield Batch(self.pad(split, numbers, context), numbers.tolist(), tokens, tokens)

    def rows(self, split: Split, context: int) -> tuple[int, float]:
        return max(1, ROWS // context), split.tokens / max(1, split.examples)

    def sources(self, split: Split, starts: Sequence[int], context: int) -> list[str]:
        return list(dict.fromkeys(split.source(number * split.group) for number in starts))


def on_disk(split: Split) -> TokenSplit:
    """A split of a token store, for what learns from nothing else (`Objective.check` has seen to it)."""
    assert isinstance(split, TokenSplit)
    return split


def need_head(name: str, network: Any, head: str) -> None:
    """Raise ConfigError unless the network has the head that an objective trains."""
    if network.head != head:
        raise ConfigError(
            f"the objective {name!r} trains a network whose head is {head!r}, but network.head is {network.head!r}; "
            "leave it out"
        )


def padded(texts: Sequence[np.ndarray], filler: int) -> Tensor:
    """Ids of different lengths as (B, T) int64, T that of the longest, the rest filled up."""
    out = np.full((len(texts), max(1, *map(len, texts))), filler, np.int64)
    for row, ids in zip(out, texts, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(out)


def draws(row_keys: np.ndarray, count: int, length: int) -> Tensor:
    """(count, B, T) float64 in [0, 1); each row's follow from its key."""
    return torch.from_numpy(np.ascontiguousarray(uniform(row_keys, count, length)))
