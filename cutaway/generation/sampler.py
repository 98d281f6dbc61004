"""The chooser that draws tokens one behind the other, checks those that were guessed, and guesses the next.

A guess of look-up, or what a constraint forces, is right if it is the very token that is drawn, with the same random
number as without guesses: the text is the same, token for token.

Shapes: W wanted rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from cutaway.generation.advice import Plan
from cutaway.generation.backend import Logits
from cutaway.generation.choosing import Asked, Branch, Chooser
from cutaway.generation.constrain import Constrained
from cutaway.generation.request import FinishReason
from cutaway.generation.sampling import Seen, pick
from cutaway.generation.speculate import COST, Lookup


class Sampler(Chooser):
    """Draws for one continuation.

    Args:
        plan: how each token is chosen.
        generator: what they are drawn with.
        constraint: what the text must be.
        look_up: whether to guess that the text goes on as it did before.
    """

    def __init__(
        self,
        plan: Plan,
        generator: np.random.Generator,
        constraint: Constrained | None = None,
        look_up: bool = False,
    ) -> None:
        self.plan, self.generator, self.constraint = plan, generator, constraint
        self._lookup = Lookup() if look_up else None
        self._known = 0  # tokens that look-up and the penalties know
        self._seen: Seen | None = None

    def choose(self, asked: Sequence[Asked], logits: Logits) -> list[Branch]:
        """The tokens behind the one sequence."""
        return [self._choose(asked[0], logits, 1)]

    @classmethod
    def choose_all(
        cls, choosers: Sequence[Chooser], asked: Sequence[Sequence[Asked]], logits: Logits
    ) -> list[list[Branch] | Exception]:
        """Of several continuations: the more there are, the more a guess costs."""
        made: list[list[Branch] | Exception] = []
        for one, its in zip(choosers, asked, strict=True):
            assert isinstance(one, Sampler)
            try:
                made.append([one._choose(its[0], logits, len(choosers))])
            except Exception as error:
                made.append(error)
        return made

    def _choose(self, one: Asked, logits: Logits, crowd: int) -> Branch:
        if not self._known and (self.plan.penalises or self._lookup is not None):
            self._begin(one)
        number, guesses, constraint = len(one.ids) - one.prompt, one.guesses, self.constraint
        if not guesses and constraint is None and not self._known and self.plan.greedy(number):
            return Branch([logits.best.tolist()[one.row]], [one.row])  # what the step has found already
        allowed = None if constraint is None else constraint.allowed(guesses)
        values = logits.values.numpy()
        ids: list[int] = []
        rows: list[int] = []
        finish: FinishReason | None = None
        for place in range(1 + len(guesses)):
            row = one.row + place
            guess = guesses[place] if place < len(guesses) else None
            chosen = self.plan.forced.get(number + place)
            forced = chosen is not None
            if chosen is None:
                mask = None if allowed is None else allowed[place]
                chosen = self._token(values[row], number + place, mask, place, guess)
            ids.append(chosen)
            rows.append(row)
            if self._seen is not None:
                self._seen.add(chosen)
            if self._lookup is not None:
                self._lookup.add(chosen)
            if constraint is not None and not forced:  # what is forced is no text
                finish = constraint.accept([chosen])
            if chosen != guess or finish is not None:
                break
        return Branch(ids, rows, 0, [] if finish else self._guesses(crowd), finish)

    def _begin(self, one: Asked) -> None:
        """The prompt is known."""
        self._known = len(one.ids)
        if self.plan.penalises:
            self._seen = Seen(one.ids[: one.prompt], one.ids[one.prompt :])
        if self._lookup is not None:
            for id in one.ids:
                self._lookup.add(id)

    def _token(
        self,
        values: Float[np.ndarray, " V"],
        number: int,
        allowed: Bool[np.ndarray, " V"] | None,
        place: int,
        guess: int | None,
    ) -> int:
        """The new token of a number, at the place of a guess."""
        return pick(values, self.plan.sampling(number), self.generator, self._seen, allowed)

    def _guesses(self, crowd: int) -> list[int]:
        """What to try next, where so many sequences share a step."""
        if self.constraint is not None and (forced := self.constraint.forced()):
            return forced
        if self._lookup is None:
            return []
        guesses = self._lookup.guess(COST * crowd / (1 + COST * (crowd - 1)))
        return guesses if self.constraint is None else guesses[: self.constraint.valid(guesses)]
