"""Parquet, by pyarrow: one document per row, read row group by row group."""

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cutaway.errors import DamagedFile, InputError, need
from cutaway.text.documents import Document
from cutaway.text.readers.base import MB, Input, Part, Reader
from cutaway.text.readers.columns import SAMPLE, about, choose
from cutaway.text.readers.plain import PART
from cutaway.text.readers.streams import suffixes

_ROWS = 32  # rows decoded at once: a few bytes of dictionary may stand for a text of megabytes in each of them


def read_parquet(source: Input) -> Iterator[Document]:
    """A document per row, named "file:row" counted from 1 over the whole file.

    Raises:
        DamagedFile: not Parquet, or damaged.
        ConfigError, InputError: as `choose`; or the rows unfold to more than the limits allow.
        MissingExtra: pyarrow is not installed.
    """
    suffix, packing = suffixes(source.part.path)
    packed = packing or suffix == ".zip"  # Parquet is read from its end, which a stream has not
    file = _open(io.BytesIO(source.whole()) if packed else source.part.path, source.name)
    try:
        column = _choose(file, source.column or source.part.column or None, source.name)
        texts = [name for name in file.schema_arrow.names if _is_text(file, name) or name in source.also]
        others = about(texts, column, source.also, source.name)
        groups = range(file.num_row_groups)[source.part.start : source.part.stop]
        row = sum(file.metadata.row_group(group).num_rows for group in range(source.part.start))
        size, allowed, empty = 0, source.limits.allowed(source.part.size), 0
        if sum(file.metadata.row_group(group).total_byte_size for group in groups) > allowed:
            raise InputError(_too_much(source.name, allowed))
        for batch in file.iter_batches(_ROWS, row_groups=list(groups), columns=[column, *others]):
            texts = batch.column(column).to_pylist()
            metas = {key: batch.column(name).to_pylist() for name, key in others.items()}
            for index, text in enumerate(texts):
                row += 1
                if not text or not text.strip():
                    empty += 1
                    continue
                meta = {key: str(values[index]) for key, values in metas.items() if values[index] not in (None, "")}
                size += len(text)
                if size > allowed:
                    raise InputError(_too_much(source.name, allowed))
                yield Document(text, f"{source.name}:{row}", meta)
    except (OSError, UnicodeDecodeError, _arrow_error()) as error:
        raise DamagedFile(f"{source.name} is damaged ({error}); fetch it again") from error
    if empty:
        source.report(f"{empty:,} rows have no text in {column!r}", read=True)


def _too_much(name: str, allowed: int) -> str:
    return (
        f"{name} unfolds to more than {allowed / MB:,.0f} MB, far more than a text of its size (a decompression bomb?)"
    )


def _open(where: Any, name: str) -> Any:
    """A pyarrow ParquetFile."""
    parquet = need("pyarrow.parquet", "documents", "reading Parquet")
    try:
        return parquet.ParquetFile(where)
    except (OSError, UnicodeDecodeError, _arrow_error()) as error:
        raise DamagedFile(f"{name} is not a Parquet file, or a damaged one ({error})") from error


def _arrow_error() -> type[Exception]:
    return need("pyarrow", "documents", "reading Parquet").ArrowException


def _is_text(file: Any, name: str) -> bool:
    """Whether a column holds strings, plain or in a dictionary."""
    types = need("pyarrow", "documents", "reading Parquet").types
    kind = file.schema_arrow.field(name).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _choose(file: Any, asked: str | None, name: str) -> str:
    """The text column, by the first rows."""
    texts = [column for column in file.schema_arrow.names if _is_text(file, column)]
    if asked is not None and asked in file.schema_arrow.names and asked not in texts:
        raise InputError(f"the column {asked!r} of {name} is {file.schema_arrow.field(asked).type}, not text")
    if asked is None and len(texts) > 1:
        batch = next(file.iter_batches(SAMPLE, columns=texts), None)
        samples = {column: [v for v in batch.column(column).to_pylist() if v] if batch else [] for column in texts}
    else:
        samples = {column: [] for column in texts}
    return choose(file.schema_arrow.names if asked else texts, samples, asked, name)


def split(part: Part) -> list[Part]:
    """Consecutive row groups, about PART bytes of them together."""
    file = _open(part.path, part.name)
    sizes = [file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)]
    bounds, weight = [0], 0
    for group, size in enumerate(sizes):
        if weight and weight + size > PART:
            bounds.append(group)
            weight = 0
        weight += size
    if len(bounds) == 1:
        return [part]
    ranges = list(zip(bounds, [*bounds[1:], len(sizes)], strict=True))
    share = part.size / max(1, sum(sizes))
    return [replace(part, start=a, stop=b, size=int(share * sum(sizes[a:b]))) for a, b in ranges]


PARQUET = Reader(read_parquet, split, binary=True)
