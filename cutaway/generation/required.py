"""Beam search for texts that hold given phrases: lexically constrained decoding.

The beams are shared out by how many tokens of the phrases a hypothesis has already (dynamic beam allocation: Post &
Vilar 2018, "Fast Lexically Constrained Decoding with Dynamic Beam Allocation for Neural Machine Translation"). So a
phrase is begun in every place, and the place where it costs least is found; a text cannot end before it holds all of
them. A phrase counts when it stands in the text as a whole word, whatever tokens it is written in.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from cutaway.generation.backend import Logits
from cutaway.generation.beams import Beams, Beginning
from cutaway.generation.choosing import Asked, Branch
from cutaway.generation.largest import largest
from cutaway.generation.phrases import Phrase, is_inside
from cutaway.tokenizers import Tokenizer

MISSING = 1e6  # taken off the score of a text that ran out of tokens before it held all


@dataclass(frozen=True)
class _State:
    """How far a hypothesis is with the phrases.

    Attributes:
        text: what it says.
        met: which phrases it holds.
        rest: the tokens that complete the phrase that it is in the middle of.
        number: which that is.
    """

    text: str = ""
    met: frozenset[int] = frozenset()
    rest: tuple[int, ...] = ()
    number: int = -1


@dataclass(frozen=True)
class _Candidate:
    score: float
    parent: int
    id: int
    state: _State


class Required(Beams):
    """Searches for the best texts that hold all phrases.

    Args:
        given: those of `Beams`.
        phrases: what a text has to hold.
        tokenizer: what reads the tokens.
        options: those of `Beams`.
    """

    def __init__(self, *given: Any, phrases: Sequence[Phrase], tokenizer: Tokenizer, **options: Any) -> None:
        super().__init__(*given, **options)
        self.phrases, self.tokenizer = phrases, tokenizer
        self._states = [_State()]

    def choose(self, asked: Sequence[Asked], logits: Logits) -> list[Branch]:
        """The hypotheses that go on; none: the search is over."""
        banks: dict[int, list[_Candidate]] = {}
        for parent, one in enumerate(asked):
            for candidate in self._of(parent, one, logits):
                banks.setdefault(self._bank(candidate.state), []).append(candidate)
        ordered = [
            sorted(banks[bank], key=lambda one: (-one.score, one.parent, one.id)) for bank in sorted(banks)[::-1]
        ]
        full = len(self._whole) == self.beams
        running: list[tuple[Beginning, _State, Branch]] = []
        # from each number of tokens the best, then from each the second …
        for place, row in enumerate(zip_longest(*ordered)):
            for found in (one for one in row if one is not None):
                if len(running) == self.beams and found.id not in self.ends:
                    continue
                row_of = asked[found.parent].row
                text = self._longer(self._running[found.parent], found.id, found.score, row_of, logits)
                if text.finish is None:
                    running.append((text, found.state, Branch([found.id], [row_of], found.parent)))
                elif place < self.beams and not (full and self.early is True):
                    if len(found.state.met) < len(self.phrases):
                        text.score -= MISSING
                    self._add(text)
        self._running, self._states = [text for text, _, _ in running], [state for _, state, _ in running]
        full = len(self._whole) == self.beams and self._whole[-1].score > -MISSING / 2
        best = max(self._running, key=lambda text: text.score, default=None)
        over = best is None or (full and (self.early is True or not self._may_improve(best)))
        return [] if over else [branch for _, _, branch in running]

    def _of(self, parent: int, one: Asked, logits: Logits) -> list[_Candidate]:
        """What a hypothesis may go on with: what is likeliest, and what brings it further with the phrases."""
        text, state = self._running[parent], self._states[parent]
        number = len(text.ids)
        if number in self.plan.forced:
            return [_Candidate(text.score, parent, self.plan.forced[number], state)]
        logprobs = np.array(self._logprobs(text, one, logits))
        wanted = self._wanted(state)
        if wanted:
            logprobs[list(self.ends)] = -np.inf
        places: list[int] = []
        if not wanted or self.count - number > self._needed(state):  # else there is room for nothing but the phrases
            places = largest(logprobs, self.beams + len(self.ends)).tolist()
        made = []
        for id in dict.fromkeys(chain(places, wanted)):
            if logprobs[id] == -np.inf:
                continue
            after = state if id in self.ends else self._after(state, [*text.ids, id], wanted.get(id))
            made.append(_Candidate(text.score + float(logprobs[id]), parent, id, after))
        return made

    def _needed(self, state: _State) -> int:
        """How many tokens all that is not there yet takes."""
        left = [phrase for number, phrase in enumerate(self.phrases) if number not in state.met]
        every = sum(len(phrase.behind) for phrase in left)
        if state.rest:
            return every - len(self.phrases[state.number].behind) + len(state.rest)
        return every + min(len(phrase.tokens(state.text)) - len(phrase.behind) for phrase in left)

    def _wanted(self, state: _State) -> dict[int, tuple[int, tuple[int, ...]]]:
        """Tokens that bring a hypothesis further: which phrase they are of, and what then is left of it."""
        if state.rest:
            return {state.rest[0]: (state.number, state.rest[1:])}
        found: dict[int, tuple[int, tuple[int, ...]]] = {}
        for number, phrase in enumerate(self.phrases):
            if number not in state.met and (ids := phrase.tokens(state.text)):
                found.setdefault(ids[0], (number, ids[1:]))
        return found

    def _after(self, state: _State, ids: list[int], step: tuple[int, tuple[int, ...]] | None) -> _State:
        text = self.tokenizer.decode(ids)
        met = frozenset(number for number, phrase in enumerate(self.phrases) if is_inside(phrase.text, text))
        if step is None or step[0] in met or not step[1]:
            return _State(text, met)
        return _State(text, met, step[1], step[0])

    def _bank(self, state: _State) -> int:
        """How many tokens of the phrases a hypothesis has."""
        done = self.phrases[state.number].size - len(state.rest) if state.rest else 0
        return sum(self.phrases[number].size for number in state.met) + done
