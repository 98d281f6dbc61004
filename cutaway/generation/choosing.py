"""From the logits of a step to what its sequences go on with: the choosers.

A request's continuations are each run by a *chooser*; a beam search is one chooser that runs all of a request's
hypotheses. The engine computes the rows that a chooser's sequences ask for and hands it their logits; it says which
sequences go on (twice: they fork; not at all: they are dropped), with which tokens, and which tokens to guess behind
them. Guesses are computed in the next step together with the last sure token, and what the chooser does not accept of
them is forgotten. Text, stop strings, tokens that end a text, and the count of tokens are the engine's.

Drawing (`sampler`), drawing with a draft (`drafts`) and beam search (`beams`) are choosers; `choosers` says which a
request has.

Shapes: W wanted rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cutaway.generation.backend import Logits
from cutaway.generation.request import Alternatives, FinishReason


@dataclass(slots=True)
class Asked:
    """One sequence of a chooser, and where its logits are.

    Attributes:
        ids: all of its tokens, the prompt's among them, without guesses; not to be changed.
        prompt: how many of these were given.
        guesses: the tokens that were tried behind them: those last asked for, or the first of them.
        row: of the logits, the first of its 1 + len(guesses) rows: what comes after the last of `ids`, after the first
            guess, …
    """

    ids: list[int]
    prompt: int
    guesses: list[int]
    row: int


@dataclass(slots=True)
class Branch:
    """A sequence that goes on.

    Attributes:
        ids: the tokens that were chosen, one or more: guesses that were accepted, then one that was drawn.
        rows: of the logits, the row that each of them was chosen from.
        parent: which of the chooser's asked sequences it goes on from. Several branches of one parent fork it.
        guesses: what to try behind `ids` in the next step. The engine may cut them short.
        finish: why it ends here; None: it goes on.
    """

    ids: list[int]
    rows: list[int]
    parent: int = 0
    guesses: list[int] = field(default_factory=list)
    finish: FinishReason | None = None


@dataclass
class Hypothesis:
    """A whole continuation, of a chooser that tells nothing before its end.

    Attributes:
        ids: the tokens.
        logprobs: of each under the model.
        finish: why it ends.
        top: beside each the likeliest ones, where they were asked for.
    """

    ids: list[int]
    logprobs: list[float]
    finish: FinishReason
    top: list[Alternatives] = field(default_factory=list)


class Chooser:
    """What chooses for the sequences of one continuation, or of several.

    Attributes:
        tells: whether chosen tokens are told at once. A search tells `results()` when nothing goes on any more, and
            sees to the tokens that end a text and to the count of tokens itself.
    """

    tells = True

    def choose(self, asked: Sequence[Asked], logits: Logits) -> list[Branch]:
        """What goes on after a step. At first one sequence is asked for, behind its prompt."""
        raise NotImplementedError

    def results(self) -> list[Hypothesis]:
        """Of a chooser that does not tell, the n best, best first."""
        raise NotImplementedError

    def close(self) -> None:
        """It is over, or given up."""

    @classmethod
    def choose_all(
        cls, choosers: Sequence[Chooser], asked: Sequence[Sequence[Asked]], logits: Logits
    ) -> list[list[Branch] | Exception]:
        """`choose` of several choosers of this class, of one step; a class that can do it together overrides this.

        What one of them fails with stands in place of its branches: its request fails with it, and no other.
        """
        return [_tried(one, its, logits) for one, its in zip(choosers, asked, strict=True)]


def _tried(one: Chooser, asked: Sequence[Asked], logits: Logits) -> list[Branch] | Exception:
    try:
        return one.choose(asked, logits)
    except Exception as error:
        return error
