"""Training examples whose label may be wrong, by confident learning (Northcutt, Jiang, Chuang 2021).

A model that has not seen a row says how likely each label is. That is compared, not with one half, but with how likely
the model finds a label where it is given, on average: a row counts as another label where that one reaches its average,
is the likeliest of those that do, and likelier than the label given. The probabilities are the baseline's, which is
cheap: it learns from all parts but one in turn.

Shapes: N examples, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cutaway.progress import OnProgress, Progress
from cutaway.tasks.report.report import Suspect
from cutaway.tasks.task import Example, Task
from cutaway.text.split import positions

FOLDS, MOST, KEPT = 3, 10_000, 50  # parts; examples that are looked at; suspects that are named
LONGEST = 300  # characters of a text in a report


def confident_errors(probabilities: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which examples count as another label, the surest first, and as which.

    Args:
        probabilities: (N, L) of each label, from a model that has not seen the example.
        given: (N,) int64 numbers of the labels given.

    Returns:
        Numbers of examples (K,), by how much likelier the other label is; and those labels' numbers (K,).
    """
    own = probabilities[np.arange(len(given)), given]
    counts = np.bincount(given, minlength=probabilities.shape[1])
    usual = np.bincount(given, own, probabilities.shape[1]) / np.maximum(counts, 1)
    reached = (probabilities >= usual) & (counts > 0)  # a label that is never given is nobody's
    counted = np.where(reached, probabilities, -1.0).argmax(1)
    lead = probabilities[np.arange(len(given)), counted] - own
    found = np.flatnonzero(reached.any(1) & (lead > 0))
    lead = lead[found]
    order = np.argsort(-lead, kind="stable")
    return found[order], counted[found][order]


def suspects_of(
    task: Task, examples: Sequence[Example], labels: Sequence[str], *, progress: OnProgress | None = None
) -> tuple[tuple[Suspect, ...], int | None]:
    """The training examples whose label is most in doubt, and how many are in doubt in all.

    Only of tasks whose examples have one label each, and whose baseline says how likely each label is.

    Args:
        task: what they are for.
        examples: to learn from, of which a part is looked at where they are many.
        labels: of the task.
        progress: told at every part.
    """
    place = {label: number for number, label in enumerate(labels)}
    if not task.baseline_name or len(labels) < 2:
        return (), None
    if any(not isinstance(e.truth, tuple) or len(e.truth) != 1 or e.truth[0] not in place for e in examples):
        return (), None
    some = list(examples)
    if len(some) > MOST:
        spread = np.argsort(positions(np.arange(len(some), dtype=np.uint64)), kind="stable")
        some = [some[number] for number in sorted(spread[:MOST].tolist())]
    given = np.array([place[example.truth[0]] for example in some])
    if len(some) < 2 * FOLDS:
        return (), None
    fold = np.empty(len(some), np.int64)  # each label's examples go round, so that every part knows every label
    order = np.argsort(given, kind="stable")
    fold[order] = np.arange(len(some)) % FOLDS
    chances = np.zeros((len(some), len(labels)))
    for part in range(FOLDS):
        if progress:
            progress(Progress("looking for wrong labels", part, FOLDS, "parts"))
        inside, outside = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        if len(np.unique(given[outside])) < 2:
            return (), None
        answers = task.baseline([some[n] for n in outside], [some[n] for n in inside], tuple(labels))
        for number, answer in zip(inside, answers or [], strict=False):
            told = answer.more.get("probabilities")
            if told is None:
                return (), None
            chances[number] = [told.get(label, 0.0) for label in labels]
        if answers is None:
            return (), None
    rows, likely = confident_errors(chances, given)
    return tuple(
        Suspect(
            some[row].source,
            " | ".join(task.texts(some[row]))[:LONGEST],
            str(labels[int(own)]),
            str(labels[int(other)]),
            float(chances[row, other]),
            float(chances[row, own]),
        )
        for row, own, other in zip(
            rows[:KEPT].tolist(), given[rows[:KEPT]].tolist(), likely[:KEPT].tolist(), strict=True
        )
    ), len(rows)
