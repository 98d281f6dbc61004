"""Attention scores as pairs of what the query and the key are made of, and what comes out of a softmax.

A score is a product of two sums, the query's and the key's, so it is the sum of all their pairs. Its ledger has two
levels: by what fed the query, the key held; and each of those by what fed the key.

A softmax makes sums only in its logarithm: ln p = score − logsumexp, and logsumexp is itself the sum of all scores,
each at its weight, and the entropy of the pattern: ln Σ exp(s) = Σ p·s + H(p). So a pattern's entry is opened as its
logarithm, exactly and with nothing held.

Shapes: S keys, D head dim, P parts of the query, N parts of the key.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.interp.ledger.layout import Layout
from cutaway.interp.ledger.ledger import Ledger, Term
from cutaway.interp.ledger.parts import Attention, at
from cutaway.interp.ledger.reading import Run, Sum
from cutaway.interp.ledger.steps import Activation, cap


class Score:
    """One score: a head's, of a query and a key.

    Args:
        run: that is read, with scores.
        layout: of the network.
        part: the attention.
        head: its number.
        query: position.
        key: position.

    Raises:
        InputError: the query does not see the key.
    """

    def __init__(self, run: Run, layout: Layout, part: Attention, head: int, query: int, key: int) -> None:
        self.run, self.layout, self.part, self.head, self.query, self.key = run, layout, part, head, query, key
        self.used = float(run.heads(f"{part.name}.scores")[head, query, key])
        if math.isinf(self.used):
            raise InputError(f"at position {query} the head does not see position {key}: there is no score to open")
        self.q = run.heads(f"{part.name}.q")[head, query].double()  # (D,)
        self.k = run.heads(f"{part.name}.k")[part.group(head), key].double()
        most = getattr(getattr(part.module, "config", None), "score_cap", 0.0)
        self.cap: Activation | None = cap(most) if most else None
        self.scale: float = getattr(part.module, "scale", part.module.head_dim**-0.5)  # pyright: ignore
        product = self.scale * self.q @ self.k
        self.made = self.cap.function(product) if self.cap else product
        self.ratio = self.scale * (float(self.made / product) if self.cap and product else 1.0)
        self.held = (self.cap.said,) if self.cap else ()
        self.distance = part.distance(head, query, key) if part.distance else 0.0

    @property
    def what(self) -> str:
        """To be read."""
        key = self.run.token(self.key, self.part.reads_source)
        where = at(self.run, self.part.head_name(self.head), self.query, self.part.stream.source)
        return f"score of {where} and “{key}” ({self.key})"

    def _query(self, reader: Tensor) -> Sum:
        return self.part.inner("q", self.head).read(self.run, self.query, reader, held=self.held)

    def _key(self, reader: Tensor) -> Sum:
        return self.part.inner("k", self.part.group(self.head)).read(self.run, self.key, reader, held=self.held)

    def ledger(self, factor: float = 1.0) -> Ledger:
        """By what fed the query; each by what fed the key; everything times a factor."""
        found, one = Sum(), torch.ones(1, dtype=torch.float64)
        if self.part.distance:
            found.add(["distance"], torch.tensor([[self.distance]], dtype=torch.float64), factor * one, ())
        sides = self._query(factor * self.ratio * self.k)
        if self.run.edited(f"{self.part.name}.scores"):
            change = self.used - self.distance - float(self.made)
            found.add(
                [f"{self.part.name}.scores.edit"],
                torch.tensor([[change]], dtype=torch.float64),
                factor * one,
                (),
                ["edited"],
            )
        names, values = sides.names, sides.values
        parts: list[Tensor] = []  # of the query, (P, D), computed when the first is opened

        def opener(i: int) -> Ledger:
            if not parts:
                eye = torch.eye(len(self.q), dtype=torch.float64)
                parts.append(self._query(eye).values.T)
            what = f"what {names[i]} brings to the {self.what}, by what fed the key"
            below = self._key(factor * self.ratio * parts[0][i])
            return below.ledger(self.run, what, float(values[i]))

        found.join(sides, opener)
        by = "" if factor == 1 else f" times {factor:.3g}"
        return found.ledger(self.run, f"{self.what}{by}, by what fed the query", factor * self.used)

    def pairs(self) -> tuple[list[str], list[str], Tensor]:
        """Names of the parts of query and of key, and their products (P, N), which sum to the score but for bias."""
        eye = torch.eye(len(self.q), dtype=torch.float64)
        query, key = self._query(eye), self._key(eye)
        return query.names, key.names, self.ratio * query.values.T @ key.values


@dataclass(frozen=True)
class Softmax:
    """A softmax whose entries are opened as their logarithms.

    Attributes:
        run: that is read.
        scores: (S,) float64 that it was given.
        names: of the scores.
        labels: of the scores, to be read.
        opener: the ledger of a score times a factor.
        word: what a score is called.
    """

    run: Run
    scores: Tensor
    names: list[str]
    labels: list[str]
    opener: Callable[[int, float], Ledger]
    word: str = "score"

    def entry(self, chosen: int, used: float, what: str, *, sign: float = 1.0, edit: str = "") -> Ledger:
        """The logarithm of an entry.

        Args:
            chosen: which.
            used: its logarithm as it was used.
            what: it, to be read.
            sign: of the whole; -1 for a loss.
            edit: the name of the activation that may have been replaced.
        """
        score, normaliser = sign * float(self.scores[chosen]), -sign * float(self.scores.logsumexp(0))
        terms = [Term(self.word, score, self.labels[chosen], True), Term("logsumexp", normaliser, "", True)]
        opened = {self.word: partial(self.opener, chosen, sign), "logsumexp": partial(self._normaliser, -sign)}
        if self.run.edited(edit):
            terms.append(Term(f"{edit}.edit", sign * used - score - normaliser, "edited"))
        return Ledger(what, tuple(terms), sign * used, opened, self.run.unit, receipt=self.run.receipt)

    def _normaliser(self, sign: float) -> Ledger:
        chances = self.scores.softmax(0)
        values = (sign * chances * self.scores).tolist()
        terms = [Term(n, value, label, True) for n, value, label in zip(self.names, values, self.labels, strict=True)]
        entropy = -float(torch.special.xlogy(chances, chances).sum())
        terms.append(Term("entropy", sign * entropy, "of all chances"))
        opened = {n: partial(self.opener, i, sign * float(chances[i])) for i, n in enumerate(self.names)}
        what = f"{'minus ' if sign < 0 else ''}logsumexp: every {self.word} at its chance, and the entropy"
        total = sign * float(self.scores.logsumexp(0))
        return Ledger(what, tuple(terms), total, opened, self.run.unit, receipt=self.run.receipt)
