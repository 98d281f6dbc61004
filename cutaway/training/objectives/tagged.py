"""Tags of words: which kind of span a word begins, is inside of, or that it is in none.

Shapes: B batch, T tokens, L tags.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.text.tags import spans_of
from cutaway.training.losses import IGNORE, cross_entropy
from cutaway.training.objectives.base import Data, Examples, Piece, Score, Split, need_head, padded
from cutaway.training.objectives.labelled import given, read_rows
from cutaway.training.rows import Rows, RowStore

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig


@dataclass(frozen=True)
class Tagging(Examples):
    """Learn the tag of each token that has one.

    Rows in memory hold `ids` with all special tokens, perhaps `types` of the tokens, and as many numbers of tags in
    `target`: -100 (`IGNORE`) where a token has none, and 0 outside, 1 + 2·k and 2 + 2·k where a span of type k begins
    and goes on.
    """

    name: ClassVar[str] = "tag"
    kinds: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    data: ClassVar[str] = "rows"
    parts: ClassVar[tuple[str, ...]] = ("ids", "target")
    texts: ClassVar[bool] = False
    unit: ClassVar[str] = "nats a word"
    shown: ClassVar[tuple[str, ...]] = ("f1", "accuracy")

    def fit(self, network: Any) -> None:
        super().fit(network)
        need_head(self.name, network, "token_classification")

    def features(self, store: Data, context: int) -> dict[str, Any]:
        return {"head": "token_classification", "head_activation": "none"}

    def check(self, store: Data, config: TrainConfig) -> None:
        super().check(store, config)
        if isinstance(store, RowStore):
            rows = store["train"]
            for number, (ids, tags) in enumerate(zip(rows["ids"], rows["target"], strict=True)):
                if len(ids) != len(tags):
                    raise InputError(f"{rows.source(number)} has {len(ids)} tokens and {len(tags)} tags")

    def read_ids(self, store: Data) -> np.ndarray | None:
        return store["train"].read_ids() if isinstance(store, RowStore) else None

    def how_to_prepare(self) -> str:
        return f"the objective {self.name!r} learns from examples in memory; train it with: cutaway task train tag"

    def pad(self, split: Split, numbers: np.ndarray, context: int) -> Piece:
        assert isinstance(split, Rows)  # `check` has seen to it
        targets = padded([tags[:context] for tags in split.some("target", numbers)], IGNORE)
        return {**read_rows(split, numbers, context), "targets": targets}

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        targets = piece["targets"]
        how = {"label_smoothing": config.label_smoothing, "z_loss": config.z_loss}
        logits = forward(piece["ids"], **given(piece))
        return cross_entropy(logits, targets, **how, reduction="sum"), int((targets != IGNORE).sum())

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        logits, targets = learner(piece["ids"], **given(piece)), piece["targets"]
        counted, said = targets != IGNORE, logits.argmax(-1)
        loss = float(cross_entropy(logits, targets, reduction="sum"))
        right = int(((said == targets) & counted).sum())
        return [int(counted.sum()), loss, right, *_spans(said, targets, counted)]

    def score(self, sums: Sequence[float], split: Split) -> Score:
        counted, loss, right, there, said, hits = sums
        counted = max(1, counted)
        figures = {"f1": 2 * hits / max(1, there + said), "accuracy": right / counted}
        return Score(loss / counted, int(counted), figures)


def _spans(said: Tensor, true: Tensor, counted: Tensor) -> tuple[int, int, int]:
    """How many spans there are, were said, and are both, of each row's tokens that have a tag."""
    outside = torch.zeros_like(true[:, :1])  # ends each row
    kept = torch.cat((counted, torch.ones_like(outside, dtype=torch.bool)), dim=1)
    found = []
    for tags in (true, said):
        flat = torch.cat((tags, outside), dim=1)[kept].cpu().numpy()
        found.append({tuple(span) for span in spans_of(flat).tolist()})
    return len(found[0]), len(found[1]), len(found[0] & found[1])
