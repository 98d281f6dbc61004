"""A backend whose logits are a hash of all that a sequence has seen, read from its pages."""

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import torch
from chain import Bare

from cutaway.generation.backend import Logits, Rows
from cutaway.models import OFF, Tap

V, PAGE = 12, 4
BROKEN = 11  # a token behind which there is no number


class Pages(Bare):
    """Keeps tokens in place of keys and values.

    Its logits tell every mistake about what a sequence has seen: a page that is another's, was not copied, or was not
    written, a token too many or too few.
    """

    name = reason = "a test"
    page, page_bytes, chunk = PAGE, 1000, 0

    def __init__(self, chunk: int = 0) -> None:
        self.chunk, self.memory, self.sequences = chunk, [], set()
        self.steps: list[list[Rows]] = []

    def reserve(self, pages: int) -> None:
        self.memory += [-1] * (pages * PAGE - len(self.memory))

    def copy(self, source: int, target: int) -> None:
        self.memory[target * PAGE : (target + 1) * PAGE] = self.memory[source * PAGE : (source + 1) * PAGE]

    def open(self, sequence: int, source: Any = None, tap: Tap = OFF) -> None:
        assert sequence not in self.sequences
        self.sequences.add(sequence)

    def fork(self, sequence: int, new: int) -> None:
        assert sequence in self.sequences
        self.open(new)

    def close(self, sequence: int) -> None:
        self.sequences.remove(sequence)

    def step(self, batch: Sequence[Rows]) -> Logits:
        self.steps.append([Rows(one.sequence, list(one.ids), one.start, [], one.wanted) for one in batch])
        values = []
        for rows in batch:
            assert rows.sequence in self.sequences
            places = [page * PAGE + place for page in rows.pages for place in range(PAGE)]
            for place, id in zip(places[rows.start :], rows.ids, strict=False):
                self.memory[place] = id
            end = rows.start + len(rows.ids)
            seen = [self.memory[place] for place in places[:end]]
            values += [logits_of(seen[: end - rows.wanted + 1 + i]) for i in range(rows.wanted)]
            if rows.tap is not OFF:
                rows.tap("seen", torch.tensor(seen))
        made = torch.tensor(values).reshape(-1, V)
        return Logits(made, made.argmax(-1), made.logsumexp(-1))


def logits_of(seen: Sequence[int]) -> list[float]:
    if seen[-1] == BROKEN:
        return [float("nan")] * V
    digest = hashlib.sha256(struct.pack(f"{len(seen)}b", *seen)).digest()
    return [byte / 64 for byte in digest[: V - 2]] + [-9.0, -9.0]  # neither what is broken nor the end
