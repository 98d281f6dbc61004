"""Two text files, a sentence a line, each line the translation of the other's: what parallel corpora come as.

Named as one: "en=train.en,de=train.de".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cutaway.errors import InputError
from cutaway.text.readers.base import Limits, Part
from cutaway.text.readers.discover import missing
from cutaway.text.readers.streams import as_utf8, opened, os_errors, suffixes

NAMED = re.compile(r"(\w+)=([^,]+)")


def parallel_files(given: str | Path) -> dict[str, Path]:
    """Column -> file, of what names several; {} of what is one file.

    >>> parallel_files("en=train.en,de=train.de")
    {'en': PosixPath('train.en'), 'de': PosixPath('train.de')}
    """
    given = str(given)
    if "," not in given or Path(given).exists():
        return {}
    found = [NAMED.fullmatch(part.strip()) for part in given.split(",")]
    if not all(found):
        return {}
    return {match[1]: Path(match[2].strip()) for match in found if match is not None}


def read_parallel(files: dict[str, Path], limits: Limits = Limits()) -> Iterator[tuple[int, dict[str, str]]]:  # noqa: B008  # frozen
    """The lines of the files beside each other: the number of the line, and column -> what stands in it.

    Raises:
        InputError: a file is missing or no UTF-8 text, or they have different numbers of lines; says how many.
    """
    lines = {name: _lines(path, limits) for name, path in files.items()}
    counts = {name: len(some) for name, some in lines.items()}
    if len(set(counts.values())) > 1:
        said = " and ".join(f"{files[name]} has {count:,}" for name, count in counts.items())
        raise InputError(f"parallel files must have a line for each line of the other, but {said} lines")
    for number, row in enumerate(zip(*lines.values(), strict=True), 1):
        yield number, dict(zip(lines, row, strict=True))


def _lines(path: Path, limits: Limits) -> list[str]:
    name = str(path)
    if not path.is_file():
        raise InputError(f"{name} is a folder; give a text file" if path.is_dir() else missing(path))
    part = Part(name, name, path.stat().st_size, suffixes(name)[0], asked=True)
    with os_errors(name), opened(part, limits) as stream:
        raw = as_utf8(stream).read()
    try:
        text = raw.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}:{line} is not UTF-8 text; save the file as UTF-8") from error
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
