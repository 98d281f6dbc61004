"""The ledger: one number, opened into the terms that sum to it, with the rounding error stated.

A number is linear in what the parts of a model wrote, once everything between that is not linear is held at what it
was: a norm at its scale, a pattern at its weights, a gate at its value. So it unfolds exactly (Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits"), and each of its terms is such a number again. This is the ledger
itself; `numbers` makes one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from cutaway.errors import CutawayError, InputError, unknown
from cutaway.interp.results import Result

SHOWN = 12  # terms shown one by one where there are many
HELD = 32  # terms of an opened level in a saved page
INPUTS = ("embed", "sound")  # the terms that stand for what was read
# error allowed, relative to all that was added up (`Ledger.scale`)
TOLERANCE = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 1e-1, "float16": 1e-2}


class LedgerError(CutawayError):
    """The terms do not add up: a part of the model is missing from the ledger, which is a bug of ours."""


@dataclass(frozen=True)
class Term:
    """One part of a sum.

    Attributes:
        name: "embed", "layers.2.head.3", "layers.1.mlp", "neuron.17", "source.4" …
        value: what it adds, in the unit of the number.
        label: to be read, such as the token of a source.
        opens: whether `expand` has a next level for it.
        frozen: what was held at what it was between the term and the number, such as "norm at its actual scale"; of
            a term that is attributed by sampling nothing is, and `spread` is above zero.
        spread: the standard error of a value that was sampled.
    """

    name: str
    value: float
    label: str = ""
    opens: bool = False
    frozen: str = ""
    spread: float = 0.0


Openers = Mapping[str, Callable[[], "Ledger"]]


@dataclass(frozen=True)
class Ledger(Result):
    """Terms that sum to a number.

    Attributes:
        what: the number, to be read.
        terms: in the order of computation.
        total: the number as the model computed it.
        unit: of the number.
        scale: the sum of the absolute values of all products that were added, which is what rounding is relative to.
        receipt: its dtype decides how large an error rounding may cause; its `gap` is the error.

    Raises:
        LedgerError: on construction, if the terms miss the total by more than rounding explains.
    """

    picture = "ledger"
    what: str
    terms: tuple[Term, ...]
    total: float
    openers: Openers = field(default_factory=dict, repr=False, compare=False)
    unit: str = "logits"
    scale: float = field(default=0.0, repr=False, compare=False)
    exact: bool = field(default=True, repr=False, compare=False)  # else the gap is stated, and may be large

    def __post_init__(self) -> None:
        object.__setattr__(self, "receipt", replace(self.receipt, gap=self.error))
        scale = max([self.scale, abs(self.total), *(abs(term.value) for term in self.terms)])
        rounding = TOLERANCE[self.receipt.dtype] * scale + sys.float_info.min  # below it steps are no longer relative
        if self.exact and not self.error <= rounding:
            raise LedgerError(f"the terms of the {self.what} miss it by {self.error:.3g}, more than rounding explains")

    @property
    def error(self) -> float:
        """How far the sum of the terms is from the total."""
        return abs(sum(term.value for term in self.terms) - self.total)

    def __getitem__(self, name: str) -> Term:
        """The term of a name.

        Raises:
            InputError: no such term.
        """
        for term in self.terms:
            if term.name == name:
                return term
        raise InputError(unknown("term", name, [term.name for term in self.terms]))

    def expand(self, name: str | Term) -> Ledger:
        """One level down: the terms that sum to one term, without running the model again.

        Raises:
            InputError: no such term, or it is a leaf.
        """
        name = name.name if isinstance(name, Term) else name
        if name not in self.openers:
            self[name]
            raise InputError(f"{name} is a leaf of this ledger; it opens: {', '.join(self.openers) or 'nothing'}")
        with torch.no_grad():
            return self.openers[name]()

    def path(self, *names: str) -> Ledger:
        """Several levels down: `path("layers.3.head.1", "source.4")` is what the head took from token 4.

        Raises:
            InputError: as in `expand`.
        """
        opened = self
        for name in names:
            opened = opened.expand(name)
        return opened

    def follow(self, depth: int = 32) -> list[tuple[Term, Ledger | None]]:
        """The steps of `trace`, each with the level that it opened; None of one that does not open.

        Args:
            depth: most levels.
        """
        steps: list[tuple[Term, Ledger | None]] = []
        opened: Ledger | None = self
        while opened is not None and len(steps) < depth:
            ways = [t for t in opened.terms if t.opens or t.name in INPUTS]
            if not ways:
                break
            term = max(ways, key=lambda term: abs(term.value))
            opened = opened.expand(term) if term.opens else None
            steps.append((term, opened))
        return steps

    def trace(self, depth: int = 32) -> list[Term]:
        """From the number to a token of the input, at each level by the largest term that leads further.

        It is one path among very many, the greedy one: the terms beside it may count for more together.

        Args:
            depth: most levels.

        Returns:
            The terms passed, the last of them the input, where there is a way to it.
        """
        return [term for term, _ in self.follow(depth)]

    def top(self, count: int = SHOWN) -> list[Term]:
        """The largest terms by absolute value, largest first."""
        return sorted(self.terms, key=lambda term: -abs(term.value))[:count]

    def brief(self, count: int = SHOWN) -> list[Term]:
        """The largest terms, largest first, and all others as one."""
        terms = self.top(count)
        if len(terms) == len(self.terms):
            return terms
        rest = sum(term.value for term in self.terms) - sum(term.value for term in terms)
        return [*terms, Term("others", rest, f"{len(self.terms) - len(terms):,} others")]

    def to_json(self, depth: int = 0, most: int | None = None) -> dict[str, Any]:
        """As plain data: the tree of terms.

        Args:
            depth: levels to open below this one.
            most: terms of an opened level to list; the others are one. None lists all.
        """
        return self._rows(depth, most, None) | {"receipt": self.receipt.to_json()}

    def _rows(self, depth: int, most: int | None, count: int | None) -> dict[str, Any]:
        order = {term.name: place for place, term in enumerate(self.terms)}
        kept = self.terms if count is None else sorted(self.brief(count), key=lambda t: order.get(t.name, len(order)))
        rows = []
        for term in kept:
            row: dict[str, Any] = {"name": term.name, "value": term.value}
            row |= {"label": term.label} if term.label else {}
            row |= {"frozen": term.frozen} if term.frozen else {}
            row |= {"spread": term.spread} if term.spread else {}
            if depth and term.opens:
                row["opened"] = self.expand(term.name)._rows(depth - 1, most, most)
            rows.append(row)
        return {"what": self.what, "unit": self.unit, "total": self.total, "error": self.error, "terms": rows}

    def data(self) -> dict[str, Any]:
        return super().data() | {"error": self.error}

    def page_data(self) -> dict[str, Any]:
        """With the levels below it, of each its largest terms; a saved page has nobody to ask for them."""
        levels = {term.name: self.expand(term)._held(HELD) for term in self.terms if term.opens}
        return super().page_data() | {"levels": levels}

    def _held(self, most: int) -> dict[str, Any]:
        """This level in a page that opens it no further: its largest terms in their order, the others as one."""
        order = {term.name: place for place, term in enumerate(self.terms)}
        terms = sorted(self.brief(most), key=lambda term: order.get(term.name, len(order)))
        made = {"what": self.what, "unit": self.unit, "total": self.total, "error": self.error}
        return made | {"terms": [replace(term, opens=False) for term in terms]}
