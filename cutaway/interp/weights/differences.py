"""What has changed from one set of weights to another: two models, or the checkpoints of a run.

Shapes: R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Cell, Curve, Panel, Table
from cutaway.interp.weights.spectra import effective_rank
from cutaway.interp.weights.tensors import is_matrix, tensors_of
from cutaway.models import Model, load_model
from cutaway.models.model import CHECKPOINTS, checkpoints
from cutaway.progress import OnProgress, Progress

if TYPE_CHECKING:
    from cutaway.training import Run

SHOWN = 8  # tensors that get a line of their own


@dataclass(frozen=True)
class Change:
    """How two tensors of one shape differ.

    Attributes:
        relative: ‖b - a‖ / ‖a‖; infinite if a is 0 and b is not.
        cosine: of the angle between them, as one long vector each; None where one of them is 0.
        rank: effective rank of the difference, of a matrix.
    """

    relative: float
    cosine: float | None
    rank: float | None


def change(before: Tensor, after: Tensor, *, rank: bool = True) -> Change:
    """How two tensors of one shape differ; `rank` whether to compute that of the difference."""
    a, b = before.double(), after.double()
    size, moved = float(a.norm()), float((b - a).norm())
    both = size * float(b.norm())
    cosine = min(1.0, max(-1.0, float((a * b).sum()) / both)) if both else None
    relative = moved / size if size else (float("inf") if moved else 0.0)
    ranked = rank and is_matrix(a)
    return Change(relative, cosine, effective_rank(torch.linalg.svdvals(b - a)) if ranked else None)


def weight_difference(
    model: Model,
    other: Model,
    names: str | Iterable[str] = "*",
    *,
    rank: bool = True,
    progress: OnProgress | None = None,
) -> Table:
    """How far each weight of one model lies from that of another: a base model and what was fine-tuned from it.

    A fine-tuning often moves weights little and in few directions: a small relative change of a low rank.

    Args:
        model: where from.
        other: where to, with tensors of the same names and shapes; either may be kept quantised.
        names: patterns of tensor names.
        rank: whether to compute the effective rank of each difference (see `spectra`).
        progress: told after each tensor.

    Returns:
        A row for each tensor, largest relative change first: ‖b - a‖ / ‖a‖, cosine, effective rank.

    Raises:
        ConfigError: tensors that differ in names or shapes, named; a pattern that selects nothing.
        NonFinite: a weight is a NaN or an infinity.
    """
    given = [names] if isinstance(names, str) else list(names)
    clock = Clock(model, "weight_difference", other=other, names=given, rank=rank)
    theirs = {name: tuple(tensor.shape) for name, tensor in tensors_of(other, given)}
    rows: list[list[Cell]] = []
    again = tensors_of(other, given)
    for name, tensor in tensors_of(model, given):
        if theirs.pop(name, None) != tuple(tensor.shape):
            raise ConfigError(_misfit(name, model, other))
        found, matching = next(again)
        assert found == name
        seen = change(tensor, matching, rank=rank)
        rows.append([name, " × ".join(map(str, tensor.shape)), seen.relative, seen.cosine, seen.rank])
        if progress is not None:
            progress(Progress("weights", len(rows), len(rows) + len(theirs), "tensors"))
    if theirs:
        raise ConfigError(_misfit(next(iter(theirs)), model, other))
    rows.sort(key=lambda row: -float(row[2] or 0))
    columns = ["tensor", "shape", "relative change", "cosine", "effective rank of the change"]
    receipt = replace(clock.receipt(), code=_code_of_two(model, other))
    return Table(f"from {model.source or 'one'} to {other.source or 'the other'}", columns, rows, receipt=receipt)


def _misfit(name: str, model: Model, other: Model) -> str:
    shapes = [next((tuple(t.shape) for n, t in tensors_of(m) if n == name), None) for m in (model, other)]
    said = [f"of shape {shape}" if shape else "missing" for shape in shapes]
    return f"the two models differ: {name} is {said[0]} in the first and {said[1]} in the second"


def checkpoint_differences(
    run: Run | str | Path, names: str | Iterable[str] = "*", *, progress: OnProgress | None = None
) -> Panel:
    """How the weights of a run have moved from checkpoint to checkpoint.

    A run keeps as many checkpoints as `TrainConfig.keep` says.

    Args:
        run: a run, or its folder.
        names: patterns of tensor names.
        progress: told after each checkpoint.

    Returns:
        A panel of curves over steps, relative change since the first checkpoint and since the one before, of all
        weights together and of those that moved most; and a table from the first to the last.

    Raises:
        InputError: fewer than two checkpoints.
        ConfigError: a pattern that selects nothing.
        DamagedFile: a checkpoint's file does not match its checksum.
    """
    folder = folder_of(run)
    found = at_least(folder, 2)
    clock = Clock(load_model(found[0]), "checkpoint_differences")
    first: dict[str, Tensor] = {}
    previous: dict[str, Tensor] = {}
    since_first: dict[str, list[float]] = {}
    since_previous: list[float] = []
    total_first: list[float] = []
    for number, place in enumerate(found):
        now = {name: tensor.clone() for name, tensor in tensors_of(load_model(place), names)}
        first, previous = first or now, previous or now
        for name, tensor in now.items():
            since_first.setdefault(name, []).append(change(first[name], tensor, rank=False).relative)
        total_first.append(_together(first, now))
        since_previous.append(_together(previous, now))
        previous = now
        if progress is not None:
            progress(Progress("checkpoints", number + 1, len(found), "checkpoints"))
    rows: list[list[Cell]] = []
    for name, tensor in previous.items():
        seen = change(first[name], tensor)
        rows.append([name, seen.relative, seen.cosine, seen.rank])
    rows.sort(key=lambda row: -float(row[1] or 0))
    receipt = replace(clock.receipt(), code=code_of_run("checkpoint_differences", folder))
    steps = [step_of(place) for place in found]
    moved: dict[str, list[float | None]] = {str(row[0]): [*since_first[str(row[0])]] for row in rows[:SHOWN]}
    lines: dict[str, list[float | None]] = {
        "since the first": [*total_first],
        "since the one before": [*since_previous],
    }
    axes = ("step", "‖change‖ / ‖weights‖", steps)
    return Panel(
        f"how the weights of {folder.name} moved",
        {
            "all weights": Curve("relative change of all weights together", *axes, lines, receipt=receipt),
            "tensors": Curve("since the first checkpoint, what moved most", *axes, moved, receipt=receipt),
            "first to last": Table(
                "from the first to the last checkpoint",
                ["tensor", "relative change", "cosine", "effective rank of the change"],
                rows,
                receipt=receipt,
            ),
        },
        receipt=receipt,
    )


def _together(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    moved = sum(float((after[name].double() - tensor.double()).square().sum()) for name, tensor in before.items())
    size = sum(float(tensor.double().square().sum()) for tensor in before.values())
    return (moved / size) ** 0.5 if size else 0.0


def folder_of(run: Run | str | Path) -> Path:
    """The folder of a run.

    Raises:
        InputError: it has no checkpoints.
    """
    folder = Path(getattr(run, "folder", run))  # pyright: ignore[reportArgumentType]  # a run or a path
    if not (folder / CHECKPOINTS).is_dir():
        raise InputError(
            f"{folder} is no run folder (no {CHECKPOINTS}/); give a run, or the folder that it was made in"
        )
    return folder


def at_least(folder: Path, count: int) -> list[Path]:
    """The checkpoints of a run, oldest first.

    Raises:
        InputError: there are fewer.
    """
    found = checkpoints(folder)[::-1]
    if len(found) < count:
        raise InputError(
            f"{folder} has {len(found)} checkpoint{'s' * (len(found) != 1)}, but {count} are needed; train with a "
            "larger keep (and a smaller save_every)"
        )
    return found


def step_of(checkpoint: Path) -> float:
    """The step at which it was saved."""
    return float(int(checkpoint.name.removeprefix("step-")))


def code_of_run(function: str, folder: Path, given: str = "") -> str:
    """The Python that makes an analysis of a run."""
    return f"from cutaway.interp import {function}\n\nresult = {function}({str(folder)!r}{given})\n"


def _code_of_two(model: Model, other: Model) -> str:
    loads = f"model, other = cutaway.load_model({model.source!r}), cutaway.load_model({other.source!r})"
    call = "result = weight_difference(model, other)"
    return f"import cutaway\nfrom cutaway.interp import weight_difference\n\n{loads}\n{call}\n"
