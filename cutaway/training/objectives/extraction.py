"""Where the answer stands: the first and the last token of a stretch of what was read (Devlin et al. 2019, SQuAD).

Of a text that is asked, several stretches may be right: people mark different ones, and an answer may stand in a text
more than once. The loss is of saying any of them, -log Σ p(start) · p(end) (Clark & Gardner 2018). A text without the
answer has its first place, which stands for none.

Shapes: B batch, T tokens, K stretches that are right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cutaway.training.objectives.base import Data, Examples, Piece, Score, Split, need_head, padded
from cutaway.training.objectives.labelled import given, read_rows
from cutaway.training.rows import Rows

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig

NOWHERE = -1  # fills up the places of those that have fewer right ones


def span_log_probabilities(
    logits: Float[Tensor, "B T 2"], allowed: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """The log-probability of each place of being the first, and the last, of the answer, float32.

    Args:
        logits: (B, T, 2).
        allowed: (B, T) bool, where an answer may begin or end; the others have probability 0.
    """
    wide = logits.float().masked_fill(~allowed[..., None], -torch.inf).log_softmax(1)
    return wide[..., 0], wide[..., 1]


def any_span_loss(
    logits: Float[Tensor, "B T 2"], allowed: Bool[Tensor, "B T"], spans: Int[Tensor, "B K 2"]
) -> Float[Tensor, " B"]:
    """How surprising it is that one of the right stretches is right, (B,) in nats.

    Args:
        logits: (B, T, 2).
        allowed: (B, T) bool.
        spans: (B, K, 2) int64 first and last places; NOWHERE where there are fewer than K, but at least one.
    """
    start, end = span_log_probabilities(logits, allowed)
    places = spans.clamp_min(0)
    both = start.gather(1, places[..., 0]) + end.gather(1, places[..., 1])  # (B, K)
    return -both.masked_fill(spans[..., 0] == NOWHERE, -torch.inf).logsumexp(1)


def best_span(
    logits: Float[Tensor, "B T 2"], allowed: Bool[Tensor, "B T"], longest: int
) -> tuple[Int[Tensor, "B 2"], Float[Tensor, " B"]]:
    """The likeliest stretch, and the sum of its two logits.

    Args:
        logits: (B, T, 2).
        allowed: (B, T) bool.
        longest: tokens of a stretch.
    """
    start, end = logits.float().masked_fill(~allowed[..., None], -torch.inf).unbind(-1)
    both = start[:, :, None] + end[:, None, :]  # (B, T, T)
    T = both.shape[1]
    order = torch.ones(T, T, dtype=torch.bool, device=both.device).triu().tril(longest - 1)
    order[0, 1:] = False  # the first place stands for no answer, and for nothing longer
    score, place = both.masked_fill(~order, -torch.inf).flatten(1).max(1)
    return torch.stack((place // T, place % T), dim=1), score


@dataclass(frozen=True)
class SpanExtraction(Examples):
    """Find the answer to a question in a text.

    Rows in memory hold `ids` with all special tokens and `types` of them, `allowed` (T,) where an answer may begin or
    end, and `spans` (K, 2), the first and last places of what is right: (0, 0) is no answer.
    """

    longest: int = 30  # tokens of an answer, when it is measured

    name: ClassVar[str] = "answer"
    kinds: ClassVar[tuple[str, ...]] = ("encoder",)
    data: ClassVar[str] = "rows"
    parts: ClassVar[tuple[str, ...]] = ("ids", "allowed", "spans")
    unit: ClassVar[str] = "nats a text"
    shown: ClassVar[tuple[str, ...]] = ("f1", "exact")

    def fit(self, network: Any) -> None:
        super().fit(network)
        need_head(self.name, network, "span_extraction")

    def features(self, store: Data, context: int) -> dict[str, Any]:
        return {"head": "span_extraction"}

    def how_to_prepare(self) -> str:
        return f"the objective {self.name!r} learns from questions and texts: cutaway task train answer --data FILE"

    def pad(self, split: Split, numbers: np.ndarray, context: int) -> Piece:
        assert isinstance(split, Rows)  # `check` has seen to it
        spans = split.some("spans", numbers)
        places = np.full((len(spans), max(map(len, spans)), 2), NOWHERE, np.int64)
        for row, known in zip(places, spans, strict=True):
            row[: len(known)] = known
        read = read_rows(split, numbers, context)
        allowed = padded([row[:context] for row in split.some("allowed", numbers)], 0).bool()
        return {**read, "allowed": allowed, "spans": torch.from_numpy(places)}

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        logits = forward(piece["ids"], **given(piece))
        return any_span_loss(logits, piece["allowed"], piece["spans"]).sum(), len(logits)

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        logits, spans, allowed = learner(piece["ids"], **given(piece)), piece["spans"], piece["allowed"]
        said, _ = best_span(logits, allowed, self.longest)
        first, last = spans.unbind(-1)  # (B, K)
        common = (torch.minimum(last, said[:, 1:]) - torch.maximum(first, said[:, :1]) + 1).clamp_min(0)
        lengths = last - first + 1 + (said[:, 1:] - said[:, :1] + 1)
        f1 = (2 * common / lengths).masked_fill(first == NOWHERE, 0).amax(1)
        loss = float(any_span_loss(logits, allowed, spans).sum())
        return [len(spans), loss, float(f1.sum()), float((f1 == 1).sum())]

    def score(self, sums: Sequence[float], split: Split) -> Score:
        counted, loss, f1, exact = sums
        return Score(loss / counted, int(counted), {"f1": f1 / counted, "exact": exact / counted})
