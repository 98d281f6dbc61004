"""Files line by line: a translation for each line, in its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cutaway.errors import ConfigError, InputError
from cutaway.progress import OnProgress, Progress
from cutaway.tasks.task import Answer, is_blank
from cutaway.tasks.trained import TaskModel
from cutaway.tasks.translate.task import Translate

AT_ONCE = 1024  # lines that are translated before progress is told
BOM = "\ufeff"


def translate_lines(
    made: TaskModel, lines: Sequence[str], *, progress: OnProgress | None = None, alignment: bool = False
) -> Iterator[Answer | None]:
    """A translation of each line, in order; None of lines in which there is nothing to read.

    Args:
        made: a model of the task translate.
        lines: without their ends.
        progress: told now and then.
        alignment: whether to tell which words each was written from.

    Raises:
        ConfigError: a model of another task.
    """
    if not isinstance(made.task, Translate):
        raise ConfigError(f"a model of the task {made.task.name!r} translates nothing; train one for translate")
    quick = replace(made, task=replace(made.task, alignment=alignment))
    for start in range(0, len(lines), AT_ONCE):
        some = lines[start : start + AT_ONCE]
        full = [line for line in some if not is_blank(line)]
        answers = iter(quick.predict([{"source": line} for line in full])) if full else iter(())
        for line in some:
            yield None if is_blank(line) else next(answers)
        if progress:
            progress(Progress("translating", min(len(lines), start + AT_ONCE), len(lines), "lines"))


def read_lines(path: str | Path) -> tuple[list[str], list[str]]:
    """The lines of a text file, and of each what ends it: a newline, a carriage return and one, or nothing.

    Raises:
        InputError: no such file, or not UTF-8; says where.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a text file")
    raw = path.read_bytes()
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line} is not UTF-8 text; save the file as UTF-8") from error
    pieces = re.split("(\r?\n)", text)
    lines, ends = pieces[::2], [*pieces[1::2], ""]
    if not lines[-1]:  # behind the last newline is no line
        lines, ends = lines[:-1], ends[:-1]
    return lines, ends


def translate_file(
    made: TaskModel, source: str | Path, *, progress: OnProgress | None = None
) -> tuple[str, list[Answer | None]]:
    """The translation of a file, with as many lines, which end as its lines do; and what was answered to each.

    Lines in which there is nothing to read stay as they are, as does a byte order mark.

    Raises:
        InputError: no such file, or not UTF-8.
        ConfigError: a model of another task.
    """
    lines, ends = read_lines(source)
    mark = BOM if lines and lines[0].startswith(BOM) else ""
    if mark:
        lines[0] = lines[0][1:]
    answers = list(translate_lines(made, lines, progress=progress))
    said = [line if answer is None else _one_line(answer.answer) for line, answer in zip(lines, answers, strict=True)]
    return mark + "".join(text + end for text, end in zip(said, ends, strict=True)), answers


def _one_line(text: str) -> str:
    """A translation without anything that other programs could take for the end of a line."""
    return " ".join(text.splitlines())
