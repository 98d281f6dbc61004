"""Causal language modelling: predict the next token from those before it.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from cutaway.training.losses import IGNORE, cross_entropy
from cutaway.training.objectives.base import Batch, Piece, Score, Split, Windows, need_head, on_disk
from cutaway.training.ranks import Ranks

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig


@dataclass(frozen=True)
class Causal(Windows):
    """Every token is predicted from those before it."""

    name: ClassVar[str] = "causal"
    kinds: ClassVar[tuple[str, ...]] = ("decoder", "recurrent")
    speaks: ClassVar[bool] = True
    counted: ClassVar[bool] = True
    shown: ClassVar[tuple[str, ...]] = ("bits_per_byte",)

    def fit(self, network: Any) -> None:
        super().fit(network)
        if network.kind == "decoder":
            need_head(self.name, network, "causal_lm")

    def batch(self, split: Split, config: TrainConfig, ranks: Ranks, step: int) -> Batch:
        ids, targets, starts = on_disk(split).batch(
            step, seed=config.seed, batch=config.batch, context=config.context, rank=ranks.rank, world=ranks.world
        )
        tensors = {"ids": torch.from_numpy(ids), "targets": torch.from_numpy(targets)}
        return Batch(tensors, starts.tolist(), ids.size * ranks.world, config.batch * config.context)

    def in_order(self, split: Split, context: int) -> Iterator[Batch]:
        """Every token once as a target, the first predicted from end_of_text."""
        for ids, targets in on_disk(split).in_order(self.rows(split, context)[0], context):
            tensors = {"ids": torch.from_numpy(ids), "targets": torch.from_numpy(targets)}
            yield Batch(tensors, [0] * len(ids), ids.size, ids.size)

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        targets = piece["targets"]
        loss = cross_entropy(
            forward(piece["ids"]),
            targets,
            label_smoothing=config.label_smoothing,
            z_loss=config.z_loss,
            reduction="sum",
        )
        return loss, int((targets != IGNORE).sum())

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        targets = piece["targets"]
        loss = cross_entropy(learner(piece["ids"]), targets, reduction="sum")
        return [int((targets != IGNORE).sum()), float(loss)]

    def score(self, sums: Sequence[float], split: Split) -> Score:
        counted, total = sums
        loss = total / counted
        bits = loss / math.log(2) * split.tokens / max(1, split.bytes)
        return Score(loss, int(counted), {"bits_per_byte": bits})
