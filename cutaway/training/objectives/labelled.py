"""Texts with labels: which class a text is of (cross-entropy), or which number it has (least squares).

Shapes: B batch, T tokens, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError
from cutaway.models.assemble import Network
from cutaway.models.heads import Head
from cutaway.tokenizers import Tokenizer
from cutaway.tokenizers.frame import frame
from cutaway.tokenizers.order import keys
from cutaway.training.losses import cross_entropy
from cutaway.training.objectives.base import (
    DRAWS,
    Batch,
    Data,
    Examples,
    Piece,
    Score,
    Split,
    draws,
    need_head,
    on_disk,
    padded,
)
from cutaway.training.ranks import Ranks
from cutaway.training.rows import Rows, RowStore

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig

MOST_CLASSES = 1000  # more are likely to be numbers


class Labelled(Examples):
    """Learn the label of a text, with a head that reads the whole of it.

    Rows in memory hold `ids` with all special tokens, where a text is of two `types` of its tokens, and a `target`.
    """

    kinds: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "recurrent")
    data: ClassVar[str] = "labels"
    parts: ClassVar[tuple[str, ...]] = ("ids", "target")
    drops: ClassVar[bool] = True

    def batch(self, split: Split, config: TrainConfig, ranks: Ranks, step: int) -> Batch:
        made = super().batch(split, config, ranks, step)
        if not config.word_dropout:
            return made
        first = step * config.batch + ranks.rank * len(made.starts)
        row_keys = keys(config.seed + DRAWS, np.arange(first, first + len(made.starts)))
        stays = draws(row_keys, 1, made.tensors["ids"].shape[1])[0] >= config.word_dropout  # (B, T)
        return replace(made, tensors=shortened(made.tensors, stays, split.tokenizer))

    def fit(self, network: Any) -> None:
        super().fit(network)
        need_head(self.name, network, "sequence_classification")

    def features(self, store: Data, context: int) -> dict[str, Any]:
        framed = len(frame(store.tokenizer, [])[0]) > 0  # the first token is then one that stands for the whole text
        return {"head": "sequence_classification", "pooling": "cls" if framed else "mean"}

    def notes(self, store: Data, config: TrainConfig) -> list[str]:
        if isinstance(store, RowStore):  # were cut before
            return []
        lengths = store["train"].lengths(np.arange(store["train"].examples)) - 1
        long = int((lengths > config.context).sum())
        return [f"{long:,} of {len(lengths):,} texts are longer than {config.context} tokens and are cut"] * bool(long)

    def read_ids(self, store: Data) -> np.ndarray | None:
        return store["train"].read_ids() if isinstance(store, RowStore) else None

    def pad(self, split: Split, numbers: np.ndarray, context: int) -> Piece:
        if isinstance(split, Rows):
            return {**read_rows(split, numbers, context), "targets": self.known(split, numbers)}
        tokenizer = split.tokenizer
        texts = [frame(tokenizer, split.document(n).tolist(), longest=context)[0] for n in numbers.tolist()]
        made = masked([np.array(text, np.int64) for text in texts], tokenizer)
        return {**made, "targets": self.targets(split, split.labels(numbers))}

    def targets(self, split: Split, places: np.ndarray) -> Tensor:
        """What stands for the labels of these places in the store, (B,)."""
        raise NotImplementedError

    def known(self, rows: Rows, numbers: np.ndarray) -> Tensor:
        """What rows in memory say is right, (B,) or (B, L)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Classification(Labelled):
    """Which class is a text of; or, with `several`, which of the labels hold of it, each asked by itself?

    In memory a target is the number of a class, (1,) int64; or for each label how far it holds, 0 … 1, (L,) float32.
    """

    several: bool = False  # any number of labels may hold of a text
    weights: tuple[float, ...] = ()  # of the classes' losses, for those that are rare; (): all 1
    consistency: float = 0.0  # of how far two readings of a text under other dropout differ (R-Drop); 0: read once

    name: ClassVar[str] = "classify"
    unit: ClassVar[str] = "nats a text"
    shown: ClassVar[tuple[str, ...]] = ("accuracy", "majority", "macro_f1")

    def check(self, store: Data, config: TrainConfig) -> None:
        super().check(store, config)
        if len(store.labels) > MOST_CLASSES and not isinstance(store, RowStore):
            raise InputError(
                f"{store.folder} has {len(store.labels):,} different labels; if they are numbers, train with the "
                "objective 'regress'"
            )
        if self.weights and len(self.weights) != len(store.labels):
            raise ConfigError(f"there are {len(self.weights)} weights for {len(store.labels)} labels of {store.folder}")
        if self.several and not isinstance(store, RowStore):
            raise ConfigError("a token store holds one label of each text; leave several out")

    def features(self, store: Data, context: int) -> dict[str, Any]:
        several = {"labelling": "several"} if self.several else {}
        return {**super().features(store, context), "labels": store.labels, **several}

    def targets(self, split: Split, places: np.ndarray) -> Tensor:
        return torch.from_numpy(places)

    def known(self, rows: Rows, numbers: np.ndarray) -> Tensor:
        targets = torch.from_numpy(np.stack(rows.some("target", numbers)))
        return targets.float() if self.several else targets[:, 0]

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        if not self.consistency:
            logits = forward(piece["ids"], **given(piece))
            return self._loss(logits, piece["targets"], config), len(piece["targets"])
        twice = {name: torch.cat([tensor, tensor]) for name, tensor in piece.items()}  # each row has its own dropout
        logits = forward(twice["ids"], **given(twice))
        loss = self._loss(logits, twice["targets"], config) / 2 + self.consistency * self._apart(*logits.chunk(2))
        return loss, len(piece["targets"])

    def _apart(self, first: Tensor, second: Tensor) -> Tensor:
        """The mean of both Kullback-Leibler divergences between two readings, summed over texts and free labels."""
        a, b = first.float(), second.float()
        if self.several:
            return ((a.sigmoid() - b.sigmoid()) * (a - b)).sum() / 2
        return ((a.softmax(-1) - b.softmax(-1)) * (a.log_softmax(-1) - b.log_softmax(-1))).sum() / 2

    def _loss(self, logits: Tensor, targets: Tensor, config: TrainConfig) -> Tensor:
        """The sum of the losses of texts."""
        if self.several:
            return self._each(logits, targets)
        if self.weights:
            weights = torch.tensor(self.weights, device=logits.device)
            how: dict[str, Any] = {"weight": weights, "label_smoothing": config.label_smoothing, "reduction": "sum"}
            return F.cross_entropy(logits.float(), targets, **how)
        how = {"label_smoothing": config.label_smoothing, "z_loss": config.z_loss}
        return cross_entropy(logits, targets, **how, reduction="sum")

    def _each(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of every label by itself; the weights are of those that hold."""
        weights = torch.tensor(self.weights, device=logits.device) if self.weights else None
        return F.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=weights, reduction="sum")

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        logits, targets = learner(piece["ids"], **given(piece)), piece["targets"]
        if self.several:
            said, true = logits > 0, targets > 0.5
            exact = float((said == true).all(1).sum())
            counts = [true.sum(0), said.sum(0), (true & said).sum(0)]
            return [len(targets), float(self._each(logits, targets)), exact, *torch.cat(counts).tolist()]
        guesses = logits.argmax(-1)
        loss = float(cross_entropy(logits, targets, reduction="sum"))
        count = logits.shape[-1]
        there, said = targets.bincount(minlength=count), guesses.bincount(minlength=count)
        right = targets[guesses == targets].bincount(minlength=count)
        return [len(targets), loss, float(right.sum()), *there.tolist(), *said.tolist(), *right.tolist()]

    def score(self, sums: Sequence[float], split: Split) -> Score:
        counted, loss, whole, *rest = sums
        there, said, right = np.array(rest).reshape(3, -1)
        seen = there + said > 0
        f1 = 2 * right[seen] / (there + said)[seen]  # of each class
        figures = {
            "accuracy": whole / counted,  # of texts of which all is right
            "majority": float(there.max()) / counted,  # the accuracy of always saying the commonest
            "macro_f1": float(f1.mean()) if len(f1) else 0.0,
        }
        if self.several:
            del figures["majority"]
        return Score(loss / counted, int(counted), figures)


def given(piece: Piece) -> dict[str, Tensor]:
    """What a network is told of ids besides themselves."""
    return {name: piece[name] for name in ("mask", "token_types") if name in piece}


def masked(texts: Sequence[np.ndarray], tokenizer: Tokenizer) -> Piece:
    """Ids of texts (B, T) and which are real; an empty text is read as one token of padding."""
    lengths = torch.tensor([max(1, len(text)) for text in texts])
    ids = padded(texts, tokenizer.pad if tokenizer.pad is not None else 0)
    return {"ids": ids, "mask": torch.arange(ids.shape[1]) < lengths[:, None]}


def shortened(piece: Piece, stays: Bool[Tensor, "B T"], tokenizer: Tokenizer) -> Piece:
    """Texts without some of their tokens, as if these had never stood there (Iyyer et al. 2015).

    Args:
        piece: ids (B, T), which of them are real, and perhaps their types; other tensors stay as they are.
        stays: (B, T) what is kept; special tokens always are, and of each text at least the first token.
        tokenizer: which tokens are special.
    """
    ids, mask = piece["ids"], piece["mask"]
    kept = mask & (stays | torch.isin(ids, torch.tensor(sorted(tokenizer.special.values()), dtype=ids.dtype)))
    kept[:, 0] |= ~kept.any(1)
    order = (~kept).int().argsort(dim=1, stable=True)[:, : int(kept.sum(1).max())]
    moved = {name: piece[name].gather(1, order) for name in ("ids", "token_types") if name in piece}
    return {**piece, **moved, "mask": torch.arange(order.shape[1]) < kept.sum(1, keepdim=True)}


def read_rows(rows: Rows, numbers: np.ndarray, context: int) -> Piece:
    """What a network reads of rows in memory: ids, mask, and the types of tokens where they have some."""
    piece = masked([ids[:context] for ids in rows.some("ids", numbers)], rows.tokenizer)
    if "types" in rows.parts:
        piece["token_types"] = padded([types[:context] for types in rows.some("types", numbers)], 0)
    return piece


@dataclass(frozen=True)
class Regression(Labelled):
    """Which number has a text? A classification with one label, as transformers' problem_type "regression" has it."""

    name: ClassVar[str] = "regress"
    unit: ClassVar[str] = "squared error"
    shown: ClassVar[tuple[str, ...]] = ("r", "r2")

    def check(self, store: Data, config: TrainConfig) -> None:
        if store.kind == "labels":
            _values(store.labels, str(store.folder))
        super().check(store, config)

    def features(self, store: Data, context: int) -> dict[str, Any]:
        return {**super().features(store, context), "labels": ("value",), "labelling": "number"}

    def fit(self, network: Any) -> None:
        super().fit(network)
        if len(network.labels) != 1:
            raise ConfigError(
                f"the objective {self.name!r} trains a head of one label, but network.labels has "
                f"{len(network.labels)}; leave it out"
            )

    def learner(self, network: Network, store: Data) -> nn.Module:
        """The network, which says the mean of the training labels at first."""
        head = network.head
        assert isinstance(head, Head)  # `fit` has seen to it
        if head.out.bias is not None:
            train = store["train"]
            numbers = np.arange(train.examples)
            known = (
                self.known(train, numbers) if isinstance(train, Rows) else self.targets(train, train.labels(numbers))
            )
            with torch.no_grad():
                head.out.bias.fill_(known.mean())
        return network

    def targets(self, split: Split, places: np.ndarray) -> Tensor:
        return torch.from_numpy(_values(on_disk(split).label_names, split.name)[places])

    def known(self, rows: Rows, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(np.stack(rows.some("target", numbers))[:, 0].astype(np.float32))

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        said, targets = forward(piece["ids"], **given(piece))[:, 0], piece["targets"]
        return (said.float() - targets).square().sum(), len(targets)

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        said, targets = learner(piece["ids"], **given(piece))[:, 0].double(), piece["targets"].double()
        sums = ((said - targets).square(), said, said.square(), targets, targets.square(), said * targets)
        return [len(targets), *(float(x.sum()) for x in sums)]

    def score(self, sums: Sequence[float], split: Split) -> Score:
        counted, error, said, said2, true, true2, both = sums
        said_spread, true_spread = said2 / counted - (said / counted) ** 2, true2 / counted - (true / counted) ** 2
        together = both / counted - said * true / counted**2
        spread = math.sqrt(max(0.0, said_spread * true_spread))
        mse = error / counted
        figures = {
            "mse": mse,
            "r": together / spread if spread > 0 else 0.0,  # Pearson's; without any spread nothing is correlated
            "r2": 1 - mse / true_spread if true_spread > 0 else 0.0,  # share of the labels' variance that is explained
        }
        return Score(mse, int(counted), figures)


@lru_cache(maxsize=4)
def _values(labels: tuple[str, ...], where: str) -> np.ndarray:
    """Labels as numbers, (L,) float32.

    Raises:
        InputError: one is no number.
    """
    try:
        values = np.array([float(label) for label in labels], np.float32)
    except ValueError as error:
        raise InputError(
            f"the labels of {where} are not all numbers ({error}); train with the objective 'classify'"
        ) from error
    if not np.isfinite(values).all():
        raise InputError(f"the labels of {where} are not all finite numbers; leave those rows out and prepare again")
    return values
