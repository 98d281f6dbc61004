"""The same training several times: other seeds, other parts held out, fewer examples.

One training's figure has two kinds of chance in it: which examples were held out, and how weights and order fell. The
interval of a report is of the first kind; that over seeds is of the second.

Shapes: K folds.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Protocol

import numpy as np
from rich.console import Group

from cutaway.errors import InputError
from cutaway.evaluation.significance import Figure
from cutaway.files import holds, read_json, write_json
from cutaway.tasks.config import TaskConfig
from cutaway.tasks.data import TaskData, groups_of, keys_of
from cutaway.tasks.report import TaskReport
from cutaway.tasks.report.measure import differences_p, figures_of
from cutaway.tasks.task import Answer, Example, Task
from cutaway.tasks.trained import TaskModel
from cutaway.text.split import positions

OUTCOME = "outcome.json"
# Student's t that 95 % of samples of n + 1 lie within, n = 1 … 30; beyond, the normal distribution's
T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Learn(Protocol):
    """Trains a model, or goes on with one whose training was begun in a folder before."""

    def __call__(self, config: TaskConfig, data: TaskData, run: Path, *, until: float | None = None) -> TaskModel: ...


@dataclass
class Repeated:
    """What repeating a training showed.

    Attributes:
        seeds: of each seed "seed", "valid" and "test": the task's metric there.
        folds: of each fold "fold", "examples" and its figures.
        curve: (examples, name -> figure), the fewest examples first.
        predictions: of each example a record, from the model that had not seen it.
        outside: (examples, answers, the baseline's answers) of all folds together.
    """

    seeds: list[dict[str, Any]] = field(default_factory=list)
    folds: list[dict[str, Any]] = field(default_factory=list)
    curve: list[tuple[int, dict[str, Figure]]] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    outside: tuple[list[Example], list[Answer], list[Answer] | None] | None = None

    def __bool__(self) -> bool:
        return bool(self.seeds or self.folds or self.curve)

    def __rich__(self) -> Group:
        """For a terminal."""
        return Group(*self._shown())

    def _shown(self) -> Iterator[str]:
        for name, values in _columns(self.seeds).items():
            figure = mean_interval(values)
            yield (
                f"{len(values)} seeds, {name}: {figure.value:.3f} on average, {figure.low:.3f} to {figure.high:.3f} "
                f"(each: {', '.join(f'{value:.3f}' for value in values)})"
            )
        for row in self.folds:
            name, figure = next(iter(row["figures"].items()))
            yield f"fold {row['fold']}: {name} {figure['value']:.3f} on {row['examples']:,} examples"
        for count, figures in self.curve:
            name, figure = next(iter(figures.items()))
            yield f"{count:,} examples: {name} {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the mean over seeds and its 95 % interval."""
        over = {name: asdict(mean_interval(values)) for name, values in _columns(self.seeds).items()}
        return {
            "seeds": self.seeds,
            "over_seeds": over if len(self.seeds) > 1 else {},
            "folds": self.folds,
            "curve": [{"examples": count, "figures": _plain(figures)} for count, figures in self.curve],
        }


def mean_interval(values: Sequence[float]) -> Figure:
    """The mean, and the interval in which it lies with 95 % certainty (Student's t); of one value that alone."""
    mean, count = fmean(values), len(values)
    if count < 2:
        return Figure(mean, mean, mean)
    t = T95[count - 2] if count - 2 < len(T95) else 1.96
    half = t * stdev(values) / sqrt(count)
    return Figure(mean, mean - half, mean + half)


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name in ("valid", "test"):
            if row.get(name) is not None:
                found[name].append(row[name])
    return dict(found)


def learn_all(
    config: TaskConfig,
    data: TaskData,
    run: Path,
    learn: Learn,
    *,
    until: float | None = None,
    on_note: Callable[[str], None] | None = None,
) -> tuple[TaskModel, Path, Repeated]:
    """Train as often as the config asks; the model is that of the seed that is best on validation data.

    Args:
        config: with its task settled.
        data: in splits.
        run: the folder of all runs; what is done there already is not done again.
        learn: trains one model.
        until: `time.perf_counter()` at which all should be done; None: as the epochs say.
        on_note: told what was chosen.

    Returns:
        The model, its run folder, and what repeating showed.
    """
    found, shares = Repeated(), sorted(share for share in config.curve if share < 1)
    costs = [1 - 1 / max(1, config.folds)] * config.folds + shares + [1.0] * config.seeds

    def limit() -> float | None:
        """When the next training should be done, by its share of all that are left."""
        if until is None:
            return None
        now = time.perf_counter()
        return now + (until - now) * costs[0] / sum(costs)

    pool = pool_of(config, data) if config.folds else []
    for number, held in enumerate(folds_of(config.task, pool, config.folds, config.seed), 1):
        _fold(config, data, pool, held, run / f"fold-{number}", number, learn, limit(), found)
        costs.pop(0)
    for share in shares:
        part = smaller(config.task, data, share, config.seed)
        outcome = outcome_of(config, part, run / f"curve-{round(100 * share)}", learn, limit())
        figures = outcome["test"] or outcome["valid"]
        found.curve.append((len(part.splits["train"]), {name: Figure(**one) for name, one in figures.items()}))
        costs.pop(0)
    if config.seeds == 1:
        made, best = learn(config, data, run, until=limit()), run
    else:
        for seed in range(config.seed, config.seed + config.seeds):
            outcome = outcome_of(replace(config, seed=seed), data, run / f"seed-{seed}", learn, limit())
            first = {name: next(iter(of.values()))["value"] if of else None for name, of in outcome.items()}
            found.seeds.append({"seed": seed, **first})
            costs.pop(0)
        chosen = max(found.seeds, key=lambda row: row["valid"] or -1.0)["seed"]  # the first of equals
        if on_note is not None:
            best_of = f"seed {chosen} is the best of {config.seeds} on validation data"
            on_note(
                f"{best_of if 'valid' in data.splits else 'without validation data the first seed counts'}: its model "
                "is kept"
            )
        best = run / f"seed-{chosen}"
        made = learn(replace(config, seed=chosen), data, best)
    if found.curve:
        whole = figures_on(made, data.splits["test" if "test" in data.splits else "valid"])
        found.curve.append((len(data.splits["train"]), whole))
    return made, best, found


def figures_on(made: TaskModel, examples: Sequence[Example]) -> dict[str, Figure]:
    """The figures of answers to examples with a truth, the task's metric first."""
    answers = made.answers(made.raw(examples), examples)
    measured = made.task.measure(answers, examples, made.labels)
    return {quantity.name: quantity.figure() for quantity in measured.quantities}


def _plain(figures: dict[str, Figure]) -> dict[str, Any]:
    return {name: asdict(figure) for name, figure in figures.items()}


def outcome_of(
    config: TaskConfig, data: TaskData, run: Path, learn: Learn, until: float | None = None, test: bool = True
) -> dict[str, Any]:
    """The figures on what is held out, of a training that was done before or is done now; what it saved is let go.

    Args:
        config: of it.
        data: in splits.
        run: its folder.
        learn: trains it.
        until: when it should be done.
        test: whether the test examples are looked at.

    Raises:
        InputError: nothing is held out that can be measured.
    """
    if not holds(run, OUTCOME):
        made = learn(config, data, run, until=until)
        names = ("valid", "test") if test else ("valid",)
        outcome = {name: _plain(figures_on(made, data.splits[name])) if name in data.splits else None for name in names}
        if not any(outcome.values()):
            raise InputError("nothing is held out that could tell one training from another; give --valid or --test")
        write_json(run / OUTCOME, outcome)
    return read_json(run / OUTCOME)


# folds


def pool_of(config: TaskConfig, data: TaskData) -> list[Example]:
    """What is divided into folds: all but splits that have files of their own."""
    shared = isinstance(config.valid, float | int)
    return [*data.splits["train"], *(data.splits.get("valid", []) if shared else [])]


def folds_of(task: Task, examples: Sequence[Example], count: int, seed: int = 0) -> list[np.ndarray]:
    """The numbers of the examples of each fold: what belongs together is in one, each label in all to the same share.

    Args:
        task: says which examples belong together and what the shares should be alike in.
        examples: to be divided.
        count: K; 0: no folds.
        seed: of the division.

    Raises:
        InputError: fewer different texts than folds.
    """
    if not count:
        return []
    keys = groups_of(task, examples)
    place, first = positions(keys, seed), np.unique(keys, return_index=True)[1]
    if len(first) < count:
        raise InputError(f"{len(first):,} different texts cannot be divided into {count} folds; give more, or fewer")
    strata: dict[str, list[int]] = defaultdict(list)
    for number in sorted(first.tolist(), key=lambda number: place[number]):
        strata[task.stratum(examples[number])].append(number)
    turn, home = 0, dict[int, int]()
    for name in sorted(strata):
        for number in strata[name]:  # dealt out in turn, so that sizes differ by one at the most
            home[int(keys[number])] = turn % count
            turn += 1
    of = np.array([home[key] for key in keys.tolist()])
    return [np.flatnonzero(of == fold) for fold in range(count)]


def _fold(
    config: TaskConfig,
    data: TaskData,
    pool: Sequence[Example],
    held: np.ndarray,
    run: Path,
    number: int,
    learn: Learn,
    until: float | None,
    found: Repeated,
) -> None:
    """Train without a fold, and answer it."""
    task, out = config.task, set(held.tolist())
    test = [pool[place] for place in held.tolist()]
    rest = [example for place, example in enumerate(pool) if place not in out]
    splits = {"train": rest, **({"valid": data.splits["valid"]} if "valid" in data.splits else {})}
    if isinstance(config.valid, float | int) and config.valid:
        aside = set(folds_of(task, rest, max(2, round(1 / config.valid)), config.seed + number)[0].tolist())
        splits["train"] = [example for place, example in enumerate(rest) if place not in aside]
        splits["valid"] = [example for place, example in enumerate(rest) if place in aside]
    if not holds(run, OUTCOME):
        made = learn(config, replace(data, splits=splits), run, until=until)
        answers = made.answers(made.raw(test), test)
        simple = task.baseline(splits["train"], test, task.labels(splits["train"]))
        told = {"answers": [answer.to_json() for answer in answers]}
        write_json(run / OUTCOME, told | {"baseline": None if simple is None else [one.to_json() for one in simple]})
    outcome = read_json(run / OUTCOME)
    answers = [answer_from(one) for one in outcome["answers"]]
    simple = None if outcome["baseline"] is None else [answer_from(one) for one in outcome["baseline"]]
    measured = task.measure(answers, test, data.labels)
    figures = {quantity.name: asdict(quantity.figure()) for quantity in measured.quantities}
    found.folds.append({"fold": number, "examples": len(test), "figures": figures})
    for example, answer, right in zip(test, answers, measured.right.tolist(), strict=True):
        record = {"source": example.source, "fold": number, "truth": example.truth, "right": right}
        found.predictions.append({**record, **answer.to_json()})
    before, said, others = found.outside or ([], [], [])
    together = None if simple is None or others is None else [*others, *simple]
    found.outside = ([*before, *test], [*said, *answers], together)


def answer_from(values: dict[str, Any]) -> Answer:
    """The answer that `to_json` made plain."""
    more = {name: value for name, value in values.items() if name not in ("answer", "probability")}
    return Answer(values["answer"], values["probability"], more)


def report_outside(made: TaskModel, found: Repeated, folds: int) -> TaskReport:
    """The report on answers out of folds, each by a model that had not seen its example."""
    assert found.outside is not None
    examples, answers, simple = found.outside
    measured = made.task.measure(answers, examples, made.labels)
    base = made.task.measure(simple, examples, made.labels) if simple is not None else None
    return TaskReport(
        task=made.task.name,
        split=f"{folds} folds",
        examples=len(examples),
        figures=figures_of(measured),
        baseline_name=made.task.baseline_name if base else "",
        baseline=figures_of(base) if base else None,
        p_values=differences_p(measured, base) if base else {},
        tables=measured.tables,
        model=made.model.source,
        trained_on=round(len(examples) * (1 - 1 / folds)),
        wrong=int((measured.right < 1).sum()),
    )


def write_predictions(found: Repeated, path: Path) -> None:
    """The answers out of the folds, a JSON record a line."""
    from cutaway.interp.receipt import plain

    lines = [json.dumps(plain(record), ensure_ascii=False) + "\n" for record in found.predictions]
    path.write_text("".join(lines), "utf-8")


# fewer examples


def smaller(task: Task, data: TaskData, share: float, seed: int = 0) -> TaskData:
    """The same with a share of the training examples, of each label alike; smaller shares are parts of larger ones."""
    examples = data.splits["train"]
    keys = keys_of(task, examples)
    place = positions(keys, seed)
    strata: dict[str, list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        strata[task.stratum(example)].append(number)
    kept: list[int] = []
    for members in strata.values():
        members.sort(key=lambda number: place[number])
        kept += members[: max(1, round(share * len(members)))]
    return replace(data, splits={**data.splits, "train": [examples[number] for number in sorted(kept)]})
