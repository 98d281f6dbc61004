"""The ledger: one number, opened into the terms that sum to it, with the rounding error stated.

A logit is linear in what the parts of a model wrote, once the final norm is taken at its actual scale; so it unfolds
exactly (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). This is the ledger itself; `unfold`
makes one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cutaway.errors import CutawayError, InputError, unknown
from cutaway.interp.results import Result

SHOWN = 12  # terms shown one by one where there are many
# error allowed, relative to the largest term if that is above 1
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 1e-1, "float16": 1e-2}


class LedgerError(CutawayError):
    """The terms do not add up: a part of the model is missing from the ledger, which is a bug of ours."""


@dataclass(frozen=True)
class Term:
    """One part of a sum.

    Attributes:
        name: "embed", "layers.2.head.3", "layers.1.mlp", "neuron.17", "source.4" …
        value: what it adds, in logits.
        label: to be read, such as the token of a source.
        opens: whether `expand` has a next level for it.
    """

    name: str
    value: float
    label: str = ""
    opens: bool = False


Openers = dict[str, Callable[[], "Ledger"]]


@dataclass(frozen=True)
class Ledger(Result):
    """Terms that sum to a number.

    Attributes:
        what: the number, to be read.
        terms: in the order of computation.
        total: the number as the model computed it.
        receipt: its dtype decides how large an error rounding may cause.

    Raises:
        LedgerError: on construction, if the terms miss the total by more than rounding explains.
    """

    picture = "ledger"
    what: str
    terms: tuple[Term, ...]
    total: float
    openers: Openers = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        scale = max([1.0, *(abs(term.value) for term in self.terms)])
        if not self.error <= TOLERANCE[self.receipt.dtype] * scale:
            raise LedgerError(f"the terms of the {self.what} miss it by {self.error:.3g}, more than rounding explains")

    @property
    def error(self) -> float:
        """How far the sum of the terms is from the total."""
        return abs(sum(term.value for term in self.terms) - self.total)

    def expand(self, name: str) -> Ledger:
        """One level down: the terms that sum to one term, without running the model again.

        Raises:
            InputError: no such term, or it is a leaf.
        """
        if name not in self.openers:
            if name in {term.name for term in self.terms}:
                raise InputError(f"{name} is a leaf of this ledger; it opens: {', '.join(self.openers) or 'nothing'}")
            raise InputError(unknown("term", name, [term.name for term in self.terms]))
        return self.openers[name]()

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
        """As plain data.

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
            if term.label:
                row["label"] = term.label
            if depth and term.opens:
                row["opened"] = self.expand(term.name)._rows(depth - 1, most, most)
            rows.append(row)
        return {"what": self.what, "total": self.total, "error": self.error, "terms": rows}

    def page_data(self) -> dict[str, Any]:
        return self.to_json(depth=1, most=32)
