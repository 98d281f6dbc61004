"""Suites of questions: what they hold, and the files that they are read from.

Three kinds, known by the names of a file's columns:

* pairs: `sentence_good` and `sentence_bad` (or `good`, `bad`), as BLiMP has them: which is likelier?
* choices: a context (`context`, `question`, `query`, `prompt`, `ctx`), `choices` (or `endings`) and the `answer` (or
  `label`, `gold`, `target`, `answerKey`): its number from 0, its letter, or its text.
* words: `text` alone, as LAMBADA has it: is its last word what the model would write?
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutaway.errors import DamagedFile, InputError, unknown
from cutaway.text.readers.base import Limits, Part
from cutaway.text.readers.streams import opened, os_errors, suffixes

ENDINGS = (".jsonl", ".csv")  # with .gz or another packing behind them, too
PAIRS = (("sentence_good", "sentence_bad"), ("good", "bad"))
CONTEXTS = ("context", "question", "query", "prompt", "ctx")
CHOICES = ("choices", "endings")
ANSWERS = ("answer", "label", "gold", "target", "answerkey")
LEVELS = {  # how items are grouped, from coarse to fine -> columns that say it
    "field": ("field",),
    "phenomenon": ("linguistics_term", "term", "category", "subject"),
    "paradigm": ("uid",),
}


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        where: the file's name and the line.
        context: what is given; "" for whole sentences.
        choices: what may follow it, as it is scored: with the space before it.
        answer: the number of the right one.
        lengths: characters of each choice without that space, by which `acc_norm` divides.
        groups: level -> which group of it; see LEVELS.
    """

    where: str
    context: str
    choices: tuple[str, ...]
    answer: int
    lengths: tuple[int, ...]
    groups: Mapping[str, str]


@dataclass(frozen=True)
class Suite:
    """Questions of one kind.

    Attributes:
        name: what to call it.
        kind: "pairs", "choices" or "words".
        items: the questions.
    """

    name: str
    kind: str
    items: tuple[Item, ...]

    def first(self, count: int | None) -> Suite:
        """The first so many of each of the finest groups (as lm-eval's --limit counts); None: all."""
        if count is None:
            return self
        seen: Counter[tuple[str, ...]] = Counter()
        kept = []
        for item in self.items:
            group = tuple(item.groups.values())
            seen[group] += 1
            if seen[group] <= count:
                kept.append(item)
        return Suite(self.name, self.kind, tuple(kept))


def read_suite(path: str | Path, name: str = "") -> Suite:
    """The questions of a file, or of all files of a folder.

    Args:
        path: .jsonl or .csv, packed or not; or a folder of them.
        name: what to call the suite; by default as the file is called.

    Raises:
        InputError: no such file, no questions, questions of several kinds, or one that is none; says which line.
        DamagedFile: what is no JSON, no CSV or cut short; says which line.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a file of questions ({', '.join(ENDINGS)}) or a folder of them")
    files = sorted(f for f in path.rglob("*") if suffixes(f.name)[0] in ENDINGS) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no {' or '.join(ENDINGS)} file")
    items: list[Item] = []
    kinds: dict[str, str] = {}
    for file in files:
        for where, row in _rows(file):
            kind, item = _item(row, where)
            if "paradigm" not in item.groups and len(files) > 1:
                item = Item(**{**vars(item), "groups": {**item.groups, "paradigm": _stem(file)}})
            kinds.setdefault(kind, where)
            items.append(item)
    if len(kinds) > 1:
        both = " and ".join(f"{kind} ({where})" for kind, where in kinds.items())
        raise InputError(f"{path} holds questions of several kinds: {both}; make a suite of each")
    if not items:
        raise InputError(f"{path} holds no questions")
    return Suite(name or _stem(path), next(iter(kinds)), tuple(items))


def _stem(path: Path) -> str:
    return path.name.partition(".")[0] or path.name


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file, with lower-case names of columns, and where each stands."""
    suffix = suffixes(file.name)[0]
    if suffix not in ENDINGS:
        raise InputError(f"{file} is no {' or '.join(ENDINGS)} file, so its questions cannot be read")
    with os_errors(str(file)), opened(Part(str(file), str(file), file.stat().st_size, suffix), Limits()) as stream:
        try:
            text = io.TextIOWrapper(stream, "utf-8-sig", newline="" if suffix == ".csv" else None)
            for number, row in _csv(text) if suffix == ".csv" else _json(text, file):
                yield f"{file}, line {number}", {str(k).lower(): v for k, v in row.items() if v is not None}
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is not UTF-8: {error.reason}") from error
        except csv.Error as error:
            raise DamagedFile(f"{file} is no CSV: {error}") from error


def _csv(text: io.TextIOWrapper) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = csv.DictReader(text, strict=True)
    for row in rows:
        yield rows.line_num, row


def _json(text: io.TextIOWrapper, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DamagedFile(f"{file}, line {number} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise InputError(f"{file}, line {number} must be a JSON object, but it is {type(row).__name__}")
            yield number, row


def _item(row: Mapping[str, Any], where: str) -> tuple[str, Item]:
    """A row as a question, and of which kind."""
    groups = {
        level: str(row[name]) for level, names in LEVELS.items() for name in names if isinstance(row.get(name), str)
    }
    for good, bad in PAIRS:
        if good in row and bad in row:
            pair = _text(row, good, where), _text(row, bad, where)
            return "pairs", _made(where, "", pair, 0, groups)
    given = next((name for name in CHOICES if name in row), None)
    if given is not None:
        choices, labels = _choices(row[given], where)
        context = _text(row, _column(row, CONTEXTS, "context", where), where)
        answer = _answer(row[_column(row, ANSWERS, "answer", where)], choices, labels, where)
        return "choices", _made(where, context, choices, answer, groups)
    if "text" in row:
        head, _, last = _text(row, "text", where).rpartition(" ")
        if not last.strip() or not head.strip():
            raise InputError(f"{where}: a text must have a last word, and something before it")
        return "words", _made(where, head, (last,), 0, groups)
    raise InputError(
        f"{where} has the columns {', '.join(row)[:200]}; a question has sentence_good and sentence_bad, or a context, "
        "choices and an answer, or a text whose last word is asked for"
    )


def _made(where: str, context: str, choices: Sequence[str], answer: int, groups: Mapping[str, str]) -> Item:
    spaced = tuple(f" {choice}" for choice in choices)  # lm-eval's target_delimiter
    return Item(where, context, spaced, answer, tuple(map(len, choices)), groups)


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {name} must be a text, but it is {value!r:.60}")
    return value


def _column(row: Mapping[str, Any], names: Sequence[str], what: str, where: str) -> str:
    found = next((name for name in names if name in row), None)
    if found is None:
        raise InputError(f"{where} has choices but no {what}; it must be in one of {', '.join(names)}")
    return found


def _choices(value: Any, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts of choices, and what they are called; in CSV a list stands as JSON."""
    labels: Any = ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: choices must be a list, in CSV as JSON: {error}") from error
    if isinstance(value, dict):
        value, labels = value.get("text"), value.get("label") or ()
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, str) and one for one in value):
        raise InputError(f"{where}: choices must be a list of at least two texts")
    if not isinstance(labels, list | tuple) or (labels and len(labels) != len(value)):
        raise InputError(f"{where}: there must be as many labels as choices")
    return tuple(value), tuple(map(str, labels)) or tuple(chr(ord("A") + i) for i in range(len(value)))


def _answer(value: Any, choices: Sequence[str], labels: Sequence[str], where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < len(choices):
            return value
    elif isinstance(value, str):
        for names in (labels, choices, [str(number) for number in range(len(choices))]):
            if value in names:
                return names.index(value)
    numbers = map(str, range(len(choices)))
    raise InputError(f"{where}: {unknown('answer', str(value), [*numbers, *labels])}")
