"""A user's files as checked examples in splits: columns found, bad rows set aside by line, no text in two splits.

Where only one file is given, it is divided by text, so that equal texts (but for case and white space) are never in two
splits, and each label is in every split to the same share. Given splits are taken as they are, and what they share is
told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np

from cutaway.errors import CutawayError, InputError, many
from cutaway.progress import OnProgress, Progress
from cutaway.tasks.columns import find_columns, pick
from cutaway.tasks.task import Example, Task
from cutaway.text.dedup import text_keys
from cutaway.text.parallel import parallel_files
from cutaway.text.readers.columns import SAMPLE
from cutaway.text.rows import Row, read_rows
from cutaway.text.split import check_fractions, positions

SPLITS = ("train", "valid", "test")
MOST_SHOWN = 3
FEW = 20  # examples, of which each may have a label of its own


@dataclass(frozen=True)
class Aside:
    """A row that is no example, or that contradicts another.

    Attributes:
        source: file and line.
        reason: why.
    """

    source: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason without what it says of this row alone, in brackets."""
        return self.reason.partition(" (")[0]


@dataclass
class TaskData:
    """Examples in splits.

    Attributes:
        task: with what its examples decide.
        splits: "train", "valid" and "test" -> examples.
        labels: of the task.
        columns: role -> column.
        aside: rows that were set aside.
        notes: for people: choices and what they should know.
        shared: (split, other) -> texts that are in both.
    """

    task: Task
    splits: dict[str, list[Example]]
    labels: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    aside: list[Aside] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shared: dict[tuple[str, str], int] = field(default_factory=dict)


def read_data(
    task: Task,
    data: str | Path,
    *,
    valid: str | Path | float = 0.1,
    test: str | Path | float = 0.1,
    columns: Mapping[str, str] | None = None,
    drop_leaks: bool = False,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> TaskData:
    """Read and divide a user's data.

    Args:
        task: what it is for.
        data: a table: all of it, or what to train on.
        valid: a table of its own, or the share of `data` that chooses weights, thresholds and temperatures.
        test: a table of its own, or the share of `data` that is measured on; 0: none.
        columns: role -> column, where the names do not say it.
        drop_leaks: leave texts that are in a later split too out of the earlier one, and do not only tell.
        seed: of the division.
        progress: called now and then.

    Raises:
        InputError: no such file, no example in it, labels that are none, or too few to hold anything out.
        ConfigError: no such column or role.
    """
    given = {"train": data, "valid": valid, "test": test}
    files = {name: path for name, path in given.items() if isinstance(path, str | Path)}
    shares = {name: value for name, value in given.items() if isinstance(value, float | int)}
    check_fractions(shares.get("valid", 0.0), shares.get("test", 0.0))
    found = TaskData(task, {})
    try:
        return _read(found, files, shares, columns, drop_leaks, seed, progress)
    except InputError as error:
        if not found.aside:
            raise
        raise InputError(f"{error} ({aside_note(found.aside)})") from error


def _read(
    found: TaskData,
    files: Mapping[str, str | Path],
    shares: Mapping[str, float],
    columns: Mapping[str, str] | None,
    drop_leaks: bool,
    seed: int,
    progress: OnProgress | None,
) -> TaskData:
    """The examples of files, checked and divided."""
    task = found.task
    for name, path in files.items():
        before = found.columns or None  # of the training data
        examples, aside, used = read_examples(task, path, columns=columns, before=before, progress=progress)
        found.aside += aside
        found.splits[name] = examples
        found.columns = found.columns or used  # of the training data
        found.notes.append(f"{name}: {many(len(examples), 'example')} from {path} ({columns_note(used)})")
    found.task = task = task.settle(found.splits["train"])
    found.splits["train"], twice = _unique(task, found.splits["train"])
    if twice:
        found.notes.append(f"{many(twice, 'row')} of the training data read once, for another says the same")
    found.splits["train"], against = _conflicting(task, found.splits["train"])
    found.aside += against
    if not found.splits["train"]:
        raise InputError(
            f"no example is left of {files['train']}: {against[0].source} and all others say different things of equal "
            "texts"
        )
    found.labels = task.labels(found.splits["train"])
    _check_labels(task, found)
    if shares and any(shares.values()):
        kept, held = _divided(task, found.splits["train"], shares, seed)
        found.splits["train"] = kept
        found.splits |= held
    if drop_leaks:
        _without_leaks(task, found)
    found.shared = _shared(task, found.splits)
    for (name, other), count in found.shared.items():
        found.notes.append(
            f"{count:,} texts of {other} are in {name} too: what is measured on them is too good; "
            f"--set drop_leaks=true leaves them out of {name}"
        )
    found.labels = task.labels(found.splits["train"])
    found.notes += task.check(found.splits, found.labels)
    if found.aside:
        found.notes.append(aside_note(found.aside))
    return found


def columns_note(columns: Mapping[str, str]) -> str:
    """Which column was taken for what."""
    return ", ".join(f"{role}: column {name!r}" for role, name in columns.items())


def aside_note(aside: Sequence[Aside]) -> str:
    """How many rows were set aside, why, and which was the first of each kind."""
    first: dict[str, str] = {}
    for one in aside:
        first.setdefault(one.kind, one.source)
    counts = Counter(one.kind for one in aside).most_common(MOST_SHOWN)
    shown = "; ".join(f"{count:,} × {kind}, first at {first[kind]}" for kind, count in counts)
    more = f"; {many(len(first) - len(counts), 'other reason')}" if len(first) > len(counts) else ""
    return f"{many(len(aside), 'row')} set aside: {shown}{more}"


def read_examples(
    task: Task,
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    before: Mapping[str, str] | None = None,
    answered: bool = True,
    progress: OnProgress | None = None,
) -> tuple[list[Example], list[Aside], dict[str, str]]:
    """The examples of one file, the rows that are none, and which column plays which role.

    Args:
        task: what they are for.
        path: a table, or parallel files: "en=train.en,de=train.de", the source first.
        columns: role -> column, where the names do not say it.
        before: role -> column of the file that a model was trained on, which is meant where this one has it too.
        answered: whether the truth is needed; where it is not, it is read if it is there.
        progress: called now and then.

    Raises:
        InputError: no such file, or not one example in it.
        ConfigError: no such column or role.
    """
    told = dict(columns or {})
    usual = _usual(task)
    files = parallel_files(path)
    if files and not told and files.keys().isdisjoint([*usual, *(before or {}).values()]):  # then their order says it
        told = dict(zip((role.name for role in task.roles if role.needed), files, strict=False))
    aside: list[Aside] = []
    asked = [*told.values(), *(before or {}).values(), *usual]
    rows = read_rows(path, asked=asked, skipped=lambda what: aside.append(Aside(what.source, what.reason)))
    examples, others, found = examples_of_rows(
        task, rows, str(path), columns=told, before=before, answered=answered, progress=progress
    )
    if not examples:
        shown = "; ".join(f"{item.source}: {item.reason}" for item in [*aside, *others][:MOST_SHOWN])
        raise InputError(f"{path} holds no example for the task {task.name}" + (f" ({shown})" if shown else ""))
    return examples, [*aside, *others], found


def _usual(task: Task) -> list[str]:
    return [name for role in task.roles for name in (role.name, *role.usual)]


def examples_of_rows(
    task: Task,
    rows: Iterable[Row],
    where: str = "rows",
    *,
    columns: Mapping[str, str] | None = None,
    before: Mapping[str, str] | None = None,
    answered: bool = True,
    progress: OnProgress | None = None,
) -> tuple[list[Example], list[Aside], dict[str, str]]:
    """The examples of rows, the rows that are none, and which column plays which role; as `read_examples`.

    Args:
        task: what they are for.
        rows: of one table.
        where: it is, to be named in errors.
        columns: role -> column, where the names do not say it.
        before: role -> column of the file that a model was trained on.
        answered: whether the truth is needed.
        progress: called now and then.

    Raises:
        InputError: it cannot be told which column plays a role.
        ConfigError: no such column or role.
    """
    rows, told = iter(rows), dict(columns or {})
    aside: list[Aside] = []
    examples: list[Example] = []
    sample = list(islice(rows, SAMPLE))  # a record may lack what others have
    names = list(dict.fromkeys(name for row in sample for name in row.values))
    seen = [row.values for row in sample]
    same = {role: name for role, name in (before or {}).items() if name in names and name not in told.values()}
    told = {**same, **told}
    found = find_columns(names, task.roles, told, where, answered=answered, sample=seen) if sample else {}
    for row in chain(sample, rows):
        try:
            examples.append(_example(task, row, found, answered))
        except CutawayError as error:
            aside.append(Aside(row.source, str(error)))
        if progress and len(examples) % 4096 == 0:
            progress(Progress("reading", len(examples), unit="examples"))
    return examples, aside, found


def _example(task: Task, row: Row, columns: Mapping[str, str], answered: bool) -> Example:
    values = pick(row.values, columns)
    if not answered and all(values.get(role.name) in (None, "") for role in task.roles if role.answer):
        values = {role.name: values.get(role.name) for role in task.roles if not role.answer}
    example = task.example(row.source, values, answered=answered)
    others = {name: value for name, value in row.values.items() if name not in columns.values()}
    return Example(example.source, example.given, example.truth, {**others, **example.more})


def cut_note(split: str, rows: Sequence[np.ndarray], owners: Sequence[int], context: int) -> str:
    """How many examples are cut: those that fill their one row to its end; "" where none are.

    Args:
        split: its name.
        rows: ids, of every row.
        owners: of every row the number of its example; those with several are read in parts.
        context: tokens of a row at the most.
    """
    times = Counter(owners)
    cut = sum(len(row) >= context and times[owner] == 1 for row, owner in zip(rows, owners, strict=True))
    if not cut:
        return ""
    of = f"{cut:,} of {len(times):,} examples of {split}"
    return f"{of} are longer than {context} tokens, and only so much of them is read; --set context=… reads more"


def keys_of(task: Task, examples: Sequence[Example]) -> np.ndarray:
    """A number for what is read of each example: equal texts, but for case and white space, have equal ones."""
    return text_keys(["\0".join(task.texts(example)) for example in examples])


def groups_of(task: Task, examples: Sequence[Example]) -> np.ndarray:
    """A number for each example, the same for those that share a text, or that others join by sharing theirs."""
    keys = _keys_together(task, examples)
    if all(len(some) == 1 for some in keys):
        return np.array(keys, np.uint64).reshape(-1)
    above: dict[int, int] = {}

    def top(key: int) -> int:
        while above.setdefault(key, key) != key:
            above[key] = key = above[above[key]]
        return key

    for first, *others in keys:
        for other in others:
            above[top(other)] = top(first)
    made = np.array([top(first) for first, *_ in keys], np.uint64)
    _, sizes = np.unique(made, return_counts=True)
    return keys_of(task, examples) if sizes.max() > len(examples) / 2 else made  # texts that nearly all share


def _unique(task: Task, examples: list[Example]) -> tuple[list[Example], int]:
    """Each text with its truth once."""
    kept: dict[tuple[int, str], Example] = {}
    for key, example in zip(keys_of(task, examples).tolist(), examples, strict=True):
        kept.setdefault((key, repr(example.truth)), example)
    return list(kept.values()), len(examples) - len(kept)


def _conflicting(task: Task, examples: list[Example]) -> tuple[list[Example], list[Aside]]:
    """Rows with the same text and another truth: which of them is right cannot be known, so none is learned from."""
    if not task.one_truth:
        return examples, []
    keys = keys_of(task, examples).tolist()
    homes: dict[int, list[Example]] = defaultdict(list)
    for key, example in zip(keys, examples, strict=True):
        homes[key].append(example)
    aside = [
        Aside(example.source, f"the same text has another answer elsewhere (at {home[example is home[0]].source})")
        for home in homes.values()
        if len(home) > 1
        for example in home
    ]
    return [example for key, example in zip(keys, examples, strict=True) if len(homes[key]) == 1], aside


def _divided(
    task: Task, examples: list[Example], shares: Mapping[str, float], seed: int
) -> tuple[list[Example], dict[str, list[Example]]]:
    """Hold out shares of each stratum, all examples of one group together."""
    keys = groups_of(task, examples)
    place = positions(keys, seed)
    strata: dict[str, list[int]] = defaultdict(list)
    first: dict[int, int] = {}
    for number, key in enumerate(keys.tolist()):
        first.setdefault(key, number)
        if first[key] == number:
            strata[task.stratum(examples[number])].append(number)
    for members in strata.values():
        members.sort(key=lambda number: place[number])
    chosen = _held(list(strata.values()), shares)
    if set(chosen.values()) < {name for name, share in shares.items() if share}:  # strata too small for their shares
        rest = sorted((n for members in strata.values() for n in members[1:]), key=lambda number: place[number])
        chosen = _held([rest], shares)  # one of each stays to be learned from
    home = {int(keys[number]): name for number, name in chosen.items()}
    held: dict[str, list[Example]] = {name: [] for name, share in shares.items() if share}
    kept: list[Example] = []
    for key, example in zip(keys.tolist(), examples, strict=True):
        held[home[key]].append(example) if key in home else kept.append(example)
    if not kept or not all(held.values()):
        empty = ["train"] * (not kept) + [name for name, some in held.items() if not some]
        raise InputError(
            f"of {len(examples):,} examples none is left for {' and '.join(empty)}; give more examples, or larger "
            "shares for --valid and --test"
        )
    return kept, held


def _held(strata: Sequence[Sequence[int]], shares: Mapping[str, float]) -> dict[int, str]:
    """Which numbers go into which split: of each stratum the shares, one after the other, rounded."""
    home: dict[int, str] = {}
    for members in strata:
        start = 0.0
        for name, share in shares.items():
            begin, start = start, start + share
            home |= dict.fromkeys(members[round(begin * len(members)) : round(start * len(members))], name)
    return home


def _check_labels(task: Task, found: TaskData) -> None:
    """Refuse labels of which there is one, or of which nearly every example has one of its own.

    Raises:
        InputError: so it is.
    """
    examples, column = found.splits["train"], next((found.columns.get(r.name) for r in task.roles if r.answer), None)
    task.check({"train": examples}, found.labels)
    if column and len(examples) >= FEW and len(found.labels) > len(examples) / 2:
        answer = next(role.name for role in task.roles if role.answer)
        raise InputError(
            f"the column {column!r} has {len(found.labels):,} different labels in {len(examples):,} examples, too many "
            f"to learn; which column holds the labels? Say it with --column {answer}=NAME"
        )


def _without_leaks(task: Task, found: TaskData) -> None:
    """Leave out of each split what a later one holds too."""
    taken: set[int] = set()
    for name in reversed(SPLITS):
        if name not in found.splits:
            continue
        examples = found.splits[name]
        keys = _keys_together(task, examples)
        kept = [example for own, example in zip(keys, examples, strict=True) if taken.isdisjoint(own)]
        if len(kept) < len(examples):
            found.notes.append(
                f"{len(examples) - len(kept):,} examples were left out of {name}: a later split has them"
            )
            found.splits[name] = kept
        if not kept:
            raise InputError(f"every text of {name} is in another split too; give other files")
        taken.update(*keys)


def _keys_together(task: Task, examples: Sequence[Example]) -> list[list[int]]:
    """Of each example the keys of the texts that may not be in two splits."""
    texts = [task.together(example) for example in examples]
    keys = iter(text_keys([text for some in texts for text in some]).tolist())
    return [[next(keys) for _ in some] for some in texts]


def _shared(task: Task, splits: Mapping[str, Sequence[Example]]) -> dict[tuple[str, str], int]:
    keys = {name: set(chain(*_keys_together(task, examples))) for name, examples in splits.items()}
    pairs = [("train", "valid"), ("train", "test"), ("valid", "test")]
    found = {(a, b): len(keys[a] & keys[b]) for a, b in pairs if a in keys and b in keys}
    return {pair: count for pair, count in found.items() if count}
