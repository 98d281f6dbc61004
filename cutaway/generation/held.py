"""What a backend holds of sequences: their states or pages, opened, forked, grown and given back together."""

from __future__ import annotations

from collections.abc import Iterator

from cutaway.generation.backend import Backend
from cutaway.generation.job import Sequence
from cutaway.generation.pages import Pages, Table


class Held:
    """A backend and its pages.

    Args:
        backend: what computes.
        most: pages that there may be.
        keep: pages that are kept though nobody uses them.
        numbers: for sequences that are forked.
    """

    def __init__(self, backend: Backend, most: int, keep: int, numbers: Iterator[int]) -> None:
        self.backend, self.pages, self._numbers = backend, Pages(most, backend.page or 1, keep), numbers
        self._reserved = 0

    def grow(self, table: Table, start: int, end: int) -> bool:
        """Make it that tokens start … end - 1 of a sequence can be computed; False: there are too few pages.

        Raises:
            Exception: what the backend fails with, such as too little memory.
        """
        copies = self.pages.grow(table, start, end)
        if copies is None:
            return False
        # there may be numbers that a failure left without room
        if self.pages.made > self._reserved and (last := max(table.pages)) >= self._reserved:
            wanted = min(self.pages.most, max(last + 1, 2 * self._reserved))
            self.backend.reserve(wanted)
            self._reserved = wanted
        for source, target in copies:
            self.backend.copy(source, target)
        return True

    def fork(self, one: Sequence) -> Sequence:
        """Another sequence with the same tokens."""
        new = Sequence(next(self._numbers), list(one.ids), one.prompt, one.base, one.held)
        new.sealed, new.served = one.sealed, one.served
        new.products, new.reached = dict(one.products), one.reached
        self.backend.fork(one.number, new.number)
        if one.table is not None:
            new.table = self.pages.fork(one.table)
        return new

    def seal(self, one: Sequence, start: int, end: int) -> None:
        """Let the full pages of what was computed be found, where their numbers do not depend on how it was done."""
        table, chunk = one.table, self.backend.chunk
        if table is None:
            return
        if not chunk:
            if end // self.pages.size > len(table.keys):
                self.pages.seal(table, one.ids[one.base : one.base + end], end)
        elif start == one.sealed and start % chunk == 0 and end - start == chunk:
            one.sealed = end
            self.pages.seal(table, one.ids[one.base : one.base + end], end)

    def shut(self, one: Sequence) -> None:
        """Give a sequence's pages back; it may be computed again."""
        if one.table is not None:
            self.pages.close(one.table)
        one.restart(one.base)

    def close(self, one: Sequence) -> None:
        """Forget a sequence."""
        self.shut(one)
        self.backend.close(one.number)
