"""Rows of tables with all their columns: what people have labelled, paired or asked, as CSV, TSV, JSON or Parquet.

The readers of `text.readers` make documents of one column; here nothing is left out, and values keep the types that
JSON and Parquet give them. Every row knows the line that it ends on.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn

from cutaway.errors import DamagedFile, InputError, many, need, unknown
from cutaway.text.parallel import parallel_files, read_parallel
from cutaway.text.readers.base import Input, Limits, OnSkipped, Part, Skipped
from cutaway.text.readers.columns import SAMPLE
from cutaway.text.readers.discover import missing
from cutaway.text.readers.encoding import Decoder, encodable, is_utf8, mostly_utf8, not_text
from cutaway.text.readers.plain import blocks
from cutaway.text.readers.streams import as_utf8, opened, os_errors, suffixes
from cutaway.text.readers.table import Layout, find_layout, has_header
from cutaway.text.squad import questions

DELIMITERS = {".csv": ",;\t|", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl", ".ndjson", ".json", ".parquet")
SINGLE = ("cp125", "iso", "latin", "mac", "koi8")  # encodings of one byte a character
SWALLOWED = 20  # lines of one field, from which on it is asked whether a quote was left open
END = "\x1e"  # a last line that no table has: a row of its own, unless a quote is still open


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        source: file and line, or row: "reviews.csv:17".
        values: column -> value, text in tables; None where there is none.
    """

    source: str
    values: dict[str, Any]


def read_rows(
    path: str | Path,
    *,
    asked: Sequence[str] = (),
    skipped: OnSkipped | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> Iterator[Row]:
    """Every row of a table.

    Args:
        path: .csv, .tsv, .jsonl, .json or .parquet; .gz, .bz2, .xz or .zst may come after it. Or several text files
            with a line each for a row, as "column=file,column=file".
        asked: columns that are known to be there: they tell a header from a first row.
        skipped: told of lines that are no rows, and of characters that could not be read.
        limits: what a compressed file may unfold to.

    Raises:
        InputError: no such file, not a table, or nothing in it.
        DamagedFile: not what its name says, or cut short.
        MissingExtra: a format needs an optional library.
    """
    if files := parallel_files(path):
        for number, values in read_parallel(files, limits):
            yield Row(f"{next(iter(files.values()))}:{number}", dict(values))
        return
    path = Path(path)
    name = str(path)
    if not path.is_file():
        raise InputError(f"{name} is a folder; give one file with a table" if path.is_dir() else missing(path))
    suffix = suffixes(name)[0]
    if suffix not in SUFFIXES:
        raise InputError(unknown("kind of table", suffix or name, SUFFIXES))
    if not path.stat().st_size:
        raise InputError(f"{name} is empty; give a file with rows in it")
    part = Part(name, name, path.stat().st_size, suffix, asked=True)
    left_out = 0

    def counted(what: Skipped) -> None:
        nonlocal left_out
        left_out += 1
        if skipped is not None:
            skipped(what)

    count = 0
    with os_errors(name), opened(part, limits) as stream:
        if suffix == ".parquet":
            found = _parquet(stream, part, limits)
        else:
            head = stream.peek(1)[:8192]
            few = head.count(0) <= len(head) // 100  # NULs: of a damaged row, not of a file that is no text
            if problem := not_text(head.replace(b"\0", b"") if few else head):
                raise InputError(f"{name} is not text: it is {problem}")
            source = Input(name, as_utf8(stream), part, None, limits, counted)
            lines = Lines(source)
            found = _table(source, lines, asked) if suffix in DELIMITERS else _json(source, lines)
        for count, row in enumerate(found, 1):  # noqa: B007  # used after the loop
            yield row
    if not count and not left_out:
        raise InputError(f"{name} holds no rows")


def rows_of_text(
    text: str,
    *,
    name: str = "rows",
    asked: Sequence[str] = (),
    skipped: OnSkipped | None = None,
) -> Iterator[Row]:
    """Every row of a table that is given as text, such as one that was pasted: CSV, TSV, JSON or JSON Lines.

    Args:
        text: the table. What begins with "[" is JSON, with "{" JSON Lines; else fields stand between tabs if the first
            line has any, or between commas, semicolons or bars.
        name: by which rows are told: "rows:17".
        asked: columns that are known to be there: they tell a header from a first row.
        skipped: told of lines that are no rows.

    Raises:
        InputError: nothing in it, or no table.
        DamagedFile: JSON that cannot be read.

    >>> [row.values for row in rows_of_text("text,label\\nfine,good\\npoor,bad\\n")]
    [{'text': 'fine', 'label': 'good'}, {'text': 'poor', 'label': 'bad'}]
    """
    first = text.removeprefix("\ufeff").lstrip()
    if not first:
        raise InputError(f"there is nothing in {name}; paste a table with a header and rows")
    line = first.partition("\n")[0]
    suffix = ".json" if first[0] == "[" else ".jsonl" if first[0] == "{" else ".tsv" if "\t" in line else ".csv"
    data = encodable(text).encode()
    part = Part(name, name, len(data), suffix, asked=True)
    source = Input(name, io.BufferedReader(io.BytesIO(data)), part, None, Limits(), skipped)  # pyright: ignore[reportArgumentType]
    lines = Lines(source)
    yield from _table(source, lines, asked) if suffix in DELIMITERS else _json(source, lines)


class Lines:
    """The lines of a file as text, with their ends, and which of them cannot be trusted.

    A file is in one encoding, but rows that were pasted into it may be in another: lines of UTF-8 are read as such in
    files of other encodings, and what fits none is marked.

    Args:
        source: an open input.

    Attributes:
        number: of the last line given, from 1.
        broken: numbers of lines -> why they are no text.
    """

    def __init__(self, source: Input) -> None:
        self._source, self._decode = source, Decoder(source.name)
        self._settled = False
        self.number = 0
        self.broken: dict[int, str] = {}

    def __iter__(self) -> Iterator[str]:
        for _, block in blocks(self._source):
            try:
                text = block.decode()
            except UnicodeDecodeError:
                lines = block.splitlines(keepends=True)
                if not self._settled and not mostly_utf8(block):
                    self._decode(b"".join(line for line in lines if not is_utf8(line)))  # finds out which it is in
                self._settled = True
                for line in lines:
                    yield self._begun(self._line(line))
                continue
            for line in io.StringIO(text, newline=""):
                yield self._begun(line)

    def _begun(self, line: str) -> str:
        self.number += 1
        if "\0" in line:
            self.broken[self.number] = "a NUL character stands in it, which no text has"
        return line.removeprefix("\ufeff") if self.number == 1 else line

    def _line(self, line: bytes) -> str:
        encoding = self._decode.encoding
        with suppress(UnicodeDecodeError):
            text = line.decode()
            strange = sum(character > "\x7f" for character in text)
            # a few bytes of Chinese may pass for UTF-8, but not many; those of Western letters hardly ever
            if encoding == "utf-8" or not strange or encoding.startswith(SINGLE) or strange >= 4:
                return text
        with suppress(UnicodeDecodeError):
            return line.decode(encoding)
        self.broken[self.number + 1] = (
            f"it is not in the encoding of the rest of the file ({encoding.upper()}); save the file as UTF-8"
        )
        return line.decode(encoding, "replace")

    def problem(self, after: int, last: int) -> str:
        """Why the lines after one up to another are no text, or ""."""
        if not self.broken:
            return ""
        return next((self.broken[number] for number in range(after + 1, last + 1) if number in self.broken), "")


def _table(source: Input, lines: Lines, asked: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), source.limits.document))
    given = iter(lines)
    head = list(islice(given, 1000))
    layout = find_layout("".join(head), DELIMITERS[source.part.suffix])
    reader: Any = layout.rows(chain(head, given, [END]))

    def numbered() -> Iterator[tuple[int, int, list[str]]]:
        before = 0
        try:
            for row in reader:
                if row and row[-1].endswith(END):
                    if row != [END]:
                        _left_open(source.name, before + 1, reader.line_num - before - 1)
                    return
                yield before, reader.line_num, row
                before = reader.line_num
        except csv.Error as error:
            raise InputError(f"{source.name}:{reader.line_num} cannot be read as a table ({error})") from error

    found = numbered()
    sample = list(islice((one for one in found if one[2]), SAMPLE))
    rows = [row for *_, row in sample]
    first = [cell.strip() for cell in rows[0]] if rows else []
    names = [str(number + 1) for number in range(len(first))]
    usual = {name.lower() for name in asked}
    if has_header(rows, next((name for name in first if name.lower() in usual), None)):
        if twice := next((name for name in first if name and first.count(name) > 1), None):
            raise InputError(f"{source.name} has two columns {twice!r}; give one of them another name")
        names, sample = first, sample[1:]
        if not sample:
            raise InputError(f"{source.name} has a header ({', '.join(names)}) but no rows")
    for before, line, row in chain(sample, found):
        if not any(cell.strip() for cell in row):
            continue
        said = lines.problem(before, line)
        if not said and len(row) > len(names):
            said = f"more fields than the table has columns ({len(row)}, not {len(names)})"
        if said:
            source.report(said, at=f":{line}")
            continue
        if line - before > SWALLOWED:
            _check_closed(source.name, layout, row, before, len(names))
        cells = [*row, *[None] * (len(names) - len(row))]
        yield Row(f"{source.name}:{line}", dict(zip(names, cells, strict=True)))


def _check_closed(name: str, layout: Layout, row: list[str], before: int, width: int) -> None:
    """Refuse a field that holds rows of the table: its quote was never closed.

    Raises:
        InputError: most of its lines are rows.
    """
    for cell in row:
        inner = cell.split("\n")[1:-1]
        if width > 1 and len(inner) >= SWALLOWED:
            widths = [len(fields) for fields in layout.rows(inner)]
            if sum(found == width for found in widths) > 0.9 * len(inner):
                _left_open(name, before + 1, len(inner))


def _left_open(name: str, line: int, rows: int) -> NoReturn:
    raise InputError(
        f"{name}:{line} opens a quote that it does not close, so that {many(rows, 'row')} would be one field; close "
        "it, or double it where it is part of the text"
    )


def _json(source: Input, lines: Lines) -> Iterator[Row]:
    if source.part.suffix == ".json":
        text = "".join(lines)
        if lines.broken:
            number, said = next(iter(lines.broken.items()))
            raise DamagedFile(f"{source.name}:{number} is no text: {said}")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DamagedFile(
                f"{source.name} is not JSON ({error}); name it .jsonl if it has a record a line"
            ) from error
        values = questions(values) or values
        if not isinstance(values, list):
            raise InputError(f"{source.name} must hold a list of records, but it holds {type(values).__name__}")
        records: Iterator[tuple[int, Any]] = enumerate(values, 1)
    else:
        records = _records(source, lines)
    for number, value in records:
        if isinstance(value, dict):
            yield Row(f"{source.name}:{number}", _clean(value))
        else:
            source.report(f"a {type(value).__name__}, no record of named values", at=f":{number}")


def _records(source: Input, lines: Lines) -> Iterator[tuple[int, Any]]:
    good = bad = 0
    for line in lines:
        if not line.strip():
            continue
        said = lines.problem(lines.number - 1, lines.number)
        value = None
        try:
            value = json.loads(line) if not said else None
        except (ValueError, RecursionError):
            bad, said = bad + 1, "not JSON"
        if said:
            source.report(said, at=f":{lines.number}")
            continue
        good += 1
        yield lines.number, value
    if bad and not good:
        raise DamagedFile(f"{source.name}: not one line is a JSON record; is it JSON Lines?")


def _clean(value: Any) -> Any:
    """A value without half characters; a number that is none is nothing."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parquet(stream: Any, part: Part, limits: Limits) -> Iterator[Row]:
    parquet, arrow = need("pyarrow.parquet", "documents", "reading Parquet"), need("pyarrow", "documents", "Parquet")
    try:
        packed = bool(suffixes(part.path)[1])
        file = parquet.ParquetFile(io.BytesIO(stream.read()) if packed else part.path)
        whole = sum(file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups))
        if whole > limits.allowed(part.size):
            raise InputError(f"{part.name} unfolds to far more than a table of its size (a decompression bomb?)")
        number = 0
        for batch in file.iter_batches(256):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{part.name}:{number}", _clean(values))
    except (OSError, UnicodeDecodeError, arrow.ArrowException) as error:
        raise DamagedFile(f"{part.name} is not a Parquet file, or a damaged one ({error})") from error
