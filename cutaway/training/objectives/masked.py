"""Masked language modelling (Devlin et al. 2019, BERT): hide some tokens, and guess them from both sides.

Shapes: B batch, T tokens, K places that are asked about, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cutaway.errors import ConfigError
from cutaway.tokenizers import Tokenizer
from cutaway.training.losses import IGNORE, cross_entropy
from cutaway.training.objectives.base import Batch, Data, Piece, Score, Split, Windows, draws, need_head
from cutaway.training.ranks import Ranks

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig


@dataclass(frozen=True)
class Masked:
    """What a network is shown, and where it is asked.

    Attributes:
        ids: (B, T) int64, with the hidden tokens hidden.
        chosen: (B, T) bool, the positions to be guessed.
    """

    ids: Int[Tensor, "B T"]
    chosen: Bool[Tensor, "B T"]


def mask_tokens(
    ids: Int[Tensor, "B T"],
    *,
    mask_id: int,
    vocab_size: int,
    draws: Float[Tensor, "3 B T"],
    rate: float = 0.15,
    hidden: float = 0.8,
    random: float = 0.1,
    allowed: Bool[Tensor, "B T"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> Masked:
    """Choose tokens to be guessed, and hide most of them.

    Of the chosen, `hidden` become the mask's id and `random` any id, the others stay, so that a network cannot rely on
    the tokens that it sees. Each text has round(rate · its allowed tokens) of them chosen, and at least one.

    Args:
        ids: (B, T) int64.
        mask_id: of the special token that hides.
        vocab_size: V; random ids lie below it.
        draws: (3, B, T) random numbers in [0, 1): which tokens are chosen, what becomes of them, and random ids.
        rate: share of the allowed tokens that are chosen.
        hidden: share of the chosen that become the mask.
        random: share of the chosen that become any token.
        allowed: (B, T) bool of the tokens that may be chosen: no padding, no special tokens; None: all. A text
            without any has none chosen.
        starts: (B, T) bool, True where a word begins: then whole words are chosen, in random order until the rate is
            reached, so that the last of them may go beyond it. None: single tokens.

    Raises:
        ConfigError: shares that are not between 0 and 1, or are more than 1 together.
    """
    check_shares(rate, hidden, random)
    T = ids.shape[1]
    allowed = torch.ones_like(ids, dtype=torch.bool) if allowed is None else allowed
    order, kinds, anything = draws
    if starts is not None:  # all tokens of a word share the draw of its first
        order = order.gather(1, starts.cumsum(1).clamp(max=T - 1))
    order = order.masked_fill(~allowed, 2.0)
    wanted = (rate * allowed.sum(dim=1)).round().clamp(min=1).long()[:, None]
    last = order.sort(dim=1).values.gather(1, wanted - 1)  # (B, 1), the largest draw chosen, with its whole word
    chosen = (order <= last) & allowed
    shown = ids.masked_fill(chosen & (kinds < hidden), mask_id)
    replaced = chosen & (kinds >= hidden) & (kinds < hidden + random)
    return Masked(torch.where(replaced, (anything * vocab_size).long(), shown), chosen)


def check_shares(rate: float, hidden: float, random: float) -> None:
    """Raise ConfigError unless the shares are such."""
    if not 0 < rate <= 1 or min(hidden, random) < 0 or hidden + random > 1:
        raise ConfigError(
            f"rate must lie in (0, 1], and hidden and random must be 0 or more and at most 1 together, "
            f"but {rate}, {hidden} and {random} were given"
        )


def asked(
    ids: Int[Tensor, "B T"], chosen: Bool[Tensor, "B T"], least: int = 1
) -> tuple[Int[Tensor, "B K"], Int[Tensor, "B K"]]:
    """The chosen places of each text, and what stands there; IGNORE fills rows that have fewer than others.

    Args:
        ids: (B, T) int64.
        chosen: (B, T) bool.
        least: K is at least this, so that it is mostly the same.
    """
    most = max(least, int(chosen.sum(1).max()))
    places = (~chosen).to(torch.uint8).sort(dim=1, stable=True).indices[:, :most]  # the chosen come first, in order
    return places, ids.gather(1, places).masked_fill(~chosen.gather(1, places), IGNORE)


@dataclass(frozen=True)
class Hiding(Windows):
    """An objective that hides tokens of raw text."""

    rate: float = 0.15  # share of the tokens that are to be guessed
    hidden: float = 0.8  # share of those that are shown as the mask
    random: float = 0.1  # share of those that are shown as any token; the others are shown as they are
    whole_words: bool = False  # all tokens of a word or none

    kinds: ClassVar[tuple[str, ...]] = ("encoder",)
    lr_rest: ClassVar[float] = 0.002  # few tokens are asked about, so a shared embedding's gradient is noisy

    def __post_init__(self) -> None:
        check_shares(self.rate, self.hidden, self.random)

    def check(self, store: Data, config: TrainConfig) -> None:
        if store.tokenizer.mask is None:
            raise ConfigError(
                f"{store.tokenizer} has no token that hides others; name its mask_token in tokenizer_config.json, "
                "or prepare the texts with a tokenizer of Cutaway's"
            )
        super().check(store, config)

    def batch(self, split: Split, config: TrainConfig, ranks: Ranks, step: int) -> Batch:
        ids, starts, row_keys = self.windows(split, config, ranks, step, config.context)
        tensors = self.hide(ids, split.tokenizer, draws(row_keys, self.tables, ids.shape[1]))
        tokens = config.batch * config.context
        return Batch(tensors, starts, self.nominal(tokens), tokens)

    def in_order(self, split: Split, context: int) -> Iterator[Batch]:
        for ids, real, row_keys in self.windows_in_order(split, context):
            tensors = self.hide(ids, split.tokenizer, draws(row_keys, self.tables, context), real)
            if not real.all():
                tensors["mask"] = real
            yield Batch(tensors, [0] * len(ids), self.nominal(ids.numel()), ids.numel())

    tables: ClassVar[int] = 3  # of draws

    def nominal(self, tokens: int) -> float:
        """About how many of the tokens count."""
        return self.rate * tokens

    def hide(self, ids: Tensor, tokenizer: Tokenizer, numbers: Tensor, real: Tensor | None = None) -> Piece:
        """What the network is shown, the places that it is asked about, and what stands there."""
        words = tokenizer.words
        allowed = torch.from_numpy(~words.special)[ids]
        masked = mask_tokens(
            ids,
            mask_id=tokenizer.mask or 0,
            vocab_size=ordinary(tokenizer),
            draws=numbers[:3],
            rate=self.rate,
            hidden=self.hidden,
            random=self.random,
            allowed=allowed if real is None else allowed & real,
            starts=torch.from_numpy(words.starts(ids.numpy())) if self.whole_words else None,
        )
        places, targets = asked(ids, masked.chosen, max(1, round(self.rate * ids.shape[1])))
        return {"ids": masked.ids, "places": places, "targets": targets}


def ordinary(tokenizer: Tokenizer) -> int:
    """How many ids come before the special tokens, where those are the last; else the size of the vocabulary."""
    special = tokenizer.words.special
    first = len(special) - int(special.sum())
    return first if special[first:].all() else len(special)


@dataclass(frozen=True)
class MaskedLM(Hiding):
    """Guess the hidden tokens from those on both sides."""

    name: ClassVar[str] = "masked"
    unit: ClassVar[str] = "nats a hidden token"

    def features(self, store: Data, context: int) -> dict[str, Any]:
        return {"head": "masked_lm"}

    def fit(self, network: Any) -> None:
        super().fit(network)
        need_head(self.name, network, "masked_lm")

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        targets = piece["targets"]
        logits = forward(piece["ids"], places=piece["places"])
        how = {"label_smoothing": config.label_smoothing, "z_loss": config.z_loss}
        return cross_entropy(logits, targets, **how, reduction="sum"), int((targets != IGNORE).sum())

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        targets = piece["targets"]
        logits = learner(piece["ids"], places=piece["places"], mask=piece.get("mask"))
        right = int((logits.argmax(-1) == targets).sum())  # nothing equals IGNORE
        return [int((targets != IGNORE).sum()), float(cross_entropy(logits, targets, reduction="sum")), right]

    def score(self, sums: Sequence[float], split: Split) -> Score:
        counted, total, right = sums
        return Score(total / counted, int(counted), {"accuracy": right / counted})
