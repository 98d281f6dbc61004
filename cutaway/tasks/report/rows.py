"""A data set as a table of answers: each row with what the model says of it, and which rows a figure is made of.

Shapes: N rows, L labels.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp.receipt import Receipt
from cutaway.interp.results import Cell, Curve, Matrix, Panel, Table
from cutaway.models import Model
from cutaway.progress import OnProgress
from cutaway.tasks.classify import Classify
from cutaway.tasks.data import Aside, aside_note, columns_note, examples_of_rows
from cutaway.tasks.report.findings import calibration_of, divided, label_of, part_of
from cutaway.tasks.report.measure import figures_of, strange_labels
from cutaway.tasks.report.report import calibration_line, told
from cutaway.tasks.task import Answer, Example, Measured
from cutaway.tasks.trained import TaskModel
from cutaway.text.rows import Row

MOST_ROWS = 5000
NONE = "(none)"  # of the confusion matrix: nothing was answered, or a label that the model does not know


@dataclass(frozen=True)
class AnsweredRow:
    """A row and what is said of it.

    Attributes:
        source: where it came from.
        given: role -> what was asked.
        truth: what is right, to be read; None: that is not known.
        answer: what was said, to be read.
        probability: how sure; None: the task gives none.
        right: how right, 0 … 1; None where the truth is not known.
    """

    source: str
    given: dict[str, Any]
    truth: str | None
    answer: str
    probability: float | None
    right: float | None


@dataclass(frozen=True)
class RowSlice:
    """Rows that have something in common, and the task's metric on them.

    Attributes:
        by: what they have in common: "label", "length", or a column.
        value: which.
        rows: their numbers.
        figure: the metric.
        low, high: its 95 % interval.
    """

    by: str
    value: str
    rows: list[int]
    figure: float
    low: float
    high: float


@dataclass(frozen=True)
class AnsweredRows(Panel):
    """What `answer_rows` found.

    Attributes:
        task: its name.
        metric: the figure that slices are measured by; "" where no truth is known.
        columns: role -> column.
        rows: in the order in which they were given.
        slices: of the rows with a truth.
        cells: the confusion matrix by row numbers: (true label, answer, rows); empty where answers are not one label.
    """

    task: str = field(kw_only=True)
    metric: str = field(kw_only=True)
    columns: dict[str, str] = field(kw_only=True)
    rows: list[AnsweredRow] = field(kw_only=True)
    slices: list[RowSlice] = field(kw_only=True)
    cells: list[tuple[str, str, list[int]]] = field(kw_only=True)


def labelling_model(model: Model) -> TaskModel:
    """A model with a head that labels whole texts, as a model of the task "classify".

    Raises:
        ConfigError: it has another head.
    """
    head, labels = getattr(model.config, "head", ""), tuple(getattr(model.config, "labels", ()))
    labelling = getattr(model.config, "labelling", "one")
    if head != "sequence_classification" or not labels or labelling == "number":
        raise ConfigError(
            f"{model.source or 'this model'} gives texts no labels: a table is answered by a model with a head for "
            "labels of whole texts, or one that was trained for a task (cutaway task train)"
        )
    return TaskModel(Classify(several="yes" if labelling == "several" else "no"), model, labels)


def answer_rows(
    made: TaskModel | Model,
    rows: Iterable[Row | Mapping[str, Any]],
    *,
    columns: Mapping[str, str] | None = None,
    progress: OnProgress | None = None,
) -> AnsweredRows:
    """Ask a model about every row of a table, and where the truth is given too, measure it.

    Args:
        made: a task's model, or one whose head labels whole texts.
        rows: of the table, at most 5,000 (`cutaway.text.rows` reads them from files and texts).
        columns: role -> column, where the names do not say it.
        progress: told now and then.

    Returns:
        A panel of the figures, the confusion matrix, the slices and the calibration, as far as the rows have a truth
        and the task knows them; it holds every row with its answer, and which rows each slice and cell is made of.

    Raises:
        InputError: no rows, too many, or not one that is an example of the task.
        ConfigError: no such column or role, or a model that answers nothing.
    """
    started = time.perf_counter()
    made = labelling_model(made) if isinstance(made, Model) else made
    given = [row if isinstance(row, Row) else Row(f"row {n}", dict(row)) for n, row in enumerate(rows, 1)]
    if not 1 <= len(given) <= MOST_ROWS:
        raise InputError(f"a table of 1 … {MOST_ROWS:,} rows is answered, but {len(given):,} came; give fewer")
    examples, aside, used = examples_of_rows(
        made.task, given, "the table", columns=columns, before=made.columns, answered=False, progress=progress
    )
    if not examples:
        shown = f" ({aside[0].source}: {aside[0].reason})" if aside else ""
        raise InputError(f"not one row is an example of the task {made.task.name}{shown}")
    raw = made.raw(examples, progress=progress)
    answers = made.answers(raw, examples)
    known = [number for number, example in enumerate(examples) if example.truth is not None]
    true, said = [examples[n] for n in known], [answers[n] for n in known]
    measured = made.task.measure(said, true, made.labels) if known else None
    right: dict[int, float] = {} if measured is None else dict(zip(known, measured.right.tolist(), strict=True))
    made_rows = [
        AnsweredRow(
            example.source,
            dict(example.given),
            None if example.truth is None else told(example.truth, _texts(example)),
            told(answer.answer, _texts(example)),
            answer.probability,
            right.get(number),
        )
        for number, (example, answer) in enumerate(zip(examples, answers, strict=True))
    ]
    notes = _notes(made, used, aside, true, len(examples))
    slices: list[RowSlice] = []
    parts: dict[str, Any] = {}
    metric, cells = "", _cells(answers, examples)
    receipt = _receipt(made, started)
    figures: dict[str, float] = {"rows": float(len(examples))}
    if measured is not None:
        metric = measured.quantities[0].name
        for by, value, numbers in divided(made.task, true):
            figure = part_of(measured.quantities[0], numbers).figure()
            slices.append(RowSlice(by, value, [known[n] for n in numbers], figure.value, figure.low, figure.high))
        parts = _parts(made, measured, slices, cells, receipt)
        figures |= {name: figure.value for name, figure in figures_of(measured).items()}
        if found := calibration_of(made, [raw[n] for n in known], said, true, measured):
            notes.append(f"{calibration_line(found)[0].upper()}{calibration_line(found)[1:]}.")
            at = [sure for sure, *_ in found.curve]
            lines: dict[str, list[float | None]] = {"how often right": [often for _, often, _ in found.curve]}
            lines["if they were as sure as right"] = list(at)
            if len(at) > 1:
                what = "Are probabilities how often answers are right?"
                parts["calibration"] = Curve(what, "how sure", "share right", at, lines, receipt=receipt)
    return AnsweredRows(
        f"{made.task.name}: {len(examples):,} rows", parts, notes, figures, task=made.task.name, metric=metric,
        columns=used, rows=made_rows, slices=slices, cells=cells, receipt=receipt,
    )  # fmt: skip


def _notes(
    made: TaskModel, used: Mapping[str, str], aside: Sequence[Aside], true: Sequence[Example], count: int
) -> list[str]:
    notes = [f"Read as {columns_note(used)}."]
    if aside:
        notes.append(f"{aside_note(aside)}.")
    if len(true) < count:
        notes.append(f"{count - len(true):,} of {count:,} rows have no truth: they are answered, not measured.")
    try:
        notes += [f"{note}." for note in strange_labels(made, true)]
    except InputError as error:  # it knows none of them; it can answer all the same
        notes.append(f"{error}.")
    return notes


def _texts(example: Example) -> dict[str, str]:
    return {role: value for role, value in example.given.items() if isinstance(value, str)}


def _cells(answers: Sequence[Answer], examples: Sequence[Example]) -> list[tuple[str, str, list[int]]]:
    """Which rows of each true label were called what; empty where answers are not one label each."""
    found: dict[tuple[str, str], list[int]] = {}
    for number, (answer, example) in enumerate(zip(answers, examples, strict=True)):
        if example.truth is None:
            continue
        truth = label_of(example)
        if truth is None or not isinstance(answer.answer, str | None):
            return []
        found.setdefault((truth, NONE if answer.answer is None else answer.answer), []).append(number)
    return [(truth, said, numbers) for (truth, said), numbers in found.items()]


def _parts(
    made: TaskModel,
    measured: Measured,
    slices: Sequence[RowSlice],
    cells: Sequence[tuple[str, str, list[int]]],
    receipt: Receipt,
) -> dict[str, Any]:
    rows: list[list[Cell]] = [[name, f.value, f.low, f.high] for name, f in figures_of(measured).items()]
    head = ["figure", "value", "low", "high"]
    parts: dict[str, Any] = {"figures": Table("Figures with 95 % intervals", head, rows, receipt=receipt)}
    if cells and made.labels:
        said = {answer for _, answer, _ in cells}
        true = {truth for truth, _, _ in cells}
        strange = sorted((true | said) - {*made.labels, NONE})
        names = [name for name in [*made.labels, *strange] if name in true]
        columns = [*made.labels, *(name for name in [*strange, NONE] if name in said)]
        counts = torch.zeros(len(names), len(columns))
        for truth, answer, numbers in cells:
            counts[names.index(truth), columns.index(answer)] = len(numbers)
        parts["confusion"] = Matrix(
            "Which label was called what", "rows", names, columns, counts, "true label", "answer", signed=False,
            receipt=receipt,
        )  # fmt: skip
    if slices:
        metric = measured.quantities[0].name
        by_slice: list[list[Cell]] = [
            [one.by, one.value, len(one.rows), one.figure, one.low, one.high] for one in slices
        ]
        head = ["by", "which", "rows", metric, "low", "high"]
        parts["slices"] = Table(f"{metric} of parts of the rows", head, by_slice, receipt=receipt)
    return parts


def _receipt(made: TaskModel, started: float) -> Receipt:
    source = made.model.source
    opened = f"open_task({source!r})" if made.about else f"cutaway.load_model({source!r})"
    code = (
        "import cutaway\nfrom cutaway.tasks import answer_rows, open_task\nfrom cutaway.text.rows import read_rows\n\n"
        f'result = answer_rows({opened}, read_rows("rows.csv"))\n'
    )
    dtype = str(next(made.model.network.parameters()).dtype).removeprefix("torch.")
    return Receipt(0.0, 1000 * (time.perf_counter() - started), 0, dtype, source, code=code)
