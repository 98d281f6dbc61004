"""What was measured of a task's model, beside the baseline on the same split: figures with intervals, and whether the
difference may be chance.

Shapes: N examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cutaway.evaluation.significance import Figure, paired_p
from cutaway.progress import OnProgress, Progress
from cutaway.tasks.data import TaskData
from cutaway.tasks.task import Answer, Example, Measured, Quantity
from cutaway.tasks.trained import TaskModel

VERSION = 1


@dataclass(frozen=True)
class TaskReport:
    """Figures of a task's model.

    Attributes:
        task: its name.
        split: that was measured on.
        examples: how many.
        figures: name -> with its 95 % interval.
        baseline_name: what the baseline is; "": there is none.
        baseline: its figures.
        p: of no difference in the first figure, by the paired bootstrap, two-sided; None without a baseline.
        tables: (title, columns, rows).
    """

    task: str
    split: str
    examples: int
    figures: dict[str, Figure]
    baseline_name: str = ""
    baseline: dict[str, Figure] | None = None
    p: float | None = None
    tables: tuple[tuple[str, list[str], list[list[Any]]], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"version": VERSION, **asdict(self)}


def measure_task(
    made: TaskModel, data: TaskData, *, split: str = "test", progress: OnProgress | None = None
) -> TaskReport:
    """Measure a model and the baseline on a split.

    Args:
        made: the model.
        data: with the training examples, of which the baseline learns.
        split: to measure on.
        progress: told at every stage.
    """
    examples = data.splits[split]
    answers = made.answers(made.raw(examples, progress=progress), examples)
    measured = made.task.measure(answers, examples, made.labels)
    if progress and made.task.baseline_name:
        progress(Progress("fitting the baseline", 0))
    simple = made.task.baseline(data.splits["train"], examples, made.labels)
    return report_of(made, split, examples, measured, simple)


def report_of(
    made: TaskModel, split: str, examples: Sequence[Example], measured: Measured, simple: list[Answer] | None
) -> TaskReport:
    """The report on answers that were measured."""
    figures = {quantity.name: quantity.figure() for quantity in measured.quantities}
    if simple is None:
        return TaskReport(made.task.name, split, len(examples), figures, tables=measured.tables)
    other = made.task.measure(simple, examples, made.labels)
    return TaskReport(
        made.task.name,
        split,
        len(examples),
        figures,
        made.task.baseline_name,
        {quantity.name: quantity.figure() for quantity in other.quantities},
        difference_p(measured.quantities[0], other.quantities[0]),
        measured.tables,
    )


def difference_p(first: Quantity, second: Quantity) -> float:
    """The p value of no difference between two figures of the same examples (paired bootstrap, two-sided)."""
    width = first.columns.shape[1]
    both = np.concatenate([first.columns, second.columns], axis=1)
    return paired_p(both, lambda sums: second.statistic(sums[:, width:]) - first.statistic(sums[:, :width]))
