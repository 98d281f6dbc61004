"""Beam search: go on with the most probable beginnings, and tell the best whole texts.

A hypothesis' score is the log of its probability over its length to the power of the length penalty (Wu et al. 2016).
The rules of which hypotheses go on and when the search is over are those of transformers, so that checkpoints whose
makers recommend a beam search (most translators) write what they wrote for their makers.

Shapes: W wanted rows, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from cutaway.errors import ConfigError
from cutaway.generation.advice import Plan
from cutaway.generation.backend import Logits
from cutaway.generation.choosing import Asked, Branch, Chooser, Hypothesis
from cutaway.generation.constrain import Constrained
from cutaway.generation.largest import largest
from cutaway.generation.request import Alternatives, EarlyStopping, FinishReason
from cutaway.generation.sampling import Seen, edited, likeliest


@dataclass(slots=True)
class Beginning:
    """A hypothesis.

    Attributes:
        ids: what was written.
        logprobs: of each token under the model.
        score: the sum of what was added for each; of a whole text over its length to the power of the penalty.
        finish: why it is whole; None: it is not.
        top: the likeliest tokens in the place of each, where they are asked for.
        constraint: what it is held to.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    score: float = 0.0
    finish: FinishReason | None = None
    top: list[Alternatives] = field(default_factory=list)
    constraint: Constrained | None = None


class Beams(Chooser):
    """Searches for one request. Its sequences are the hypotheses that go on, the best first.

    Args:
        plan: tokens that are forced or suppressed, and penalties; temperature, top-k and the like are not used.
        count: how many tokens there may be.
        ends: tokens that end a text.
        beams: hypotheses.
        n: how many whole texts to tell.
        length_penalty: above 0 favours long texts, below 0 short ones.
        early_stopping: True: the search is over as soon as there are so many whole texts as beams; False: when those
            that go on could not become better if they ended now; "never": not at any length that they may have.
        renormalise: whether probabilities sum to 1 again after tokens were suppressed.
        logprobs: alternatives to tell beside each token.
        constraint: what the text must be.

    Raises:
        ConfigError: an option out of range.
    """

    tells = False

    def __init__(
        self,
        plan: Plan,
        count: int,
        ends: frozenset[int],
        beams: int,
        *,
        n: int = 1,
        length_penalty: float = 1.0,
        early_stopping: EarlyStopping = False,
        renormalise: bool = False,
        logprobs: int = 0,
        constraint: Constrained | None = None,
    ) -> None:
        if n > beams:
            raise ConfigError(f"of {beams} beams at most {beams} texts can be told, but n = {n} was given")
        self.plan, self.count, self.ends, self.beams, self.n = plan, count, ends, beams, n
        self.penalty, self.early, self.logprobs = length_penalty, early_stopping, logprobs
        self.renormalise = renormalise
        self._running = [Beginning(constraint=constraint)]
        self._whole: list[Beginning] = []  # the best first

    def choose(self, asked: Sequence[Asked], logits: Logits) -> list[Branch]:
        """The hypotheses that go on; none: the search is over."""
        found = self._candidates(asked, logits)
        running: list[Beginning] = []
        branches: list[Branch] = []
        full = len(self._whole) == self.beams
        for place, (score, parent, id) in enumerate(found):
            text = self._longer(self._running[parent], id, score, asked[parent].row, logits)
            if text.finish is None and len(running) < self.beams:
                running.append(text)
                branches.append(Branch([id], [asked[parent].row], parent))
            elif text.finish is not None and place < self.beams and not (full and self.early is True):
                self._add(text)
        self._running = running
        full = len(self._whole) == self.beams
        return [] if full and (self.early is True or not running or not self._may_improve(running[0])) else branches

    def results(self) -> list[Hypothesis]:
        """The n best whole texts, best first."""
        return [
            Hypothesis(text.ids, text.logprobs, text.finish or "length", text.top) for text in self._whole[: self.n]
        ]

    def _candidates(self, asked: Sequence[Asked], logits: Logits) -> list[tuple[float, int, int]]:
        """The best continuations by one token, (score, hypothesis, token), best first.

        There are enough of them to go on with, were every other one the end of a text.
        """
        most = max(2, 1 + len(self.ends)) * self.beams
        found: list[tuple[float, int, int]] = []
        for parent, (text, one) in enumerate(zip(self._running, asked, strict=True)):
            number = len(text.ids)
            if number in self.plan.forced:
                found.append((text.score, parent, self.plan.forced[number]))
                continue
            logprobs = self._logprobs(text, one, logits)
            places = largest(logprobs, most)  # (K,)
            scores = (logprobs[places].astype(np.float64) + text.score).tolist()
            found += [(score, parent, id) for score, id in zip(scores, places.tolist(), strict=True) if score > -np.inf]
        found.sort(key=lambda one: (-one[0], one[1], one[2]))
        return found[:most]

    def _logprobs(self, text: Beginning, one: Asked, logits: Logits) -> Float32[np.ndarray, " V"]:
        """Of each token that may come next, after what the request says of them."""
        how = self.plan.sampling(len(text.ids))
        logprobs = logits.values.numpy()[one.row] - logits.log_sum.numpy()[one.row]
        if how.edits:
            seen = Seen(one.ids[: one.prompt], one.ids[one.prompt :]) if how.penalises else None
            logprobs = edited(logprobs, how, seen)
        if text.constraint is not None:
            logprobs = np.where(text.constraint.allowed()[0], logprobs, -np.inf)
        if self.renormalise:
            logprobs = logprobs - np.log(np.exp(logprobs).sum(dtype=np.float64)).astype(np.float32)
        return logprobs

    def _longer(self, text: Beginning, id: int, score: float, row: int, logits: Logits) -> Beginning:
        """A hypothesis with one more token."""
        values, log_sum = logits.values.numpy()[row], float(logits.log_sum[row])
        top = [*text.top, tuple(likeliest(values, log_sum, self.logprobs))] if self.logprobs else []
        constraint = None if text.constraint is None else text.constraint.copy()
        finish: FinishReason | None = None
        if constraint is not None and len(text.ids) not in self.plan.forced:  # what is forced is no text
            finish = constraint.accept([id])
        if id in self.ends:
            finish = "end"
        elif finish is None and len(text.ids) + 1 == self.count:
            finish = "length"
        return Beginning([*text.ids, id], [*text.logprobs, float(values[id]) - log_sum], score, finish, top, constraint)

    def _add(self, text: Beginning) -> None:
        """A text is whole."""
        text.score /= len(text.ids) ** self.penalty
        self._whole.append(text)
        self._whole.sort(key=lambda one: -one.score)
        del self._whole[self.beams :]

    def _may_improve(self, best: Beginning) -> bool:
        """Whether the best that goes on could still become better than the worst whole text (a rule of thumb)."""
        length = self.count if self.early == "never" and self.penalty > 0 else len(best.ids)
        return best.score / length**self.penalty > self._whole[-1].score
