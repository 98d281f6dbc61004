"""Guesses of a draft: a smaller model of the same tokens, which continues the text first.

A draft draws its guesses, from probabilities q. One is accepted with probability min(1, p / q), else a token is drawn
from what p has more than q: that is distributed as p is (Leviathan et al. 2023; Chen et al. 2023), though the same seed
gives another text than without a draft.

Shapes: W wanted rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import Lock

import numpy as np
from jaxtyping import Bool, Float

from cutaway.errors import ConfigError
from cutaway.generation.advice import Plan
from cutaway.generation.backend import Backend, Logits, Rows
from cutaway.generation.choosing import Asked, Branch, Chooser
from cutaway.generation.constrain import Constrained
from cutaway.generation.memory import available_bytes
from cutaway.generation.pages import Pages, Table
from cutaway.generation.sampler import Sampler
from cutaway.generation.sampling import Kept, draw, keep
from cutaway.generation.select import choose_backend
from cutaway.generation.speculate import COST, Rates, worth
from cutaway.models import Decoder, Model
from cutaway.tokenizers import Tokenizer

PIECE = 512  # tokens of a prompt that a draft reads at a time
PROBE = 16  # where guesses do not pay, one is tried in so many steps


@dataclass(slots=True)
class _Line:
    """A sequence of the draft.

    Attributes:
        number: what its backend knows it by.
        table: its pages.
        held: the tokens that the backend holds, guesses among them.
        sure: of these, how many are no guesses.
    """

    number: int
    table: Table
    held: list[int] = field(default_factory=list)
    sure: int = 0


class Drafter:
    """A draft model with its backend and pages, for any number of requests.

    Args:
        model: the draft, a decoder.
        target: whose texts it guesses.
        most: guesses at a time.
        backend: as of the engine.

    Raises:
        ConfigError: it is no decoder, or has other tokens.
    """

    def __init__(self, model: Model, target: Model, *, most: int = 8, backend: str | Backend = "auto") -> None:
        if not isinstance(model.network, Decoder) or not isinstance(target.network, Decoder):
            raise ConfigError(
                f"a draft and what it guesses for must be decoders, but {model.source or 'the draft'} is a "
                f"{model.config.kind} and {target.source or 'the model'} a {target.config.kind}"
            )
        model.speaker("drafting")
        if not _same_tokens(model.tokenizer, target.tokenizer):
            raise ConfigError(
                f"a draft must have the same tokenizer as the model, but {model.source or 'the draft'} has "
                f"{model.tokenizer} and {target.source or 'the model'} {target.tokenizer}"
            )
        self.model, self.most = model, most
        self.backend = choose_backend(model, backend) if isinstance(backend, str) else backend
        self.pages = Pages(max(1, available_bytes() // 4 // self.backend.page_bytes), self.backend.page, 0)
        self.size, self.context = target.config.vocab_size, model.network.config.context
        # a token costs about as much as the weights that are read for it
        sizes = [sum(p.numel() for p in one.network.parameters()) for one in (model, target)]
        self.cost = COST + sizes[0] / max(1, sizes[1])
        self.lock = Lock()
        self._numbers, self._reserved = count(), 0

    def open(self) -> _Line:
        """Begin a text."""
        line = _Line(next(self._numbers), self.pages.open("")[0])
        self.backend.open(line.number)
        return line

    def close(self, line: _Line) -> None:
        """Forget a text."""
        self.pages.close(line.table)
        self.backend.close(line.number)

    def read(self, lines: Sequence[tuple[_Line, list[int]]]) -> list[Float[np.ndarray, " V"] | None]:
        """The logits of what comes after each text; what a line holds of it is not computed again.

        None of a text for which there is no room, in the context or in memory.
        """
        batch: list[Rows] = []
        for line, ids in lines:
            held, most = line.sure, min(len(line.held), len(ids) - 1)
            while held < most and line.held[held] == ids[held]:  # guesses that were right
                held += 1
            held = min(held, most)
            if len(ids) >= self.context or not self._room(line, held, len(ids)):
                continue
            while len(ids) - held > PIECE:
                self.backend.step([Rows(line.number, ids[held : held + PIECE], held, line.table.pages, 0)])
                held += PIECE
            batch.append(Rows(line.number, ids[held:], held, line.table.pages))
            line.held = list(ids)
        read = {rows.sequence for rows in batch}
        values = iter(self.backend.step(batch).values.numpy() if batch else [])
        return [self._fitted(next(values)) if line.number in read else None for line, _ in lines]

    def _fitted(self, row: Float[np.ndarray, " U"]) -> Float[np.ndarray, " V"]:
        """Logits of the target's vocabulary: either may be padded beyond the tokens that there are."""
        if len(row) >= self.size:
            return row[: self.size]
        return np.concatenate([row, np.full(self.size - len(row), -np.inf, np.float32)])

    def _room(self, line: _Line, start: int, end: int) -> bool:
        copies = self.pages.grow(line.table, start, end)
        if copies is None:
            return False
        if self.pages.made > self._reserved:
            self._reserved = max(self.pages.made, min(2 * self._reserved, self.pages.most))
            self.backend.reserve(self._reserved)
        assert not copies, "no page is shared"
        return True


class Drafted(Sampler):
    """Draws for one continuation, of which a draft guesses the next tokens."""

    def __init__(
        self, plan: Plan, generator: np.random.Generator, drafter: Drafter, constraint: Constrained | None = None
    ) -> None:
        super().__init__(plan, generator, constraint)
        self.drafter, self.rates = drafter, Rates([0.7])
        self._line: _Line | None = None
        self._drawn: list[Kept] = []  # what each guess was drawn from
        self._steps = 0

    def choose(self, asked: Sequence[Asked], logits: Logits) -> list[Branch]:
        """The tokens behind the one sequence."""
        (made,) = self.choose_all([self], [asked], logits)
        if isinstance(made, Exception):
            raise made
        return made

    @classmethod
    def choose_all(
        cls, choosers: Sequence[Chooser], asked: Sequence[Sequence[Asked]], logits: Logits
    ) -> list[list[Branch] | Exception]:
        """Of several continuations: their drafts guess together."""
        made = super().choose_all(choosers, asked, logits)
        by_drafter: dict[Drafter, list[tuple[Drafted, int, list[int], Branch]]] = {}
        for one, its, branches in zip(choosers, asked, made, strict=True):
            assert isinstance(one, Drafted)
            if not isinstance(branches, Exception):
                one._learn(its[0], branches[0])
                if not branches[0].guesses and branches[0].finish is None:  # else a constraint forces some
                    ids = its[0].ids + branches[0].ids
                    guessing = by_drafter.setdefault(one.drafter, [])
                    guessing.append((one, len(ids) - its[0].prompt, ids, branches[0]))
        for drafter, guessing in by_drafter.items():
            try:
                with drafter.lock:
                    _guess(drafter, guessing)
            except Exception as error:  # the drafts of these have failed, and with them their requests
                failed = {id(one) for one, *_ in guessing}
                made = [error if id(one) in failed else its for one, its in zip(choosers, made, strict=True)]
        return made

    def close(self) -> None:
        """It is over."""
        if self._line is not None:
            with self.drafter.lock:
                self.drafter.close(self._line)
            self._line = None

    def _learn(self, one: Asked, branch: Branch) -> None:
        drawn, self._drawn = self._drawn, []
        if drawn:
            for guess, id in zip(one.guesses, branch.ids, strict=False):
                self.rates.learn(0, guess == id)

    def _count(self) -> int:
        """How many to guess."""
        self._steps += 1
        wanted = worth([self.rates.rate(0)] * self.drafter.most, self.drafter.cost)
        return wanted or int(self._steps % PROBE == 0)

    def _token(
        self,
        values: Float[np.ndarray, " V"],
        number: int,
        allowed: Bool[np.ndarray, " V"] | None,
        place: int,
        guess: int | None,
    ) -> int:
        if guess is None or place >= len(self._drawn):
            return super()._token(values, number, allowed, place, guess)
        p, q = keep(values, self.plan.sampling(number), self._seen, allowed), self._drawn[place]
        if self.generator.random() * q.probability(guess) < p.probability(guess):
            return guess
        more = p.dense(len(values)) - q.dense(len(values))
        rest = Kept(None, np.maximum(more, 0).astype(np.float32))
        return draw(rest if rest.weights.any() else p, self.generator.random())


def _guess(drafter: Drafter, guessing: Sequence[tuple[Drafted, int, list[int], Branch]]) -> None:
    """Let the drafts of several continuations guess, a token of each at a time."""
    counts = [one._count() for one, *_ in guessing]
    for place in range(max(counts, default=0)):
        some = [it for it, count in zip(guessing, counts, strict=True) if place < count and place == len(it[3].guesses)]
        lines: list[tuple[_Line, list[int]]] = []
        for one, _, ids, branch in some:
            one._line = one._line or drafter.open()
            lines.append((one._line, ids + branch.guesses))
        for (one, number, _, branch), row in zip(some, drafter.read(lines), strict=True):
            if row is not None:
                drawn = keep(row, one.plan.sampling(number + place), one._seen)
                branch.guesses.append(draw(drawn, one.generator.random()))
                one._drawn.append(drawn)
                if one._seen is not None:
                    one._seen.add(branch.guesses[-1])
    for one, _, ids, branch in guessing:
        if one._line is not None:
            one._line.sure = len(ids)
        if one._seen is not None:
            for id in reversed(branch.guesses):
                one._seen.take_back(id)


def _same_tokens(one: Tokenizer, other: Tokenizer) -> bool:
    if one.fingerprint == other.fingerprint:
        return True
    if one.vocab_size != other.vocab_size or one.special != other.special:
        return False
    return all(one.token_bytes(id) == other.token_bytes(id) for id in range(one.vocab_size))
