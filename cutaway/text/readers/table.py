"""Comma- and tab-separated tables (RFC 4180, and the many files that only resemble it): one document per row."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

from cutaway.errors import InputError
from cutaway.text.documents import Document
from cutaway.text.readers.base import Input, Reader
from cutaway.text.readers.columns import META_NAMES, SAMPLE, TEXT_NAMES, about, choose
from cutaway.text.readers.encoding import Decoder
from cutaway.text.readers.plain import blocks

_KNOWN = {
    *TEXT_NAMES,
    *META_NAMES,
    "id",
    "label",
    "labels",
    "class",
    "category",
    "target",
    "score",
    "rating",
    "name",
    "index",
}
_NONE = "\x1f"  # the unit separator, for tables of one column: it occurs in no text
_IDENTIFIER = re.compile(r"[^\W\d][\w.-]{0,30}")
_NUMBER = re.compile(r"\s*[-+]?[\d.,]+(e[-+]?\d+)?%?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """How a table is written: its delimiter, and whether quotes enclose fields or are part of the text."""

    delimiter: str
    quoted: bool

    def rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """The rows of lines (with their line ends)."""
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        return csv.reader(lines, delimiter=self.delimiter, quoting=quoting)


def read_table(source: Input, *, delimiters: str) -> Iterator[Document]:
    """A document per row, named "file:line" by the line the row ends on; the first row may be a header.

    Raises:
        ConfigError: there is no column of the name asked for.
        InputError: no column holds text, or the rows cannot be taken apart.
    """
    # A process-wide limit of the csv module, 128 KB by default; a field may be as long as a document may be.
    csv.field_size_limit(max(csv.field_size_limit(), source.limits.document))
    decode = Decoder(source.name)
    texts = (decode(block) for _, block in blocks(source))
    first = next(texts, "").removeprefix("\ufeff")
    layout = find_layout(first, delimiters)
    reader = layout.rows(chain.from_iterable(io.StringIO(text, newline="") for text in chain([first], texts)))
    lines = _numbered(reader, source.name)
    sample = list(islice(lines, SAMPLE))
    head = next((row for _, row in sample if row), [])
    asked = source.column
    if has_header([row for _, row in sample], asked):
        names = [name.strip() for name in head]
        sample = sample[1:] if sample[0][1] is head else [item for item in sample if item[1] is not head]
    else:
        names = [str(number + 1) for number in range(len(head))]
    samples = {name: [row[i] for _, row in sample if i < len(row)] for i, name in enumerate(names)}
    column = choose(names, samples, asked, source.name)
    where, others = (
        names.index(column),
        [(names.index(n), key) for n, key in about(names, column, source.also, source.name).items()],
    )
    empty = 0
    for line, row in chain(sample, lines):
        if where >= len(row) or not row[where].strip():
            empty += bool(row)
            continue
        meta = {key: row[i] for i, key in others if i < len(row) and row[i]}
        yield Document(row[where], f"{source.name}:{line}", {**meta, **decode.meta})
    if empty:
        source.report(f"{empty:,} rows have nothing in the column {column!r}", read=True)
    if decode.loss:
        source.report(decode.loss, read=True)


def _numbered(reader, name: str) -> Iterator[tuple[int, list[str]]]:
    """Each row with the number of the line it ends on."""
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{name}:{reader.line_num} cannot be read as a table ({error})") from error


def find_layout(beginning: str, delimiters: str) -> Layout:
    """The layout with which most of the rows have as many columns as the first, then the one with most columns."""
    lines = list(islice(io.StringIO(beginning, newline=""), 1000))
    best, layout = (0.5, 0), Layout(_NONE, True)
    for delimiter in delimiters:
        candidate = Layout(delimiter, _is_quoted(lines, delimiter))
        widths = [len(row) for row in candidate.rows(lines) if row]
        if widths and widths[0] > 1:
            score = (round(sum(width == widths[0] for width in widths) / len(widths), 1), widths[0])
            if score > best:
                best, layout = score, candidate
    return layout


def _is_quoted(lines: list[str], delimiter: str) -> bool:
    """Whether quotes enclose fields: some field is enclosed, and every quote keeps the rules of RFC 4180.

    Tab-separated values know no quotes (IANA text/tab-separated-values), so without an example they are text.
    """
    enclosed = re.compile(rf'(?:^|{re.escape(delimiter)})"[^"]*"(?:{re.escape(delimiter)}|\r?\n|$)')
    opened = any(f'{delimiter}"' in line or line.startswith('"') for line in lines)
    if not opened:
        return delimiter != "\t"
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    last = 0
    try:
        for _ in reader:
            last = reader.line_num
    except csv.Error as error:
        # The beginning of a long file may end inside a field; one that swallows a tenth of the lines is a stray quote.
        if "unexpected end" not in str(error) or reader.line_num - last > 2 + len(lines) // 10:
            return False
    return delimiter != "\t" or any(enclosed.search(line) for line in lines)


def has_header(rows: list[list[str]], asked: str | None) -> bool:
    """Whether the first row names the columns: by a usual name, or because it looks like names and the rest not."""
    rows = [row for row in rows if row]
    if not rows:
        return False
    head = [cell.strip() for cell in rows[0]]
    if asked is not None and asked in head:
        return True
    if any(cell.lower() in _KNOWN for cell in head) and len(set(head)) == len(head):
        return True
    if len(rows) < 2 or len(set(head)) < len(head) or not all(map(_IDENTIFIER.fullmatch, head)):
        return False
    columns = [[row[i] for row in rows[1:] if i < len(row)] for i in range(len(head))]
    return any(
        column and (all(map(_NUMBER.fullmatch, column)) or sum(map(len, column)) > (3 * len(head[i]) + 4) * len(column))
        for i, column in enumerate(columns)
    )


CSV = Reader(partial(read_table, delimiters=",;\t|"))
TSV = Reader(partial(read_table, delimiters="\t"))
