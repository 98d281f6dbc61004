"""Texts with labels: which class a text is of (cross-entropy), or which number it has (least squares).

Shapes: B batch, T tokens, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError
from cutaway.models import Encoder
from cutaway.models.assemble import Network
from cutaway.tokenizers import TokenSplit, TokenStore
from cutaway.tokenizers.frame import frame
from cutaway.training.losses import cross_entropy
from cutaway.training.objectives.base import Examples, Piece, Score, need_head, padded

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig

MOST_CLASSES = 1000  # more are likely to be numbers


class Labelled(Examples):
    """Learn the label of a text with an encoder, whose head reads the whole of it."""

    kinds: ClassVar[tuple[str, ...]] = ("encoder",)
    data: ClassVar[str] = "labels"

    def fit(self, network: Any) -> None:
        super().fit(network)
        need_head(self.name, network, "sequence_classification")

    def features(self, store: TokenStore, context: int) -> dict[str, Any]:
        framed = len(frame(store.tokenizer, [])[0]) > 0  # the first token is then one that stands for the whole text
        return {"head": "sequence_classification", "pooling": "cls" if framed else "mean"}

    def notes(self, store: TokenStore, config: TrainConfig) -> list[str]:
        lengths = store["train"].lengths(np.arange(store["train"].examples)) - 1
        long = int((lengths > config.context).sum())
        return [f"{long:,} of {len(lengths):,} texts are longer than {config.context} tokens and are cut"] * bool(long)

    def pad(self, split: TokenSplit, numbers: np.ndarray, context: int) -> Piece:
        tokenizer = split.tokenizer
        texts = [frame(tokenizer, split.document(n).tolist(), longest=context)[0] for n in numbers.tolist()]
        lengths = torch.tensor([max(1, len(text)) for text in texts])  # an empty one is read as one token of padding
        ids = padded([np.array(text, np.int64) for text in texts], tokenizer.pad if tokenizer.pad is not None else 0)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        return {"ids": ids, "mask": mask, "targets": self.targets(split, split.labels(numbers))}

    def targets(self, split: TokenSplit, places: np.ndarray) -> Tensor:
        """What stands for the labels of these places in the store, (B,)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Classification(Labelled):
    """Which class is a text of?"""

    name: ClassVar[str] = "classify"
    unit: ClassVar[str] = "nats a text"
    shown: ClassVar[tuple[str, ...]] = ("accuracy", "majority", "macro_f1")

    def check(self, store: TokenStore, config: TrainConfig) -> None:
        super().check(store, config)
        if len(store.labels) > MOST_CLASSES:
            raise InputError(
                f"{store.folder} has {len(store.labels):,} different labels; if they are numbers, train with the "
                "objective 'regress'"
            )

    def features(self, store: TokenStore, context: int) -> dict[str, Any]:
        return {**super().features(store, context), "labels": store.labels}

    def targets(self, split: TokenSplit, places: np.ndarray) -> Tensor:
        return torch.from_numpy(places)

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        logits, targets = forward(piece["ids"], mask=piece["mask"]), piece["targets"]
        how = {"label_smoothing": config.label_smoothing, "z_loss": config.z_loss}
        return cross_entropy(logits, targets, **how, reduction="sum"), len(targets)

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        logits, targets = learner(piece["ids"], mask=piece["mask"]), piece["targets"]
        guesses = logits.argmax(-1)
        loss = float(cross_entropy(logits, targets, reduction="sum"))
        count = logits.shape[-1]
        there, said = targets.bincount(minlength=count), guesses.bincount(minlength=count)
        right = targets[guesses == targets].bincount(minlength=count)
        return [len(targets), loss, *there.tolist(), *said.tolist(), *right.tolist()]

    def score(self, sums: Sequence[float], split: TokenSplit) -> Score:
        counted, loss, *rest = sums
        there, said, right = np.array(rest).reshape(3, -1)
        seen = there + said > 0
        f1 = 2 * right[seen] / (there + said)[seen]  # of each class
        figures = {
            "accuracy": float(right.sum()) / counted,
            "majority": float(there.max()) / counted,  # the accuracy of always saying the commonest
            "macro_f1": float(f1.mean()),
        }
        return Score(loss / counted, int(counted), figures)


@dataclass(frozen=True)
class Regression(Labelled):
    """Which number has a text? A classification with one label, as transformers' problem_type "regression" has it."""

    name: ClassVar[str] = "regress"
    unit: ClassVar[str] = "squared error"
    shown: ClassVar[tuple[str, ...]] = ("r", "r2")

    def check(self, store: TokenStore, config: TrainConfig) -> None:
        if store.kind == "labels":
            _values(store.labels, str(store.folder))
        super().check(store, config)

    def features(self, store: TokenStore, context: int) -> dict[str, Any]:
        return {**super().features(store, context), "labels": ("value",), "labelling": "number"}

    def fit(self, network: Any) -> None:
        super().fit(network)
        if len(network.labels) != 1:
            raise ConfigError(
                f"the objective {self.name!r} trains a head of one label, but network.labels has "
                f"{len(network.labels)}; leave it out"
            )

    def learner(self, network: Network, store: TokenStore) -> nn.Module:
        """The network, which says the mean of the training labels at first."""
        assert isinstance(network, Encoder)
        assert network.head is not None  # `fit` has seen to both
        if network.head.out.bias is not None:
            train = store["train"]
            with torch.no_grad():
                network.head.out.bias.fill_(self.targets(train, train.labels(np.arange(train.examples))).mean())
        return network

    def targets(self, split: TokenSplit, places: np.ndarray) -> Tensor:
        return torch.from_numpy(_values(split.label_names, split.name)[places])

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        said, targets = forward(piece["ids"], mask=piece["mask"])[:, 0], piece["targets"]
        return (said.float() - targets).square().sum(), len(targets)

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        said, targets = learner(piece["ids"], mask=piece["mask"])[:, 0].double(), piece["targets"].double()
        sums = ((said - targets).square(), said, said.square(), targets, targets.square(), said * targets)
        return [len(targets), *(float(x.sum()) for x in sums)]

    def score(self, sums: Sequence[float], split: TokenSplit) -> Score:
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
