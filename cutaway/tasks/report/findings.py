"""What answers show beside their figures: whether they know how sure they are, where they are weak, what went wrong.

Shapes: N examples.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cutaway.errors import ConfigError, InputError
from cutaway.progress import OnProgress, Progress
from cutaway.tasks.calibrate import calibration_curve, calibration_error
from cutaway.tasks.report.report import Calibration, Miss, Slice
from cutaway.tasks.task import Answer, Example, Measured, Quantity, Task
from cutaway.tasks.trained import TaskModel

MOST_MISSES, MOST_VALUES, LEAST = 50, 12, 5  # errors kept; values of a column that is sliced by; rows of a slice
WHY_SECONDS = 30.0  # after which no more errors are asked why
LONGEST = 2000  # characters of a text in a report


def chances_of(
    answers: Sequence[Answer], examples: Sequence[Example], right: np.ndarray, labels: Sequence[str] = ()
) -> tuple[str, np.ndarray, np.ndarray]:
    """What has a probability, how sure it is and whether it is so: answers, or every label where several may hold."""
    pairs: list[tuple[float, float]] = []
    if any(isinstance(answer.answer, list) and "probabilities" in answer.more for answer in answers):
        for answer, example in zip(answers, examples, strict=True):
            holds = set(example.truth)
            pairs += [(chance, float(label in holds)) for label, chance in answer.more.get("probabilities", {}).items()]
        of = "labels"
    else:
        both = zip(answers, right.tolist(), strict=True)
        silent = None if labels else ...  # where there are labels, none is no answer; else that there is none is one
        pairs = [(a.probability, good) for a, good in both if a.probability is not None and a.answer is not silent]
        of = "answers"
    made = np.array(pairs, np.float64).reshape(-1, 2)
    return of, made[:, 0], made[:, 1]


def calibration_of(
    made: TaskModel, raw: Sequence[Any], answers: Sequence[Answer], examples: Sequence[Example], measured: Measured
) -> Calibration | None:
    """Whether probabilities are how often answers are right, as they are told and before calibration."""
    of, sure, right = chances_of(answers, examples, measured.right, made.labels)
    if not len(sure) or not np.isin(right, (0, 1)).all():  # what is right in part is neither
        return None
    temperature = made.calibration.get("temperature")
    before, curve_before = None, ()
    if made.calibration:
        said = [made.task.answer(one, e, made.labels, {}) for one, e in zip(raw, examples, strict=True)]
        good = made.task.measure(said, examples, made.labels).right
        _, sure_before, right_before = chances_of(said, examples, good, made.labels)
        if len(sure_before):
            before = calibration_error(sure_before, right_before)
            curve_before = tuple(calibration_curve(sure_before, right_before))
    after, curve = calibration_error(sure, right), tuple(calibration_curve(sure, right))
    return Calibration(of, len(sure), temperature, before, after, curve_before, curve)


def slices_of(
    task: Task, examples: Sequence[Example], measured: Measured, base: Measured | None = None
) -> tuple[Slice, ...]:
    """The task's metric by label, by length, by file, and by each further column that has few values."""
    found: list[Slice] = []
    for by, value, numbers in divided(task, examples):
        part = part_of(measured.quantities[0], numbers)
        other = part_of(base.quantities[0], numbers) if base else None
        simple = None if other is None else float(other.statistic(other.columns.sum(0)[None])[0])
        found.append(Slice(by, value, len(numbers), part.figure(), simple))
    return tuple(found)


def divided(task: Task, examples: Sequence[Example]) -> Iterator[tuple[str, str, list[int]]]:
    """What examples have in common, which, and the numbers of those that do."""
    for by, homes in _divisions(task, examples):
        if len(homes) < 2:
            continue
        for value, numbers in homes.items():
            if len(numbers) >= LEAST or by == "label":
                yield by, value, numbers


def part_of(quantity: Quantity, numbers: Sequence[int]) -> Quantity:
    """A figure in the making of some of the examples."""
    return Quantity(quantity.name, quantity.columns[np.array(numbers)], quantity.statistic)


def _divisions(task: Task, examples: Sequence[Example]) -> Iterator[tuple[str, dict[str, list[int]]]]:
    yield "label", _homes([task.stratum(example).replace("\0", " + ") for example in examples])
    lengths = np.array([sum(map(len, task.texts(example))) for example in examples])
    bounds = np.unique(np.quantile(lengths, (0.25, 0.5, 0.75), method="lower")) if len(lengths) else np.array([])
    place = np.searchsorted(bounds, lengths)
    edges = [_range(lengths[place == n]) for n in range(len(bounds) + 1)]
    homes = _homes([edges[n] for n in place.tolist()])
    yield "length", {edge: homes[edge] for edge in edges if edge in homes}
    yield "file", _homes([example.source.rpartition(":")[0] for example in examples])
    for column in dict.fromkeys(name for example in examples[:1000] for name in example.more):
        values = [example.more.get(column) for example in examples]
        if all(isinstance(value, str | int | float | bool | None) for value in values):
            homes = _homes(["(empty)" if value in (None, "") else str(value) for value in values])
            if len(homes) <= MOST_VALUES:
                yield column, dict(sorted(homes.items()))


def _range(lengths: np.ndarray) -> str:
    """From which length to which some texts have."""
    if not len(lengths):
        return ""
    least, most = lengths.min(), lengths.max()
    return f"{least:,} characters" if least == most else f"{least:,} to {most:,} characters"


def _homes(values: Sequence[str]) -> dict[str, list[int]]:
    homes: dict[str, list[int]] = defaultdict(list)
    for number, value in enumerate(values):
        homes[value].append(number)
    return homes


def misses_of(
    made: TaskModel,
    answers: Sequence[Answer],
    examples: Sequence[Example],
    right: np.ndarray,
    *,
    whys: int,
    notes: list[str],
    progress: OnProgress | None = None,
) -> tuple[Miss, ...]:
    """The worst errors, the surest of them first, and of the first few what the answer is owed to."""
    sure = np.array([1.0 if answer.probability is None else answer.probability for answer in answers])
    order = np.argsort(-(1 - right) * sure, kind="stable")
    chosen = [number for number in order.tolist()[:MOST_MISSES] if right[number] < 1]
    found, started = [], time.perf_counter()
    for rank, number in enumerate(chosen):
        answer, example, why = answers[number], examples[number], None
        said = answer.answer not in (
            [],
            "",
            None if made.labels else [],
        )  # that there is no answer is one, no label none
        if said and rank < whys and time.perf_counter() - started < WHY_SECONDS:
            if progress:
                progress(Progress("asking why of errors", rank, min(whys, len(chosen)), "errors"))
            try:
                why = made.why(example)
            except ConfigError as error:  # the task, or this kind of network, has none
                notes.append(f"the errors are not explained: {error}")
                whys = 0
            except InputError:  # this one cannot be asked
                whys += 1
        given = {role: _cut(value) for role, value in example.given.items()}
        told, part = _cut(answer.answer), float(right[number])
        found.append(Miss(example.source, given, example.truth, told, answer.probability, part, why))
    return tuple(found)


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]}… ({len(value):,} characters)"
    if isinstance(value, list) and value and isinstance(value[0], float):
        return f"a vector of {len(value):,} numbers"
    return value


def label_of(example: Example) -> str | None:
    """The label of an example that has one; None: it has none, several, or another kind of truth."""
    truth = example.truth
    one = truth[0] if isinstance(truth, tuple) and len(truth) == 1 else truth
    return one if isinstance(one, str) else None


def confused(
    answers: Sequence[Answer], examples: Sequence[Example], labels: Sequence[str], most: int = 20
) -> tuple[str, list[str], list[list[Any]]] | None:
    """Which label is most often taken for which other, where each example has one; None where that never happens."""
    if not labels:
        return None
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    total: Counter[str] = Counter()
    for answer, example in zip(answers, examples, strict=True):
        truth = label_of(example)
        if truth is None or isinstance(answer.answer, list | Mapping):
            return None
        total[truth] += 1
        if answer.answer != truth:
            pair = (truth, "(none)" if answer.answer is None else str(answer.answer))
            counts[pair] += 1
            first.setdefault(pair, example.source)
    rows = [[*pair, n, n / total[pair[0]], first[pair]] for pair, n in counts.most_common(most)]
    columns = ["true label", "said", "how often", "share of the label", "first at"]
    return ("Most often taken for another", columns, rows) if rows and not total.keys().isdisjoint(labels) else None
