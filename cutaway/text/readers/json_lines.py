"""JSON Lines and JSON arrays (RFC 8259): one document per record, by the field that holds the text."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from cutaway.errors import DamagedFile, InputError
from cutaway.text.documents import Document
from cutaway.text.readers.base import MB, Input, Limits, Part, Reader
from cutaway.text.readers.columns import SAMPLE, about, choose
from cutaway.text.readers.encoding import Decoder, encodable
from cutaway.text.readers.plain import blocks
from cutaway.text.readers.plain import split as split_lines
from cutaway.text.readers.streams import opened

_NOTHING = (None, "", [], {})  # 0 and false are something
_BAD = (ValueError, RecursionError)  # json raises the latter for brackets nested thousands deep


def read_lines(source: Input) -> Iterator[Document]:
    """A document per line, named "file:line"; in a part of a long file "file@offset:line", lines counted from there.

    Raises:
        DamagedFile: not one line is JSON.
        ConfigError, InputError: as `choose`.
    """
    decode, broken = Decoder(source.name), []
    records = _lines((decode(block) for _, block in blocks(source)), broken)
    prefix = source.name if source.part.whole else f"{source.name}@{source.part.start}"
    count = 0
    for count, document in enumerate(documents(records, source, prefix), 1):  # noqa: B007  # used after the loop
        yield replace(document, meta={**document.meta, **decode.meta}) if decode.meta else document
    if broken and not count:
        raise DamagedFile(f"{source.name}: not one line is a JSON record with text; is it JSON Lines?")
    if broken:
        source.report(f"{len(broken):,} lines are not JSON, the first is line {broken[0]}", read=True)
    if decode.loss:
        source.report(decode.loss, read=True)


def _lines(texts: Iterable[str], broken: list[int]) -> Iterator[tuple[int, Any]]:
    """Each line's number and value; the numbers of lines that are not JSON go into `broken`."""
    number = 0
    for text in texts:
        for line in text.removesuffix("\n").split("\n"):
            number += 1
            try:
                yield number, json.loads(line.removeprefix("\ufeff"))
            except _BAD:
                if line.strip():
                    broken.append(number)


def documents(records: Iterable[tuple[int, Any]], source: Input, prefix: str) -> Iterator[Document]:
    """The documents of numbered records, each a string or an object with a field of text."""
    records = iter(records)
    sample = list(islice(records, SAMPLE))
    agreed = source.part.column if source.column is None else ""
    column = agreed or find_field((value for _, value in sample), source.column, source.name)
    keys: dict[str, str] = {}
    empty = 0
    for number, value in chain(sample, records):
        text, meta = value, {}
        if isinstance(value, dict):
            text = value.get(column)
            if not keys or value.keys() - keys.keys():
                keys = dict.fromkeys(value, "") | about([*value, *source.also], column, source.also)
            meta = {key: str(value[name]) for name, key in keys.items() if key and value.get(name) not in _NOTHING}
        if isinstance(text, str) and text.strip():
            yield Document(encodable(text), f"{prefix}:{number}", meta)
        else:
            empty += 1
    if empty:
        source.report(f"{empty:,} records have no text" + (f" in {column!r}" if column else ""), read=True)


def find_field(values: Iterable[Any], asked: str | None, name: str) -> str:
    """The field that holds the text; "" where the records are strings."""
    values = list(values)
    if asked is None and (not values or any(isinstance(value, str) for value in values)):
        return ""
    names = {key: None for value in values if isinstance(value, dict) for key in value}
    samples = {
        key: texts
        for key in names
        if (texts := [v[key] for v in values if isinstance(v, dict) and isinstance(v.get(key), str)])
    }
    return choose(names, samples, asked, name)


def split(part: Part) -> list[Part]:
    """Divide a long file at line ends; the field is chosen once, so that all parts agree."""
    parts = split_lines(part)
    if len(parts) == 1:
        return parts
    with opened(part, Limits()) as stream:
        values = [value for _, value in islice(_lines([_beginning(stream.read(MB))], []), SAMPLE)]
    try:
        column = find_field(values, None, part.name)
    except InputError:
        return parts  # reading says so, or the user names the field
    return [replace(p, column=column) for p in parts]


def _beginning(data: bytes) -> str:
    """The whole lines of the first bytes of a file."""
    return data[: data.rfind(b"\n") + 1].decode("utf-8", "replace")


def read_json(source: Input) -> Iterator[Document]:
    """An array of records, one object with text, one object that holds such an array, or JSON Lines under a plain name.

    Raises:
        DamagedFile: not JSON.
        InputError: JSON without text.
    """
    head = source.stream.peek(1).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"{") and _is_json(head.partition(b"\n")[0]) and head.partition(b"\n")[2].lstrip()[:1] == b"{":
        yield from read_lines(source)
        return
    decode = Decoder(source.name)
    if head.startswith(b"["):
        yield from documents(enumerate(_elements(source, decode), 1), source, source.name)
    else:
        try:
            value = json.loads(decode(source.whole()).removeprefix("\ufeff"))
        except _BAD as error:
            raise DamagedFile(f"{source.name} is not valid JSON ({error})") from error
        inner = [v for v in value.values() if isinstance(v, list)] if isinstance(value, dict) else []
        lists = [v for v in inner if v and all(isinstance(item, dict | str) for item in v)]
        column = "" if lists else find_field([value], source.column, source.name)
        if column and isinstance(value[column], str):
            others = about(list(value), column, source.also, source.name)
            meta = {key: str(value[name]) for name, key in others.items() if value[name] not in _NOTHING}
            yield Document(encodable(value[column]), source.name, meta)
        elif lists:
            yield from documents(enumerate(max(lists, key=len), 1), source, source.name)
        else:
            raise InputError(f"{source.name} is JSON without a list of texts or an object with a field of text")
    if decode.loss:
        source.report(decode.loss, read=True)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except _BAD:
        return False
    return True


def _elements(source: Input, decode: Decoder) -> Iterator[Any]:
    """The elements of an array that may be longer than memory."""
    scan = json.JSONDecoder().raw_decode
    texts = (decode(block) for _, block in blocks(source, _comma_or_line, size=MB))
    buffer, place, size = next(texts, "").removeprefix("\ufeff").lstrip()[1:], 0, MB
    while True:
        while place < len(buffer) and buffer[place] in " \t\r\n,":
            place += 1
        if buffer[place : place + 1] == "]":
            return
        try:
            value, end = scan(buffer, place)
            if end == len(buffer) and isinstance(value, int | float):
                raise ValueError("the number may go on")
        except _BAD as error:
            more = list(islice(texts, max(1, size // MB)))  # twice as much every time, so that the work stays linear
            if not more or len(buffer) - place > source.limits.document:
                raise DamagedFile(f"{source.name} is not valid JSON, or cut short ({error})") from error
            buffer, place, size = buffer[place:] + "".join(more), 0, 2 * size
            continue
        yield value
        place = end
        if place > 4 * MB:
            buffer, place, size = buffer[place:], 0, MB


def _comma_or_line(block: bytes) -> int:
    """Where a block of JSON may be cut without cutting a character: after the last comma or line."""
    return max(block.rfind(b","), block.rfind(b"\n"), block.rfind(b" ")) + 1


LINES = Reader(read_lines, split)
JSON = Reader(read_json)
