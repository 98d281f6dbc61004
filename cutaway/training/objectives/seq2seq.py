"""Sequence to sequence: an encoder–decoder writes the target of a source, each token with the true ones before it.

Showing it the true tokens ("teacher forcing", Williams & Zipser 1989) makes all positions one forward pass. It also
tells what the network would write by itself, always taking the likeliest token: exactly the target, where each token of
it is the likeliest after the true ones before it.

Shapes: B batch, S source tokens, T target tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cutaway.tokenizers.frame import frame
from cutaway.training.losses import IGNORE, cross_entropy
from cutaway.training.objectives.base import Data, Examples, Objective, Piece, Score, Split, padded
from cutaway.training.rows import Rows

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig


class Writing(Objective):
    """An objective whose pieces have a "source", its "source_mask" where there is padding, and "targets"."""

    kinds: ClassVar[tuple[str, ...]] = ("seq2seq",)
    shown: ClassVar[tuple[str, ...]] = ("accuracy", "exact")
    whole: ClassVar[bool] = False

    def features(self, store: Data, context: int) -> dict[str, Any]:
        tokenizer = store.tokenizer
        start = tokenizer.end_of_text if tokenizer.pad is None else tokenizer.pad
        return {"source_context": context, "start_id": start or 0}

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        targets = piece["targets"]
        how = {"label_smoothing": config.label_smoothing, "z_loss": config.z_loss}
        return cross_entropy(written(forward, piece), targets, **how, reduction="sum"), int((targets != IGNORE).sum())

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        logits, targets = written(learner, piece), piece["targets"]
        counted, right = targets != IGNORE, logits.argmax(-1) == targets
        loss = float(cross_entropy(logits, targets, reduction="sum"))
        exact = (right | ~counted).all(1)
        return [int(counted.sum()), loss, int(right.sum()), len(targets), int(exact.sum())]

    def score(self, sums: Sequence[float], split: Split) -> Score:
        counted, loss, right, rows, exact = sums
        return Score(loss / counted, int(counted), {"accuracy": right / counted, "exact": exact / rows})


def written(network: Any, piece: Piece) -> Tensor:
    """Logits (B, T, V) of the targets, each token's from the true ones before it."""
    targets = piece["targets"]
    ids = torch.full_like(targets, network.config.start_id)
    ids[:, 1:] = torch.where(targets[:, :-1] == IGNORE, ids[:, 1:], targets[:, :-1])
    return network(ids, source=piece["source"], source_mask=piece.get("source_mask"))


@dataclass(frozen=True)
class SequenceToSequence(Writing, Examples):
    """Write the target of a source."""

    name: ClassVar[str] = "seq2seq"
    data: ClassVar[str] = "pairs"
    parts: ClassVar[tuple[str, ...]] = ("source", "target")  # ids as they are: a source framed, a target with its end
    texts: ClassVar[bool] = False
    speaks: ClassVar[bool] = True  # its prompts are sources

    def notes(self, store: Data, config: TrainConfig) -> list[str]:
        train = store["train"]
        if isinstance(train, Rows):  # were cut before
            return []
        numbers = np.arange(train.examples)
        lengths = np.stack([train.document_lengths(2 * numbers), train.document_lengths(2 * numbers + 1) + 1])
        long = int((lengths.max(0) > config.context).sum())
        return [f"{long:,} of {len(numbers):,} pairs are longer than {config.context} tokens and are cut"] * bool(long)

    def pad(self, split: Split, numbers: np.ndarray, context: int) -> Piece:
        tokenizer, end = split.tokenizer, np.array([split.end_of_text])
        if isinstance(split, Rows):
            sources = [ids[:context] for ids in split.some("source", numbers)]
            targets = [ids[:context] for ids in split.some("target", numbers)]
        else:
            sources = [frame(tokenizer, split.document(2 * n).tolist(), longest=context)[0] for n in numbers.tolist()]
            targets = [np.concatenate((split.document(2 * n + 1), end))[:context] for n in numbers.tolist()]
        source = padded([np.array(ids, np.int64) for ids in sources], split.end_of_text)
        mask = torch.arange(source.shape[1]) < torch.tensor([max(1, len(ids)) for ids in sources])[:, None]
        return {"source": source, "source_mask": mask, "targets": padded(targets, IGNORE)}
