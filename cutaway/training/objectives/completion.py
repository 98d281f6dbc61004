"""Complete a text: the tokens behind a prompt are learned, and not the prompt itself.

Shapes: B batch, T tokens, S source tokens, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor, nn

from cutaway.training.losses import IGNORE, cross_entropy
from cutaway.training.objectives.base import Examples, Piece, Score, Split, padded
from cutaway.training.objectives.labelled import masked
from cutaway.training.objectives.seq2seq import written
from cutaway.training.rows import Rows

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig


@dataclass(frozen=True)
class Completion(Examples):
    """Predict each token of a text from where its target `begins`, (1,) int64, to the end of its `ids`.

    Where rows have a `source` too, with all special tokens, an encoder–decoder reads it, and the ids are its target.
    Its `rouge1` is of the tokens that are likeliest, each after the true ones before it, and those that are true.
    """

    name: ClassVar[str] = "complete"
    kinds: ClassVar[tuple[str, ...]] = ("decoder", "seq2seq")
    data: ClassVar[str] = "rows"
    parts: ClassVar[tuple[str, ...]] = ("ids", "begins")
    texts: ClassVar[bool] = False
    speaks: ClassVar[bool] = True

    def pad(self, split: Split, numbers: np.ndarray, context: int) -> Piece:
        assert isinstance(split, Rows)  # `check` has seen to it
        if "source" in split.parts:
            source = masked([ids[:context] for ids in split.some("source", numbers)], split.tokenizer)
            targets = padded([ids[:context] for ids in split.some("ids", numbers)], IGNORE)
            return {"source": source["ids"], "source_mask": source["mask"], "targets": targets}
        texts = [ids[: context + 1] for ids in split.some("ids", numbers)]
        targets = []
        for ids, begins in zip(texts, split.some("begins", numbers), strict=True):
            target = ids[1:].copy()
            target[: max(0, int(begins[0]) - 1)] = IGNORE
            targets.append(target)
        return {"ids": padded([ids[:-1] for ids in texts], split.end_of_text), "targets": padded(targets, IGNORE)}

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        logits, targets = _wanted(_said(forward, piece), piece["targets"])
        how = {"label_smoothing": config.label_smoothing, "z_loss": config.z_loss}
        return cross_entropy(logits, targets, **how, reduction="sum"), len(targets)

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        output = _said(learner, piece)
        logits, targets = _wanted(output, piece["targets"])
        loss = float(cross_entropy(logits, targets, reduction="sum"))
        right = int((logits.argmax(-1) == targets).sum())
        alike = 0.0
        for said, true in zip(output.argmax(-1), piece["targets"], strict=True):
            counted = true != IGNORE
            bags = Counter(said[counted].tolist()), Counter(true[counted].tolist())
            alike += (bags[0] & bags[1]).total() / max(1, int(counted.sum()))
        return [len(targets), loss, right, len(output), alike]

    def score(self, sums: Sequence[float], split: Split) -> Score:
        counted, loss, right, rows, alike = sums
        return Score(loss / counted, int(counted), {"accuracy": right / counted, "rouge1": alike / rows})


def _said(network: Any, piece: Piece) -> Tensor:
    """Logits (B, T, V) of the targets, each token's from the true ones before it."""
    return written(network, piece) if "source" in piece else network(piece["ids"])


def _wanted(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, V) and targets (N,) of the positions that count."""
    counted = targets != IGNORE
    return logits[counted], targets[counted]
