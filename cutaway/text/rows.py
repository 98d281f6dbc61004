"""Rows of tables with all their columns: what people have labelled, paired or asked, as CSV, TSV, JSON or Parquet.

The readers of `text.readers` make documents of one column; here nothing is left out, and values keep the types that
JSON and Parquet give them. Every row knows the line that it ends on.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from cutaway.errors import DamagedFile, InputError, need, unknown
from cutaway.text.readers.base import Input, Limits, OnSkipped, Part, Skipped
from cutaway.text.readers.columns import SAMPLE
from cutaway.text.readers.discover import missing
from cutaway.text.readers.encoding import Decoder, encodable, not_text
from cutaway.text.readers.plain import blocks
from cutaway.text.readers.streams import as_utf8, opened, os_errors, suffixes
from cutaway.text.readers.table import find_layout, has_header

DELIMITERS = {".csv": ",;\t|", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl", ".ndjson", ".json", ".parquet")


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
        path: .csv, .tsv, .jsonl, .json or .parquet; .gz, .bz2, .xz or .zst may come after it.
        asked: columns that are known to be there: they tell a header from a first row.
        skipped: told of lines that are no rows, and of characters that could not be read.
        limits: what a compressed file may unfold to.

    Raises:
        InputError: no such file, not a table, or nothing in it.
        DamagedFile: not what its name says, or cut short.
        MissingExtra: a format needs an optional library.
    """
    path = Path(path)
    name = str(path)
    if not path.is_file():
        raise InputError(f"{name} is a folder; give one file with a table" if path.is_dir() else missing(path))
    suffix = suffixes(name)[0]
    if suffix not in SUFFIXES:
        raise InputError(unknown("kind of table", suffix or name, SUFFIXES))
    part = Part(name, name, path.stat().st_size, suffix, asked=True)
    with os_errors(name), opened(part, limits) as stream:
        if suffix == ".parquet":
            yield from _parquet(stream, part, limits)
            return
        if problem := not_text(stream.peek(1)[:8192]):
            raise InputError(f"{name} is not text: it is {problem}")
        source = Input(name, as_utf8(stream), part, None, limits, skipped)
        decode = Decoder(name)
        found = _table(source, decode, asked) if suffix in DELIMITERS else _json(source, decode)
        count = 0
        for count, row in enumerate(found, 1):  # noqa: B007  # used after the loop
            yield row
        if decode.loss:
            source.report(decode.loss, read=True)
    if not count:
        raise InputError(f"{name} holds no rows")


def _table(source: Input, decode: Decoder, asked: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), source.limits.document))
    texts = (decode(block) for _, block in blocks(source))
    first = next(texts, "").removeprefix("\ufeff")
    layout = find_layout(first, DELIMITERS[source.part.suffix])
    reader: Any = layout.rows(chain.from_iterable(io.StringIO(text, newline="") for text in chain([first], texts)))

    def numbered() -> Iterator[tuple[int, list[str]]]:
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise InputError(f"{source.name}:{reader.line_num} cannot be read as a table ({error})") from error

    lines = numbered()
    sample = list(islice(((line, row) for line, row in lines if row), SAMPLE))
    rows = [row for _, row in sample]
    named = next((name for name in asked if rows and name in [cell.strip() for cell in rows[0]]), None)
    names = [str(number + 1) for number in range(len(rows[0]) if rows else 0)]
    if has_header(rows, named):
        names = [cell.strip() for cell in rows[0]]
        sample = sample[1:]
    for line, row in chain(sample, lines):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) > len(names):
            said = f"{len(row)} fields where the table has {len(names)} columns"
            if source.on_skipped:
                source.on_skipped(Skipped(f"{source.name}:{line}", said))
            continue
        cells = [*row, *[None] * (len(names) - len(row))]
        yield Row(f"{source.name}:{line}", dict(zip(names, cells, strict=True)))


def _json(source: Input, decode: Decoder) -> Iterator[Row]:
    texts = (decode(block) for _, block in blocks(source))
    if source.part.suffix == ".json":
        try:
            values = json.loads("".join(texts).removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:
            raise DamagedFile(
                f"{source.name} is not JSON ({error}); name it .jsonl if it has a record a line"
            ) from error
        if not isinstance(values, list):
            raise InputError(f"{source.name} must hold a list of records, but it holds {type(values).__name__}")
        records: Iterator[tuple[int, Any]] = enumerate(values, 1)
    else:
        records = _lines(source, texts)
    for number, value in records:
        if isinstance(value, dict):
            yield Row(f"{source.name}:{number}", {key: _clean(one) for key, one in value.items()})
        elif source.on_skipped:
            source.on_skipped(
                Skipped(f"{source.name}:{number}", f"a {type(value).__name__}, no record of named values")
            )


def _lines(source: Input, texts: Iterator[str]) -> Iterator[tuple[int, Any]]:
    number = good = 0
    broken: list[int] = []
    for text in texts:
        for line in text.removesuffix("\n").split("\n"):
            number += 1
            if not line.strip():
                continue
            try:
                value = json.loads(line.removeprefix("\ufeff"))
            except (ValueError, RecursionError):
                broken.append(number)
                if source.on_skipped:
                    source.on_skipped(Skipped(f"{source.name}:{number}", "not JSON"))
                continue
            good += 1
            yield number, value
    if broken and not good:
        raise DamagedFile(f"{source.name}: not one line is a JSON record; is it JSON Lines?")


def _clean(value: Any) -> Any:
    return encodable(value) if isinstance(value, str) else value


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
                yield Row(f"{part.name}:{number}", values)
    except (OSError, UnicodeDecodeError, arrow.ArrowException) as error:
        raise DamagedFile(f"{part.name} is not a Parquet file, or a damaged one ({error})") from error
    if not number:
        raise InputError(f"{part.name} holds no rows")
