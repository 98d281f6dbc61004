"""From the logits of the next token to the next token.

The options are steps in a stated order, that of the fields of `Sampling`. A row is worked on by itself, so its token
never depends on what else is in the batch. Sorting is what a large vocabulary makes slow: the likeliest token is found
in one pass, top-k, top-p and min-p look only where large logits are, and one uniform number finds the drawn token from
sums of blocks (see largest.py).

Shapes: N rows, V vocabulary, K kept tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, NonFinite
from cutaway.generation.largest import at_least, largest, reaching, running
from cutaway.generation.options import Sampling
from cutaway.generation.request import Score


class Seen:
    """Which tokens a text holds and how often each was written: what the penalties read, kept up in O(1) a token."""

    def __init__(self, prompt: Sequence[int] = (), written: Sequence[int] = ()) -> None:
        """Begin with the tokens of a prompt, and those that were written to it."""
        self._ids = np.unique(np.asarray(prompt, dtype=np.int64))
        self._times = np.zeros(len(self._ids), dtype=np.int64)
        self._place = {int(id): place for place, id in enumerate(self._ids)}
        self._of_prompt = self._length = len(self._ids)
        for id in written:
            self.add(id)

    def add(self, id: int) -> None:
        """A token was written, or is guessed."""
        place = self._place.get(id)
        if place is None:
            if self._length == len(self._ids):
                room = max(64, self._length)
                self._ids = np.concatenate([self._ids, np.zeros(room, np.int64)])
                self._times = np.concatenate([self._times, np.zeros(room, np.int64)])
            place = self._place[id] = self._length
            self._ids[place] = id
            self._length += 1
        self._times[place] += 1

    def take_back(self, id: int) -> None:
        """Forget the token that was added last."""
        place = self._place[id]
        self._times[place] -= 1
        if self._times[place] == 0 and place >= self._of_prompt:
            assert place == self._length - 1, "only the last one can be taken back"
            del self._place[id]
            self._length = place

    @property
    def ids(self) -> Int[np.ndarray, " K"]:
        """The tokens of prompt and text, each once."""
        return self._ids[: self._length]

    @property
    def times(self) -> Int[np.ndarray, " K"]:
        """How often each of `ids` was written."""
        return self._times[: self._length]


class Kept(NamedTuple):
    """What a token is drawn from.

    Attributes:
        ids: the tokens, (K,); None: all of the vocabulary, in order.
        weights: in proportion to their probabilities, (K,) or (V,) float32; 0 of what never comes.
    """

    ids: Int[np.ndarray, " K"] | None
    weights: Float[np.ndarray, " K"]

    def probability(self, id: int) -> float:
        """Of one token."""
        total = float(self.weights.sum(dtype=np.float64))
        if self.ids is None:
            return float(self.weights[id]) / total
        return float(self.weights[self.ids == id].sum()) / total

    def dense(self, vocab_size: int) -> Float[np.ndarray, " V"]:
        """The probabilities of all tokens, (V,) float64."""
        made = np.zeros(vocab_size)
        made[slice(None) if self.ids is None else self.ids] = self.weights
        return made / made.sum()


def keep(
    logits: Float[np.ndarray, " V"],
    how: Sampling,
    seen: Seen | None = None,
    allowed: Bool[np.ndarray, " V"] | None = None,
) -> Kept:
    """The steps, on one row.

    Args:
        logits: (V,) float32, finite; it is left as it is.
        how: the steps.
        seen: what the penalties read; may be None where there is none.
        allowed: the tokens that a constraint lets through, before all steps.

    Raises:
        ConfigError: no token is left.
    """
    x, ids = edited(logits, how, seen) if how.edits else logits, None
    if allowed is not None:
        ids = np.flatnonzero(allowed)
        x = x[ids]
    best = int(x.argmax()) if len(x) else 0
    if not len(x) or x[best] == -math.inf:
        raise ConfigError("no token is left to choose from: suppress and constraints together forbid all of them")
    if how.temperature == 0:
        return Kept(np.array([best if ids is None else ids[best]]), np.ones(1, np.float32))
    top = x[best]
    if how.top_k is not None and how.top_k < len(x):
        x, ids = _only(largest(x, how.top_k), x, ids)
    if how.min_p and how.top_p is None:  # otherwise below: top-p reads the probabilities of what this would drop
        x, ids = _only(at_least(x, float(top) + how.temperature * math.log(how.min_p)), x, ids)
    weights = x - top
    weights *= np.float32(1 / how.temperature)
    np.exp(weights, out=weights)
    if how.top_p is not None and how.top_p < 1:
        weights, ids = _only(reaching(weights, weights, how.top_p), weights, ids)
    if how.min_p and how.top_p is not None:
        weights, ids = _only(at_least(weights, how.min_p), weights, ids)
    if how.typical_p is not None and how.typical_p < 1:
        weights, ids = _only(_typical(weights, how.typical_p), weights, ids)
    return Kept(ids, weights)


def _only(
    places: Int[np.ndarray, " K"], values: Float[np.ndarray, " V"], ids: Int[np.ndarray, " V"] | None
) -> tuple[Float[np.ndarray, " K"], Int[np.ndarray, " K"]]:
    return values[places], places if ids is None else ids[places]


def edited(logits: Float[np.ndarray, " V"], how: Sampling, seen: Seen | None) -> Float[np.ndarray, " V"]:
    """A copy of a row, with the steps that change single logits."""
    x = logits.copy()
    if how.suppress:
        x[list(how.suppress)] = -math.inf
    if how.logit_bias:
        x[list(how.logit_bias)] += np.fromiter(how.logit_bias.values(), np.float32)
    if how.penalises and seen is not None and len(seen.ids):
        values, times = x[seen.ids], seen.times
        if how.repetition_penalty != 1:
            penalty = np.float32(how.repetition_penalty)
            values = np.where(values > 0, values / penalty, values * penalty)
        values = values - (how.frequency_penalty * times + how.presence_penalty * (times > 0)).astype(np.float32)
        x[seen.ids] = values
    return x


def _typical(weights: Float[np.ndarray, " V"], mass: float) -> Int[np.ndarray, " K"]:
    """The places whose surprisal is nearest to the entropy, as few as reach `mass`."""
    places = np.flatnonzero(weights)
    log = np.log(weights[places] / weights.sum())
    shares = np.exp(log)
    return places[reaching(-np.abs(log - (shares * log).sum()), shares, mass)]


def draw(kept: Kept, uniform: float) -> int:
    """The token at which the sum of the probabilities before it and its own exceeds a uniform number in [0, 1)."""
    ids, weights = kept
    place = running(weights, uniform, "right")
    return place if ids is None else int(ids[place])


def distribution(
    logits: Float[Tensor, "*N V"], how: Sampling, seen: Sequence[int] = (), written: Sequence[int] = ()
) -> Float[Tensor, "*N V"]:
    """The probabilities that the next token is drawn from; temperature 0 puts all on the likeliest.

    Args:
        logits: (V,) or (N, V) float32.
        how: the steps.
        seen: tokens of the prompt, which the repetition penalty applies to.
        written: tokens that were written to it, which all three penalties apply to.

    Raises:
        ConfigError: an id outside the vocabulary, or no token is left.
        NonFinite: a logit is NaN or infinite.
    """
    if not torch.isfinite(logits).all():
        raise NonFinite("a logit of the next token is NaN or infinite: the weights are damaged, or training diverged")
    size = logits.shape[-1]
    how.check(size)
    history = Seen(seen, written)
    rows = logits.detach().float().cpu().reshape(-1, size).numpy()
    made = np.stack([keep(row, how, history).dense(size) for row in rows]) if len(rows) else rows
    return torch.from_numpy(made).to(logits).reshape(logits.shape)


def pick(
    logits: Float[np.ndarray, " V"],
    how: Sampling,
    generator: np.random.Generator,
    seen: Seen | None = None,
    allowed: Bool[np.ndarray, " V"] | None = None,
) -> int:
    """Choose one token. One uniform number is used for a token, none at temperature 0.

    Raises:
        ConfigError: no token is left.
    """
    if how.temperature == 0:
        if not how.edits and allowed is None:
            return int(logits.argmax())
        found = keep(logits, how, seen, allowed).ids
        assert found is not None
        return int(found[0])
    return draw(keep(logits, how, seen, allowed), generator.random())


def scored(logits: Float[np.ndarray, "N V"], log_sums: Sequence[float], ids: Sequence[int], count: int) -> list[Score]:
    """What the model thinks of tokens that were given: of each its log-probability, and the likeliest in its place.

    Args:
        logits: (N, V), of each token those that predict it.
        log_sums: N logs of the sums of exp(logits).
        ids: the tokens.
        count: how many of the likeliest.
    """
    made: list[Score] = []
    for row, log_sum, id in zip(logits, log_sums, ids, strict=True):
        made.append((float(row[id]) - log_sum, tuple(likeliest(row, log_sum, count)) if count else ()))
    return made


def likeliest(logits: Float[np.ndarray, " V"], log_sum: float, count: int) -> list[tuple[int, float]]:
    """The likeliest tokens and the natural logs of their probabilities under the model, before any option.

    Args:
        logits: (V,).
        log_sum: log of the sum of exp(logits).
        count: how many; of equally likely ones the lowest id comes first.
    """
    places = largest(logits, count)
    order = np.argsort(-logits[places], kind="stable")[:count]
    return [(int(id), float(logits[id]) - log_sum) for id in places[order]]
