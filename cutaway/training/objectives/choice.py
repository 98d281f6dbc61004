"""Which of several stretches of a text is best: each scored by its tokens, learned so that the better ones win.

The scores of a text's stretches, as a distribution, are to be that of their known gains (a listwise loss: ListNet, Cao
et al. 2007). Sentences of a document are chosen so.

Shapes: B batch, T tokens, S stretches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.errors import ConfigError
from cutaway.training.objectives.base import Examples, Piece, Score, Split, need_head, padded
from cutaway.training.objectives.labelled import given, read_rows
from cutaway.training.rows import Rows

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig


@dataclass(frozen=True)
class Choice(Examples):
    """Tell the best stretch of a text: its score is the mean of the first logit over its tokens.

    Rows hold `ids` with all special tokens, the stretches' `starts` and `ends` among them, (S,) int64, and the `gain`
    of each, (S,) float32.
    """

    sharpness: float = 20.0  # gains are multiplied by it before they become a distribution
    figure: str = "gain"  # what the mean gain of the stretches that are chosen is called

    name: ClassVar[str] = "choose"
    kinds: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    data: ClassVar[str] = "rows"
    parts: ClassVar[tuple[str, ...]] = ("ids", "starts", "ends", "gain")
    unit: ClassVar[str] = "nats a text"
    shown: ClassVar[tuple[str, ...]] = ("best",)

    def __post_init__(self) -> None:
        if not self.sharpness > 0:
            raise ConfigError(f"sharpness must be above 0, but {self.sharpness} was given")

    def fit(self, network: Any) -> None:
        super().fit(network)
        need_head(self.name, network, "token_classification")

    def pad(self, split: Split, numbers: np.ndarray, context: int) -> Piece:
        assert isinstance(split, Rows)  # `check` has seen to it
        starts, ends = padded(split.some("starts", numbers), 0), padded(split.some("ends", numbers), 0)
        gain = torch.zeros(ends.shape)
        for row, known in zip(gain, split.some("gain", numbers), strict=True):
            row[: len(known)] = torch.from_numpy(known)
        return {**read_rows(split, numbers, context), "starts": starts, "ends": ends, "gain": gain}

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        return self._loss(self._scores(forward, piece), piece), len(piece["ends"])

    def _scores(self, forward: Callable[..., Any], piece: Piece) -> Tensor:
        """(B, S), -inf where there is no stretch."""
        logits = forward(piece["ids"], **given(piece))[..., 0]
        return stretch_means(logits, piece["starts"], piece["ends"]).masked_fill(piece["ends"] == 0, -torch.inf)

    def _loss(self, scores: Tensor, piece: Piece) -> Tensor:
        real = piece["ends"] > 0
        true = (self.sharpness * piece["gain"]).masked_fill(~real, -torch.inf).softmax(-1)
        return -(true * scores.log_softmax(-1).masked_fill(~real, 0)).sum()

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        scores = self._scores(learner, piece)
        chosen = piece["gain"].gather(1, scores.argmax(-1, keepdim=True))[:, 0]
        best = piece["gain"].masked_fill(piece["ends"] == 0, -torch.inf).amax(-1)
        return [len(scores), float(self._loss(scores, piece)), float(chosen.sum()), float((chosen >= best).sum())]

    def score(self, sums: Sequence[float], split: Split) -> Score:
        counted, loss, gain, best = sums
        return Score(loss / counted, int(counted), {self.figure: gain / counted, "best": best / counted})


def stretch_means(logits: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """The mean of each stretch's logits, (B, T) and two of (B, S) -> (B, S) float32; 0 of an empty one."""
    sums = F.pad(logits.float().cumsum(1), (1, 0))
    return (sums.gather(1, ends) - sums.gather(1, starts)) / (ends - starts).clamp(min=1)
