"""Contrast: a text's vector is nearer to that of its partner than to those of all others in the batch.

InfoNCE (van den Oord et al. 2018) with the batch's other partners as negatives (multiple negatives ranking, Henderson
et al. 2017): the cross-entropy of choosing the partner by cosine / temperature. What is known to belong together is
not taken for a negative.

Shapes: B batch, E channels of a vector, M candidates: the B partners, then the hard negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cutaway.errors import ConfigError
from cutaway.training.objectives.base import Data, Examples, Piece, Score, Split, need_head
from cutaway.training.objectives.labelled import masked
from cutaway.training.rows import Rows

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig

SIDES = ("ids", "positive", "negative")
MEASURED = 64  # examples that are told apart at a time when it is measured


def contrast_scores(
    anchors: Float[Tensor, "B E"],
    candidates: Float[Tensor, "M E"],
    same: Bool[Tensor, "B B"],
    temperature: float,
) -> Float[Tensor, "B M"]:
    """Cosine / temperature of every text and candidate; -inf where a candidate is another's, but right as well.

    Args:
        anchors: (B, E), of any length.
        candidates: (M, E), the partners first.
        same: (B, B) bool, which examples belong together.
        temperature: above 0.
    """
    scores = F.normalize(anchors.float(), dim=-1) @ F.normalize(candidates.float(), dim=-1).T / temperature
    others = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    return scores.masked_fill(F.pad(others, (0, scores.shape[1] - scores.shape[0])), -torch.inf)


@dataclass(frozen=True)
class Contrast(Examples):
    """Tell a text's partner from all others.

    Rows in memory hold `ids` of a text and of its `positive`, perhaps of a `negative` that is hard to tell from it, all
    with special tokens, and `groups` (2,): numbers that are equal where texts, or partners, are the same.
    """

    temperature: float = 0.05  # of the choice; cosines are divided by it
    symmetric: bool = True  # a partner also chooses its text

    name: ClassVar[str] = "contrast"
    kinds: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    data: ClassVar[str] = "rows"
    parts: ClassVar[tuple[str, ...]] = ("ids", "positive", "groups")
    unit: ClassVar[str] = "nats a text"
    shown: ClassVar[tuple[str, ...]] = ("mrr", "accuracy")

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be above 0, but {self.temperature} was given")

    def fit(self, network: Any) -> None:
        super().fit(network)
        need_head(self.name, network, "embedding")

    def features(self, store: Data, context: int) -> dict[str, Any]:
        return {"head": "embedding", "pooling": "mean", "normalize": True}

    def how_to_prepare(self) -> str:
        return (
            f"the objective {self.name!r} learns from texts that belong together: cutaway task train embed --data FILE"
        )

    def rows(self, split: Split, context: int) -> tuple[int, float]:
        return MEASURED, super().rows(split, context)[1]

    def pad(self, split: Split, numbers: np.ndarray, context: int) -> Piece:
        assert isinstance(split, Rows)  # `check` has seen to it
        made: Piece = {}
        for side in SIDES:
            if side in split.parts:
                read = masked([ids[:context] for ids in split.some(side, numbers)], split.tokenizer)
                made |= {side: read["ids"], f"{side}_mask": read["mask"]}
        return {**made, "groups": torch.from_numpy(np.stack(split.some("groups", numbers)))}

    def _both(self, forward: Callable[..., Any], piece: Piece) -> tuple[Tensor, Tensor]:
        """Scores (B, M) of the candidates for the texts, and (B, B) of the texts for the partners."""
        vectors = [forward(piece[side], mask=piece[f"{side}_mask"]) for side in SIDES if side in piece]
        groups = piece["groups"]
        same = (groups[:, None] == groups[None]).any(-1)  # (B, B)
        return (
            contrast_scores(vectors[0], torch.cat(vectors[1:]), same, self.temperature),
            contrast_scores(vectors[1], vectors[0], same, self.temperature),
        )

    def _loss(self, there: Tensor, back: Tensor) -> Tensor:
        targets = torch.arange(len(there), device=there.device)
        loss = F.cross_entropy(there, targets, reduction="sum")
        return (loss + F.cross_entropy(back, targets, reduction="sum")) / 2 if self.symmetric else loss

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        there, back = self._both(forward, piece)
        return self._loss(there, back), len(there)

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        there, back = self._both(learner, piece)
        ranks = 1 + (there > there.diagonal()[:, None]).sum(1)  # of the partner
        return [len(there), float(self._loss(there, back)), float((1 / ranks).sum()), float((ranks == 1).sum())]

    def score(self, sums: Sequence[float], split: Split) -> Score:
        counted, loss, reciprocal, first = sums
        return Score(loss / counted, int(counted), {"mrr": reciprocal / counted, "accuracy": first / counted})
