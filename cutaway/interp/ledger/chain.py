"""A chain of steps, from an embedding to an output or from a residual stream into a part of it, and its reading.

Shapes: C channels, R readers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cutaway.interp.ledger.reading import Held, Run, Sum
from cutaway.interp.ledger.steps import Edit, Pool, Step


class Chain:
    """Steps at one position, in the order of computation; the places between them have the names of activations.

    Args:
        base: the chain that this one begins in, and at which of its places; None: it begins with an embedding.
        source: whether its positions are those of a source.
    """

    def __init__(self, base: tuple[Chain, str] | None = None, *, source: bool = False) -> None:
        self.base, self.source = base, source
        self.steps: list[Step] = []
        self.places: dict[str, int] = {}  # name -> how many steps stand before it

    def then(self, *steps: Step | None) -> Chain:
        """Put further steps behind; what is None is left out."""
        for step in steps:
            if step is not None:
                self.steps.append(step)
                if isinstance(step, Edit):
                    self.places[step.name] = len(self.steps)
        return self

    @property
    def last(self) -> str:
        """The last place."""
        return list(self.places)[-1]

    def value(self, run: Run, end: int, position: int | None) -> Tensor:
        """(C,) what stood before a step: what was recorded last, and what the steps since then make of it."""
        start = end
        while start and not isinstance(self.steps[start - 1], Edit | Pool):
            start -= 1
        if start:
            step = self.steps[start - 1]
            x = step.used(run, position) if isinstance(step, Edit) else step.value(run)  # pyright: ignore[reportAttributeAccessIssue]
        elif self.base is not None:
            chain, place = self.base
            x = chain.value(run, chain.places[place], position)
        else:
            x = torch.empty(0)  # the embedding asks for nothing
        for step in self.steps[start:end]:
            x = step.forward(run, position, x)
        return x

    def read(
        self,
        run: Run,
        position: int | None,
        reader: Tensor,
        *,
        place: str | int | None = None,
        held: Held = (),
        parts: Sum | None = None,
    ) -> Sum:
        """Everything that was written before a place, as a reader finds it.

        Args:
            run: that is read.
            position: in the text, or the source; None where the place is of the whole text.
            reader: (…, C) float64, of what stands at the place.
            place: name of an activation, or how many steps stand before it; None: behind the last step.
            held: between the place and the number.
            parts: takes what is found; None: a new one.
        """
        parts = Sum() if parts is None else parts
        end = len(self.steps) if place is None else self.places[place] if isinstance(place, str) else place
        for i in reversed(range(end)):
            found = self.steps[i].back(run, position, partial(self.value, run, i, position), reader, held, parts)
            if found is None:
                return parts
            reader, held, position = found
        if self.base is not None:
            chain, start = self.base
            chain.read(run, position, reader, place=start, held=held, parts=parts)
        return parts

    def until(self, place: str) -> Chain:
        """The chain up to a place."""
        return Chain(self.base, source=self.source).then(*self.steps[: self.places[place]])

    def game(self, run: Run, position: int | None) -> tuple[Sum, Callable[[Tensor], Tensor]]:
        """The parts of the last sum on the way, each as a vector, and what the steps behind it make of any (…, C).

        What edits put in behind the sum is put in here too.
        """
        start = max((i + 1 for i, step in enumerate(self.steps) if step.sums), default=0)
        before: Callable[[Tensor], Tensor] | None = None
        if start == 0 and self.base is not None:
            chain, place = self.base
            parts, before = chain.until(place).game(run, position)
        else:
            where = self._seen(run, start, position)
            width = len(self.value(run, start, where))
            parts = self.read(run, where, torch.eye(width, dtype=torch.float64), place=start)
        added = {
            i: step.used(run, position) - self.value(run, i, position)
            for i, step in enumerate(self.steps)
            if i >= start and isinstance(step, Edit) and run.edited(step.name)
        }

        def function(x: Tensor) -> Tensor:
            x = x if before is None else before(x)
            for i in range(start, len(self.steps)):
                x = self.steps[i].forward(run, position, x) + added.get(i, 0.0)
            return x

        return parts, function

    def _seen(self, run: Run, start: int, position: int | None) -> int | None:
        """The position of what stands before a step, where a pooling of one token stands behind it."""
        for step in self.steps[start:]:
            if isinstance(step, Pool):
                return step.token(run)
        return position
