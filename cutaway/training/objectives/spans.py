"""Span corruption (Raffel et al. 2020, T5): sentinels stand for spans of a text, and the target says what was there.

    text      the old lighthouse keeper counts the ships at night
    source    the old <extra_id_0> counts the ships <extra_id_1>
    target    <extra_id_0> lighthouse keeper <extra_id_1> at night <extra_id_2>

The numbers of hidden tokens and of spans follow from the text's length, so all sources of a batch are of one length,
as are all targets. Which tokens are hidden is drawn evenly: any lengths of at least one that add up, at any places with
something between them, at the beginning and the end of the text too (T5's own code leaves the one and hides the other).

Shapes: B batch, T tokens of text, S source tokens, U target tokens, N spans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.tokenizers import Tokenizer
from cutaway.tokenizers.extend import with_special
from cutaway.training.objectives.base import Batch, Data, Piece, Split, Windows, draws
from cutaway.training.objectives.seq2seq import Writing
from cutaway.training.ranks import Ranks

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig


def span_counts(length: int, rate: float, mean: float) -> tuple[int, int]:
    """How many tokens of a text are hidden, and in how many spans."""
    hidden = min(max(round(length * rate), 1), length - 1)
    return hidden, min(max(round(hidden / mean), 1), hidden, length - hidden + 1)


def corrupt_spans(
    ids: Int[Tensor, "B T"], *, draws: Float[Tensor, "2 B T"], sentinel: int, rate: float = 0.15, mean: float = 3.0
) -> tuple[Int[Tensor, "B S"], Int[Tensor, "B U"]]:
    """Sources with sentinels for spans, and targets with the spans behind their sentinels and one more at the end.

    Args:
        ids: (B, T) int64, T at least 2.
        draws: (2, B, T) random numbers in [0, 1): where spans are, and how long.
        sentinel: id of the first; those of the others go down from it.
        rate: share of the tokens that are hidden.
        mean: tokens of a span.
    """
    B, T = ids.shape
    hidden, spans = span_counts(T, rate, mean)
    # a span may stand in any gap between the tokens that stay, before the first of them and after the last
    gaps = draws[0, :, : T - hidden + 1].argsort(dim=1, stable=True)[:, :spans].sort(1).values  # (B, N)
    cuts = draws[1, :, : hidden - 1].argsort(dim=1, stable=True)[:, : spans - 1].sort(1).values + 1
    edges = torch.cat((torch.zeros_like(gaps[:, :1]), cuts, torch.full_like(gaps[:, :1], hidden)), dim=1)  # (B, N + 1)
    begins = torch.zeros(B, T + 1, dtype=torch.int64)
    begins.scatter_(1, gaps + edges[:, :-1], 1)
    ends = torch.zeros_like(begins).scatter_(1, gaps + edges[:, 1:], 1)
    inside = (begins - ends).cumsum(1)[:, :T] > 0
    begins, number = begins[:, :T] > 0, begins.cumsum(1)[:, :T] - 1  # of the span that a token is in or after
    source = torch.where(begins, sentinel - number, ids)[~inside | begins].view(B, -1)
    target = torch.empty(B, hidden + spans + 1, dtype=torch.int64)
    order = torch.arange(spans + 1).expand(B, -1)
    target.scatter_(1, edges + order, sentinel - order)
    target.scatter_(1, torch.arange(hidden) + number[inside].view(B, -1) + 1, ids[inside].view(B, -1))
    return source, target


@dataclass(frozen=True)
class SpanCorruption(Writing, Windows):
    """Write what stood where the sentinels stand."""

    rate: float = 0.15  # share of the tokens that are hidden
    mean: float = 3.0  # tokens of a span
    sentinels: int = 100  # special tokens that stand for spans, as many as T5 has

    name: ClassVar[str] = "span"

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.mean < 1 or self.sentinels < 2:
            raise ConfigError(
                "rate must lie between 0 and 1, mean be at least 1 and sentinels at least 2, but "
                f"{self.rate}, {self.mean} and {self.sentinels} were given"
            )

    def tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """With sentinels as the last ids, the first of them last, named and numbered as in T5's own."""
        if "<extra_id_0>" in tokenizer.special:
            return tokenizer
        return _with_sentinels(tokenizer, self.sentinels)

    def check(self, store: Data, config: TrainConfig) -> None:
        length = self.length(config.context)
        hidden, spans = span_counts(length, self.rate, self.mean)
        names = self.tokenizer(store.tokenizer).special
        count = next(n for n in range(len(names) + 1) if f"<extra_id_{n}>" not in names)
        if spans + 1 > count or hidden + spans + 2 > config.context:
            raise ConfigError(
                f"a context of {config.context} with objective.rate {self.rate:g} and objective.mean {self.mean:g} "
                f"makes targets of {spans} spans and {hidden + spans + 2} tokens, but there are {count} sentinels, and "
                "a target must fit the context; give objective.sentinels, a smaller rate or a larger mean"
            )
        super().check(store, config)

    def length(self, context: int) -> int:
        """How many tokens of text become a source of at most `context`."""
        length = max(2, context)
        while self._source(length + 1) <= context:
            length += 1
        return length

    def _source(self, length: int) -> int:
        hidden, spans = span_counts(length, self.rate, self.mean)
        return length - hidden + spans

    def batch(self, split: Split, config: TrainConfig, ranks: Ranks, step: int) -> Batch:
        length = self.length(config.context)
        ids, starts, row_keys = self.windows(split, config, ranks, step, length)
        piece = self.corrupt(ids, split, row_keys)
        return Batch(piece, starts, config.batch * piece["targets"].shape[1], config.batch * length)

    def in_order(self, split: Split, context: int) -> Iterator[Batch]:
        """Whole windows; what is left at the end of the split is left out, unless it is all."""
        length = self.length(context)
        for ids, real, row_keys in self.windows_in_order(split, length):
            whole = real.all(1)
            if not whole.any():
                if split.tokens > length:
                    return
                whole[:] = True
            yield Batch(self.corrupt(ids[whole], split, row_keys[whole.numpy()]), [], 1, int(whole.sum()) * length)

    def corrupt(self, ids: Tensor, split: Split, row_keys: np.ndarray) -> Piece:
        """Sources, and targets that end the text behind the last sentinel."""
        first = self.tokenizer(split.tokenizer).special["<extra_id_0>"]
        numbers = draws(row_keys, 2, ids.shape[1])
        source, target = corrupt_spans(ids, draws=numbers, sentinel=first, rate=self.rate, mean=self.mean)
        return {"source": source, "targets": torch.nn.functional.pad(target, (0, 1), value=split.end_of_text)}


@lru_cache(maxsize=4)
def _with_sentinels(tokenizer: Tokenizer, count: int) -> Tokenizer:
    return with_special(tokenizer, [f"<extra_id_{n}>" for n in reversed(range(count))])
