"""Readers: from files, folders, archives and dumps to a stream of documents.

`find` says what there is to read as independent parts, `read_part` reads one, `read` is both. A new format is one file
with a Reader and one line in READERS.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cutaway.errors import CutawayError, InputError, MissingExtra
from cutaway.text.documents import Document
from cutaway.text.readers import html, json_lines, parquet, pdf, plain, python_sources, table, warc, wiki
from cutaway.text.readers.base import Input, Limits, OnSkipped, Part, Reader, Skipped, skipped_for
from cutaway.text.readers.discover import Finder, Sources
from cutaway.text.readers.encoding import not_text
from cutaway.text.readers.streams import as_utf8, members, opened, os_errors, suffixes

__all__ = [
    "READERS",
    "Input",
    "Limits",
    "OnSkipped",
    "Part",
    "Reader",
    "Skipped",
    "Sources",
    "find",
    "read",
    "read_part",
]

READERS: dict[str, Reader] = {
    ".txt": plain.TEXT,
    ".text": plain.TEXT,
    ".log": plain.TEXT,
    ".rst": plain.TEXT,
    ".md": plain.MARKDOWN,
    ".markdown": plain.MARKDOWN,
    ".html": html.HTML,
    ".htm": html.HTML,
    ".xhtml": html.HTML,
    ".pdf": pdf.PDF,
    ".csv": table.CSV,
    ".tsv": table.TSV,
    ".jsonl": json_lines.LINES,
    ".ndjson": json_lines.LINES,
    ".json": json_lines.JSON,
    ".parquet": parquet.PARQUET,
    ".warc": warc.WARC,
    ".wet": warc.WARC,
    ".xml": wiki.WIKI,
    python_sources.NAME: python_sources.TOPICS,
    **dict.fromkeys(plain.CODE_SUFFIXES, plain.CODE),
}
"""Suffix, lower case with its dot -> reader. Compression (.gz .bz2 .xz .zst) comes after it, as in "a.jsonl.zst"."""

_OPENINGS = {b"%PDF-": ".pdf", b"PAR1": ".parquet", b"WARC/": ".warc", b"<!doctype html": ".html", b"<html": ".html"}


def read(
    sources: Sources,
    *,
    column: str | None = None,
    also: Sequence[str] = (),
    skipped: OnSkipped | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> Iterator[Document]:
    """Every document of files and folders, one after the other, in constant memory.

    Args:
        sources: a path or several; "python:" stands for the standard library's sources and help of this Python.
        column: the column or field of tables and JSON that holds the text; without it, `columns.choose` finds it.
        also: further columns, to be kept in each Document's meta under their names; a row without a value has none.
        skipped: called for everything that is left out or read with a loss. Failures in files that you name are errors,
            failures in files found in a folder or an archive come here.
        limits: what compressed files may unfold to.

    Raises:
        InputError: a path does not exist, is empty, binary or unreadable; nothing to read at all.
        DamagedFile: a file is not what its name says, or cut short.
        ConfigError: there is no such column.
        MissingExtra: the format needs an optional library.
    """
    first: list[Skipped] = []

    def note(item: Skipped) -> None:
        if len(first) < 3:
            first.append(item)
        if skipped:
            skipped(item)

    count = 0
    for part in find(sources, skipped=note, limits=limits):
        for document in read_part(part, column=column, also=also, skipped=note, limits=limits):
            count += 1
            yield document
    if not count:
        reasons = "; ".join(f"{item.source}: {item.reason}" for item in first)
        raise InputError(f"there is no text in {_listed(sources)}" + (f" ({reasons})" if reasons else ""))


def find(
    sources: Sources,
    *,
    skipped: OnSkipped | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> list[Part]:
    """What there is to read, in order, as parts that any process can read by itself; long files are divided.

    Raises:
        InputError: as `read`, as far as it shows without reading.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    finder = Finder(READERS, limits, skipped)
    parts = [part for source in given for part in finder.source(source, only=len(given) == 1)]
    if not parts:
        reasons = "; ".join(f"{item.source}: {item.reason}" for item in finder.skipped)
        raise InputError(f"there is nothing to read in {_listed(sources)}" + (f" ({reasons})" if reasons else ""))
    return parts


def read_part(
    part: Part,
    *,
    column: str | None = None,
    also: Sequence[str] = (),
    skipped: OnSkipped | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> Iterator[Document]:
    """The documents of one part. Arguments and errors as in `read`."""
    try:
        with os_errors(part.name):
            if part.suffix == ".zip":
                yield from _archive(part, column, tuple(also), limits, skipped)
            else:
                with opened(part, limits) as stream:
                    source = Input(part.name, stream, part, column, limits, skipped, tuple(also))
                    yield from _documents(source, part.suffix)
    except CutawayError as error:
        if part.asked or isinstance(error, MissingExtra):
            raise
        if skipped:
            skipped(skipped_for(part.name, error))


def _archive(
    part: Part, column: str | None, also: tuple[str, ...], limits: Limits, skipped: OnSkipped | None
) -> Iterator[Document]:
    """The documents of a zip's members; one that cannot be read is reported, and the others go on."""
    for name, stream, problem in members(part, limits):
        suffix = suffixes(name)[0]
        try:
            if stream is None:
                raise InputError(problem)
            member = replace(part, name=name, start=0, stop=None)
            source = Input(name, stream, member, column, limits, skipped, also)
            yield from _documents(source, suffix if suffix in READERS else "")
        except MissingExtra:
            raise
        except CutawayError as error:
            if skipped:
                skipped(skipped_for(name, error))


def _documents(source: Input, suffix: str) -> Iterator[Document]:
    """The documents of an open input, by its suffix or, without a known one, by how it begins."""
    head = source.stream.peek(1)[:8192]
    if not head:
        source.report("empty")
        return
    if not suffix:
        start = head[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        suffix = next((found for magic, found in _OPENINGS.items() if start.startswith(magic.lower())), ".txt")
    reader = READERS[suffix]
    if not reader.binary:
        stream = as_utf8(source.stream)
        source = replace(source, stream=stream)
        if problem := not_text(stream.peek(1)[:8192]):
            raise InputError(f"{source.name} is not text: it is {problem}")
    yield from reader.read(source)


def _listed(sources: Sources) -> str:
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    return ", ".join(map(str, given[:3])) + (" …" if len(given) > 3 else "") or "an empty list of sources"
