"""Tensors by name as a tree that opens branch by branch, each with a strip that shows how its numbers are spread.

Shapes: R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, unknown
from cutaway.interp.results import Table

CELLS = 64  # of a strip


@dataclass(frozen=True)
class TensorEntry:
    """A branch of the tree, or a tensor.

    Attributes:
        name: in full.
        tensor: whether it is one; else a branch.
        shape: of the tensor; of a branch empty.
        dtype: of the tensor, or how it is quantised; of a branch "".
        count: numbers in it.
        size: root mean square of the tensor's numbers; None of a branch.
    """

    name: str
    tensor: bool
    shape: list[int]
    dtype: str
    count: int
    size: float | None


@dataclass(frozen=True)
class Tensors(Table):
    """What is in a branch.

    Attributes:
        branch: its name; "" is the root.
        entries: one for each row.
        by_row: of each matrix, by name, the root mean square of each row: at most 64 cells, each over neighbours.
        by_column: of each tensor the same of each column, or of a vector of each number.
    """

    branch: str
    entries: list[TensorEntry]
    by_row: dict[str, Float[Tensor, " R"]]
    by_column: dict[str, Float[Tensor, " C"]]


COLUMNS = ["name", "shape", "dtype", "numbers", "root mean square"]


def children(names: Iterable[str], branch: str) -> dict[str, list[str]]:
    """What stands directly in a branch -> the tensors in it, itself where it is one.

    A module of nothing but tensors is no branch of its own: its tensors stand in the one above.

    Raises:
        ConfigError: no such branch.
    """
    known = list(names)
    prefix = f"{branch}." if branch else ""
    found: dict[str, list[str]] = {}
    within = {name: name.removeprefix(prefix).split(".") for name in known if name.startswith(prefix)}
    deep = {parts[0] for parts in within.values() if len(parts) > 2 or parts[0].isdigit()}
    for name, parts in within.items():
        alone = len(parts) == 1 or parts[0] not in deep
        found.setdefault(name if alone else prefix + parts[0], []).append(name)
    if not found:
        branches = {".".join(name.split(".")[:depth]) for name in known for depth in range(1, name.count(".") + 1)}
        raise ConfigError(unknown("branch", branch, sorted(branches)))
    return found


def strips(tensor: Tensor) -> tuple[float, Tensor | None, Tensor]:
    """Root mean square of all numbers, of each row (None of a vector), and of each column; each in at most 64 cells.

    What stands before the last two dimensions counts as more rows. Numbers that are not finite, such as the scores of
    what a query does not see, are left out.
    """
    squares = tensor.detach().float().square()
    squares = squares.reshape(-1, squares.shape[-1]) if squares.ndim > 1 else squares.reshape(1, -1)
    fine = squares.isfinite()
    if not fine.all():
        squares = squares.where(fine, 0.0)
        counts = fine.float()
        of_row, of_column = squares.sum(1) / counts.sum(1).clamp(min=1), squares.sum(0) / counts.sum(0).clamp(min=1)
        all_ = float(squares.sum() / counts.sum().clamp(min=1))
    else:
        of_row, of_column = squares.mean(1), squares.mean(0)
        all_ = float(of_row.double().mean())
    rows = _cells(of_row).sqrt() if tensor.ndim > 1 else None
    return all_**0.5, rows, _cells(of_column).sqrt()


def _cells(values: Tensor) -> Tensor:
    """(N,) to at most CELLS means of neighbours."""
    if len(values) <= CELLS:
        return values.cpu()
    return torch.stack([part.mean() for part in values.tensor_split(CELLS)]).cpu()
