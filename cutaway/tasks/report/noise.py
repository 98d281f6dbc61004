"""Training examples whose label may be wrong, by confident learning (Northcutt, Jiang, Chuang 2021).

A model that has not seen a row says how likely each label is. That is compared, not with one half, but with how likely
the model finds a label where it is given, on average: a row counts as another label where that one reaches its average,
is the likeliest of those that do, and likelier than the label given. The probabilities are the baseline's, which is
cheap: it learns from all parts but one in turn.

Shapes: N examples, L labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from cutaway.progress import OnProgress, Progress
from cutaway.tasks.report.findings import label_of
from cutaway.tasks.report.report import Suspect
from cutaway.tasks.task import Example, Task
from cutaway.text.split import positions

FOLDS, KEPT = 3, 50  # parts; suspects that are named
FEW, MOST, ROOM = 3_000, 20_000, 200_000  # examples that are looked at, at the most so many times labels
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
    if not task.baseline_name or len(labels) < 2:
        return (), None
    if any(label_of(example) not in labels for example in examples):
        return (), None
    some = list(examples)
    most = min(MOST, max(FEW, ROOM // len(labels)))
    if len(some) > most:
        spread = np.argsort(positions(np.arange(len(some), dtype=np.uint64)), kind="stable")
        some = [some[number] for number in sorted(spread[:most].tolist())]
    counts = Counter(map(label_of, some))
    labels = tuple(label for label in labels if counts[label] > 1)  # of one alone nothing is found out
    some = [example for example in some if counts[label_of(example)] > 1]
    if len(some) < 2 * FOLDS or len(labels) < 2:
        return (), None
    chances = _unseen(task, some, labels, progress)
    if chances is None:
        return (), None
    given = np.array([labels.index(str(label_of(example))) for example in some])
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


def _unseen(
    task: Task, examples: Sequence[Example], labels: tuple[str, ...], progress: OnProgress | None
) -> np.ndarray | None:
    """Of each example the baseline's probabilities of the labels, (N, L), learned from the other parts."""
    order = sorted(range(len(examples)), key=lambda number: labels.index(str(label_of(examples[number]))))
    fold = np.empty(len(examples), np.int64)  # each label's examples go round, so that every part knows every label
    fold[order] = np.arange(len(examples)) % FOLDS
    chances = np.zeros((len(examples), len(labels)))
    for part in range(FOLDS):
        if progress:
            progress(Progress("looking for wrong labels", part, FOLDS, "parts"))
        inside, outside = (np.flatnonzero(held).tolist() for held in (fold == part, fold != part))
        answers = task.baseline([examples[n] for n in outside], [examples[n] for n in inside], labels)
        if answers is None or any("probabilities" not in answer.more for answer in answers):
            return None
        for number, answer in zip(inside, answers, strict=True):
            chances[number] = [answer.more["probabilities"].get(label, 0.0) for label in labels]
    return chances
