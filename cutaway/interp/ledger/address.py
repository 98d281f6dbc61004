"""Which number of a recorded activation is asked for: how positions, heads, indices and tokens say it.

An activation's last dimension is chosen by `index`, its heads by `head`, its positions by `position`; of scores and
patterns the position is the query's and the index the key's. Of an output, `token` and `minus` choose.

Shapes: C numbers of the last dimension.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.inputs import Inputs
from cutaway.interp.ledger.parts import at
from cutaway.interp.ledger.reading import Run
from cutaway.interp.target import Target, target_of

BY_HEAD = ("q", "k", "v", "z", "scores", "pattern")
OF_SOURCE = re.compile(r"encoder\..*|.*\.cross_attn\.[kv]")  # names whose positions are a source's


@dataclass(frozen=True)
class Number:
    """One number of a run.

    Attributes:
        what: the name of the activation.
        said: the number, to be read.
        place: its position; None where there is one for a whole text.
        reader: (C,) float64, which numbers of the last dimension it is the sum of, and how many times; of outputs,
            scores and patterns it is not used.
        head: which head.
        key: of scores and patterns, which key; of a router which expert.
        target: of an output.
    """

    what: str
    said: str
    place: int | None
    reader: Tensor
    head: int = 0
    key: int = 0
    target: Target | None = None


def number_of(
    run: Run,
    what: str,
    *,
    position: int = -1,
    token: str | int | None = None,
    minus: str | int | None = None,
    quantity: str = "logit",
    head: int | None = None,
    index: int | Tensor | None = None,
) -> Number:
    """The number that is asked for; the arguments are those of `ledger`.

    Raises:
        InputError: it is not there, or something is missing that would choose it.
        ConfigError: a probability, which is no sum.
    """
    if what in ("logits", run.network.tap_names()[-1]):
        if head is not None or index is not None:
            raise InputError("an output is chosen by token= and minus=; leave head and index out")
        return _output(run, what, position, token, minus, quantity)
    if token is not None or minus is not None or quantity != "logit":
        raise InputError(f"token and minus choose a logit; of {what} choose a number by index=")
    recorded, last = run.recording[what], what.rsplit(".", 1)[-1]
    by_head = last in BY_HEAD
    if (head is None) == by_head:
        have = f"has heads 0 … {recorded.shape[1] - 1}; choose one by head=" if by_head else "has no heads"
        raise InputError(f"{what} {have}")
    if head is not None and not 0 <= head < recorded.shape[1]:
        raise InputError(f"{what} has heads 0 … {recorded.shape[1] - 1}, but {head} was asked for")
    source, size = OF_SOURCE.fullmatch(what) is not None, recorded.shape[-1]
    place = None if recorded.ndim == 2 else _place(run, position, source, recorded.shape[-2])
    key = 0
    if last in ("scores", "pattern"):
        if not isinstance(index, int):
            raise InputError(f"{what} has a number for each key: choose one by index=, a position")
        key = _place(run, index, what.startswith("encoder.") or ".cross_attn." in what, size)
        reader = torch.zeros(0, dtype=torch.float64)
    else:
        reader = _reader(what, index, size)
        key = index % size if isinstance(index, int) else 0
    which = f"number {index}" if isinstance(index, int) else "reading"
    where = what if place is None else at(run, what, place, source)
    said = f"{which} of {'' if head is None else f'head {head} of '}{where}"
    return Number(what, said, place, reader, head or 0, key)


def _output(
    run: Run, what: str, position: int, token: str | int | None, minus: str | int | None, quantity: str
) -> Number:
    if quantity == "prob":
        raise ConfigError("a probability is no sum, but its logarithm is: ask for quantity='logprob'")
    rows = run.inputs.rows(run.row, run.row + 1)
    target = target_of(
        run.model,
        rows,
        token=token,
        minus=minus,
        position=position,
        quantity=quantity,  # pyright: ignore[reportArgumentType]  # it checks that itself
        output=run.recording.logits[run.row : run.row + 1],
    )
    place = None if target.position is None else int(rows.places(target.position)[0])
    return Number(what, target.what, place, torch.zeros(0, dtype=torch.float64), target=target)


def _place(run: Run, position: int, source: bool, length: int) -> int:
    """Where a position stands, padding left out.

    Raises:
        InputError: outside the text, or the source.
    """
    mask = run.mask(source)
    rows = Inputs(torch.zeros(1, length, dtype=torch.int64), None if mask is None else mask[run.row : run.row + 1])
    return int(rows.places(position)[0])


def _reader(what: str, index: int | Tensor | None, size: int) -> Tensor:
    if isinstance(index, Tensor):
        if index.shape != (size,):
            raise InputError(f"{what} is read by a vector of {size} numbers, but one of {tuple(index.shape)} was given")
        return index.double()
    if index is None or not -size <= index < size:
        given = "none was chosen" if index is None else f"{index} was asked for"
        raise InputError(f"{what} has {size} numbers at a position, 0 … {size - 1}, but {given}; choose one by index=")
    reader = torch.zeros(size, dtype=torch.float64)
    reader[index] = 1
    return reader
