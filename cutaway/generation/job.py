"""What the engine keeps of a request while it runs: its continuations, and the sequences that each of them runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from cutaway.generation.choosing import Chooser
from cutaway.generation.pages import Table
from cutaway.generation.prepare import Prepared
from cutaway.generation.request import Request
from cutaway.generation.text import Writer
from cutaway.generation.ticket import Ticket
from cutaway.models import OFF, Model


@dataclass(frozen=True, eq=False)
class Adapted:
    """An adapter that an engine holds.

    Attributes:
        model: the base with it.
        number: of all that the engine ever held, from 1 on: another adapter of the same name has another.
        beside: whether the engine's own backend computes it beside others; else it has a backend of its own.
    """

    model: Model
    number: int
    beside: bool


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens that a backend computes one behind the other.

    Attributes:
        number: what the backend knows it by.
        ids: all tokens, the prompt's first, without guesses.
        prompt: how many of them were given.
        base: of `ids`, the first that the backend sees; those before it are forgotten.
        held: tokens from there on that the backend holds.
        guesses: what to try behind `ids`.
        table: its pages; None while it does not run.
        sealed: tokens from `base` on whose pages may be found by others.
        served: the step in which it was computed last.
        products: where its products began, and how many rows each had, guesses among them; kept where numbers depend on
            that, so that it can be computed again just as it was.
        reached: tokens that were held before its pages were given back.
    """

    number: int
    ids: list[int]
    prompt: int
    base: int = 0
    held: int = 0
    guesses: list[int] = field(default_factory=list)
    table: Table | None = None
    sealed: int = 0
    served: int = 0
    products: dict[int, int] = field(default_factory=dict)
    reached: int = 0

    @property
    def pending(self) -> int:
        """Tokens that are not computed yet."""
        return len(self.ids) - self.base - self.held

    def restart(self, base: int) -> None:
        """Nothing is held any more; it will be computed anew from a token on."""
        if base != self.base:
            self.products, self.reached = {}, 0
        self.base, self.held, self.sealed, self.table = base, 0, 0, None

    def again(self) -> tuple[int, int] | None:
        """The product to compute again now: its rows, and how many of them were wrong guesses; None: a new one."""
        rows = self.products.get(self.held, 0) if self.held < self.reached else 0
        if not rows:
            return None
        end = min((start for start in self.products if start > self.held), default=self.reached)
        return rows, max(0, self.held + rows - end)  # or what follows was found, and so was no product of its own


@dataclass(slots=True, eq=False)
class Continuation:
    """One of a request's n continuations, or all of them where one chooser searches for them.

    Attributes:
        chooser: what chooses.
        writers: of its texts.
        first: the number of the first of them.
        sequences: what it runs; empty before the prompt is computed and after its end.
        tried: tokens guessed ahead.
        right: how many of them were.
    """

    chooser: Chooser
    writers: list[Writer]
    first: int
    sequences: list[Sequence] = field(default_factory=list)
    tried: int = 0
    right: int = 0
    ended: bool = False


@dataclass(slots=True, eq=False)
class Job:
    """A request that waits or runs.

    Attributes:
        request: what was asked.
        prepared: what that means for the model.
        ticket: what its caller holds.
        continuations: the first one computes the prompt; the others fork it.
        begun: whether the prompt has been computed.
        whole: whether the prompt is computed in one piece, and nothing of it found or computed again, as somebody looks
            or the numbers depend on the length of the text.
        width: sequences that it runs at the most.
        adapter: what is computed beside the weights; None: nothing.
        admitted: which of all admissions it was.
    """

    request: Request
    prepared: Prepared
    ticket: Ticket
    continuations: list[Continuation]
    whole: bool
    width: int
    adapter: Adapted | None = None
    begun: bool = False
    admitted: int = 0

    @property
    def sequences(self) -> list[Sequence]:
        """All that run."""
        return [one for continuation in self.continuations for one in continuation.sequences]

    @property
    def paused(self) -> bool:
        """Whether nobody waits for it now."""
        return self.ticket.lazy and not self.ticket.waiting

    @property
    def tapped(self) -> bool:
        """Whether somebody looks."""
        return self.request.tap is not OFF
