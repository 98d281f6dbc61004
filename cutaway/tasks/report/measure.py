"""How a report is made: of a split after training, of a user's file, and of two models on the same file.

Shapes: N examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cutaway.errors import ConfigError, CutawayError, InputError, many
from cutaway.evaluation.significance import figure, mcnemar, paired_p
from cutaway.progress import OnProgress, Progress
from cutaway.tasks.data import TaskData, aside_note, columns_note, keys_of, read_data, read_examples
from cutaway.tasks.report.findings import calibration_of, confused, misses_of, slices_of
from cutaway.tasks.report.noise import suspects_of
from cutaway.tasks.report.report import Compared, TaskReport
from cutaway.tasks.task import Answer, Example, Measured, Quantity
from cutaway.tasks.trained import TaskModel
from cutaway.text.dedup import text_keys
from cutaway.text.parallel import parallel_files
from cutaway.training.metrics import read_metrics

MOST_POINTS = 400  # of a line of the training's course


def measure_task(
    made: TaskModel,
    data: TaskData,
    *,
    split: str = "test",
    run: Path | None = None,
    whys: int = 10,
    progress: OnProgress | None = None,
) -> TaskReport:
    """Measure a model and the baseline on a split.

    Args:
        made: the model.
        data: with the training examples, of which the baseline learns.
        split: to measure on.
        run: the run folder, for how the training went.
        whys: of so many of the worst errors it is said what the answer is owed to.
        progress: told at every stage.
    """
    found = report_on(made, split, data.splits[split], data.splits["train"], whys=whys, progress=progress)
    suspects, suspected = suspects_of(made.task, data.splits["train"], made.labels, progress=progress)
    return replace(found, suspects=suspects, suspected=suspected, course=course_of(run) if run else {})


def evaluate_file(
    made: TaskModel,
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    compare: TaskModel | None = None,
    whys: int = 10,
    progress: OnProgress | None = None,
) -> TaskReport:
    """Measure a model on a file with the truth, beside the baseline where the training data is still there.

    Args:
        made: the model.
        path: a table.
        columns: role -> column, where the names do not say it.
        compare: another model of the same task, asked about the same rows.
        whys: of so many of the worst errors it is said what the answer is owed to.
        progress: told at every stage.

    Raises:
        InputError: no such file, or not one example in it.
        ConfigError: no such column or role, or models of two tasks.
    """
    if compare is not None and compare.task.name != made.task.name:
        raise ConfigError(
            f"{made.model.source} does {made.task.name}, but {compare.model.source} does {compare.task.name}; only "
            "models of the same task can be compared"
        )
    examples, aside, found = read_examples(made.task, path, columns=columns, before=made.columns, progress=progress)
    notes = [columns_note(found), *strange_labels(made, examples)]
    if aside:
        notes.append(aside_note(aside))
    data, missing = training_data(made, progress)
    notes += missing
    if data is not None:
        taught = set(keys_of(made.task, data.splits["train"]).tolist())
        if seen := sum(key in taught for key in keys_of(made.task, examples).tolist()):
            notes.append(f"trained on {seen:,} of {many(len(examples), 'row')}: what is measured on them is too good")
    train = data.splits["train"] if data is not None else None
    made_of = report_on(made, str(path), examples, train, compare=compare, whys=whys, progress=progress)
    return replace(made_of, notes=(*notes, *made_of.notes), aside=tuple(aside))


def report_on(
    made: TaskModel,
    split: str,
    examples: Sequence[Example],
    train: Sequence[Example] | None,
    *,
    compare: TaskModel | None = None,
    whys: int = 10,
    progress: OnProgress | None = None,
) -> TaskReport:
    """The report on a model's answers to examples, beside a baseline that learns from `train`, if that is there."""
    task, labels = made.task, made.labels
    raw = made.raw(examples, progress=progress)
    answers = made.answers(raw, examples)
    measured = task.measure(answers, examples, labels)
    simple: list[Answer] | None = None
    notes: list[str] = []
    if train is not None and task.baseline_name:
        if progress:
            progress(Progress("fitting the baseline", 0))
        simple = task.baseline(train, examples, labels)
    base = task.measure(simple, examples, labels) if simple is not None else None
    misses = misses_of(made, answers, examples, measured.right, whys=whys, notes=notes, progress=progress)
    tables = measured.tables
    if table := confused(answers, examples, labels):
        tables = (*tables, table)
    return TaskReport(
        task=task.name,
        split=split,
        examples=len(examples),
        figures=figures_of(measured),
        baseline_name=task.baseline_name if base else "",
        baseline=figures_of(base) if base else None,
        p_values=differences_p(measured, base) if base else {},
        tables=tables,
        model=made.model.source,
        trained_on=len(train) if train is not None else None,
        compared=_beside(compare, measured, examples, progress) if compare is not None else None,
        calibration=calibration_of(made, raw, answers, examples, measured),
        slices=slices_of(task, examples, measured, base),
        wrong=int((measured.right < 1).sum()),
        misses=misses,
        notes=tuple(notes),
    )


def figures_of(measured: Measured) -> dict[str, Any]:
    """Each quantity's figure with its interval."""
    return {quantity.name: quantity.figure() for quantity in measured.quantities}


def compare_tasks(first: Measured, second: Measured, name: str) -> Compared:
    """What two measurements of the same examples differ in.

    Args:
        first: of this model.
        second: of the other.
        name: of the other.
    """
    both = _both(first, second)
    a, b = first.right, second.right
    whole = bool(np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all())
    only_this, only_other = int((a > b).sum()), int((b > a).sum())
    return Compared(
        model=name,
        figures=figures_of(second),
        differences={one.name: figure(*_paired(one, other)) for one, other in both},
        p=differences_p(first, second),
        only_this=only_this,
        only_other=only_other,
        mcnemar=mcnemar(only_this, only_other) if whole else None,
    )


def differences_p(first: Measured, second: Measured) -> dict[str, float]:
    """Of each figure of the same examples the p value of no difference (paired bootstrap, two-sided)."""
    return {one.name: paired_p(*_paired(one, other)) for one, other in _both(first, second)}


def _both(first: Measured, second: Measured) -> list[tuple[Quantity, Quantity]]:
    """The figures that both have."""
    others = {quantity.name: quantity for quantity in second.quantities}
    return [(one, others[one.name]) for one in first.quantities if one.name in others]


def _paired(first: Quantity, second: Quantity) -> tuple[np.ndarray, Any]:
    """Both figures' columns beside each other, (N, K), and the first less the second."""
    width = first.columns.shape[1]
    both = np.concatenate([first.columns, second.columns], axis=1)
    return both, lambda sums: first.statistic(sums[:, :width]) - second.statistic(sums[:, width:])


def _beside(other: TaskModel, measured: Measured, examples: Sequence[Example], progress: OnProgress | None) -> Compared:
    answers = other.answers(other.raw(examples, progress=progress), examples)
    return compare_tasks(measured, other.task.measure(answers, examples, other.labels), other.model.source)


def training_data(made: TaskModel, progress: OnProgress | None = None) -> tuple[TaskData | None, list[str]]:
    """The data that a model was trained on, divided as it was then; or None, and a note that says why."""
    config = made.about.get("config")
    if not made.task.baseline_name or not isinstance(config, dict) or not config.get("data"):
        return None, []
    given = [one for one in (config["data"], config.get("valid"), config.get("test")) if isinstance(one, str)]
    files = [file for one in given for file in parallel_files(one).values() or [Path(one)]]
    if gone := next((file for file in files if not file.is_file()), None):
        return None, [f"no baseline: the training data {gone} is not there any more"]
    try:
        shares = {name: config.get(name, 0.1) for name in ("valid", "test")}
        columns, seed = config.get("columns") or {}, int(config.get("seed", 0))
        how = {"columns": columns, "drop_leaks": bool(config.get("drop_leaks")), "seed": seed}
        data = read_data(made.task, config["data"], **shares, **how, progress=progress)
    except CutawayError as error:
        return None, [f"no baseline: the training data cannot be read any more ({error})"]
    if fingerprint(data) != made.about.get("data", {}).get("fingerprint", fingerprint(data)):
        return None, [f"no baseline: {config['data']} is not what the model was trained on any more"]
    return data, []


def fingerprint(data: TaskData) -> str:
    """A number of the training examples, whatever their order: that of other texts, or of other truths, differs."""
    task, examples = data.task, data.splits["train"]
    keys = text_keys(["\0".join([*task.texts(example), repr(example.truth)]) for example in examples])
    return f"{int(keys.sum(dtype=np.uint64)):016x}"


def strange_labels(made: TaskModel, examples: Sequence[Example]) -> list[str]:
    """A note on the labels of examples that the model was not taught.

    Raises:
        InputError: it was taught none of them.
    """
    task, known = made.task, made.task.known(made.labels)
    strange = [label for label in task.labels(examples) if label not in known] if known else []
    if not strange:
        return []
    rows = [example for example in examples if not known.issuperset(task.labels([example]))]
    if known.isdisjoint(task.labels(examples)):
        raise InputError(
            f"the model was taught no label of the file, which has {strange[0]!r}, where it knows {made.labels[0]!r}"
        )
    shown = ", ".join(repr(label) for label in strange[:3]) + (", …" if len(strange) > 3 else "")
    return [
        f"labels of {many(len(rows), 'row')} were not taught to the model ({shown}; first at {rows[0].source}); an "
        "answer to them is wrong"
    ]


def course_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """How a training went: each number of its records over the steps.

    Raises:
        InputError: the records are damaged.
    """
    lines: dict[str, list[tuple[int, float]]] = {}
    for record in read_metrics(run):
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float) and np.isfinite(value):
                lines.setdefault(name, []).append((record["step"], float(value)))
    return {name: line[:: 1 + len(line) // MOST_POINTS] for name, line in lines.items()}
