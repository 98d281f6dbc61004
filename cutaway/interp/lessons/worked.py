"""What a lesson returns: the numbers of one formula, worked out on a text, in the order in which one computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.interp.inputs import Inputs, Text, inputs_of
from cutaway.interp.record import Recording
from cutaway.interp.results import Cell, Curve, Table
from cutaway.models import Model
from cutaway.models.model import Source

# arguments of `cutaway.interp.ledger` that open a number; of another analysis, if "analysis" names one
Opens = dict[str, str | int | list[int]]


@dataclass(frozen=True)
class Shown:
    """A number of a formula.

    Attributes:
        name: which, as the lesson's function says.
        value: of it.
        opens: the arguments of `ledger` that open it; None where it has none.
    """

    name: str
    value: float
    opens: Opens | None = None


@dataclass(frozen=True)
class Worked(Table):
    """A formula, worked out. The table holds what has many numbers, such as one for each token.

    Attributes:
        figures: the single numbers, in the order of computation.
        facts: words that say which numbers these are: a token, a weight's name.
        ledgers: column -> for each row the arguments of `ledger` that open its number.
        curve: where a number would go, were another one changed.
        tokens: of the text, to be read; empty where no text is asked about.
        places: the positions that may be asked about.
        place: the one that is.
    """

    figures: list[Shown] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    ledgers: dict[str, list[Opens | None]] = field(default_factory=dict)
    curve: Curve | None = None
    tokens: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    place: int | None = None

    def __getitem__(self, name: str) -> float:
        """The value of a figure.

        Raises:
            InputError: there is none of this name.
        """
        for figure in self.figures:
            if figure.name == name:
                return figure.value
        raise InputError(f"there is no figure {name!r}; there are {', '.join(one.name for one in self.figures)}")


def model_of(model: Recording | Model) -> Model:
    """Whose numbers are told."""
    return model.model if isinstance(model, Recording) else model


def given_to(model: Recording | Model, text: Text, source: Source | Sequence[str] | None) -> Inputs:
    """What is read, of several texts the first."""
    inputs = model.inputs if isinstance(model, Recording) else inputs_of(model, text, source)
    return inputs.rows(0, 1)


def names_of(model: Model, ids: Tensor) -> list[str]:
    """Tokens of a text, or of an encoder–decoder's target, to be read."""
    tokenizer = model.tokenizer.target or model.tokenizer
    return [tokenizer.token(id) for id in ids.tolist()]


def place_in(position: int, count: int, what: str = "text") -> int:
    """A position from 0 on.

    Raises:
        InputError: outside.
    """
    if not -count <= position < count:
        raise InputError(f"position {position} is outside the {what} of {count} tokens (-{count} … {count - 1})")
    return position % count


def strongest(numbers: Tensor) -> int:
    """Where the largest number by absolute value stands."""
    return int(numbers.abs().argmax())


def chosen_in(index: int | None, numbers: Tensor, what: str) -> int:
    """An index, or that of the largest number by absolute value where none is given.

    Raises:
        InputError: outside.
    """
    if index is None:
        return strongest(numbers)
    if not 0 <= index < len(numbers):
        raise InputError(f"{what} {index} is not there: there are 0 … {len(numbers) - 1}")
    return index


def cells(*columns: Sequence[Any] | Tensor) -> list[list[Cell]]:
    """Columns as rows of plain values."""
    plain = [column.tolist() if isinstance(column, Tensor) else list(column) for column in columns]
    return [list(row) for row in zip(*plain, strict=True)]


def recorded(recording: Recording, name: str) -> Tensor:
    """An activation of the first text, float64."""
    return recording[name][0].detach().to(torch.float64)
