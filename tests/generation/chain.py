"""A backend whose next token depends on the last one alone: all probabilities of its texts are known."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cutaway.generation.backend import Logits, Rows


class Bare:
    """What every backend has and most tests have no use for."""

    apart = False

    def adapt(self, number: int, network: Any) -> bool:
        return False

    def work_bytes(self, rows: int, wanted: int) -> int:
        return 4 * rows * wanted

    def packed_bytes(self) -> int:
        return 0

    def end(self) -> None:
        pass


class Chain(Bare):
    """Computes nothing but looks logits up, (V, V) float32: of the token that comes after each."""

    name, reason, page, page_bytes, chunk = "chain", "a test", 16, 1, 0

    def __init__(self, table: Tensor) -> None:
        self.table, self.rows, self.steps, self.pages = table, 0, 0, 0
        self.held: dict[tuple[int, int], int] = {}  # (page, place) -> token: what a real one would compute from

    def reserve(self, pages: int) -> None:
        self.pages = pages

    def copy(self, source: int, target: int) -> None:
        for place in range(self.page):
            if (source, place) in self.held:
                self.held[target, place] = self.held[source, place]

    def open(self, sequence: int, source: Any = None, tap: Any = None) -> None:
        pass

    def fork(self, sequence: int, new: int) -> None:
        pass

    def close(self, sequence: int) -> None:
        pass

    def step(self, batch: Sequence[Rows]) -> Logits:
        self.steps += 1
        found = []
        for rows in batch:
            self.rows += len(rows.ids)
            assert max(rows.pages) < self.pages
            assert len(rows.pages) * self.page >= rows.start + len(rows.ids), "there are pages for all tokens"
            for place in range(rows.start):  # what was said to be held is held
                assert (rows.pages[place // self.page], place % self.page) in self.held
            for place, id in enumerate(rows.ids, rows.start):
                self.held[rows.pages[place // self.page], place % self.page] = id
            found += rows.ids[len(rows.ids) - rows.wanted :] if rows.wanted else []
        values = self.table[found].clone()
        return Logits(values, values.argmax(-1), values.logsumexp(-1))
