"""What an index keeps of documents: their text, where it came from, and where the passages stand.

texts.bin        the documents' texts in UTF-8, one behind the other
documents.jsonl  of each document its source, its file, its title, and its bytes in texts.bin
passages.npy     (N, 3) int64: document, first character, last-but-one
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from cutaway.errors import DamagedFile
from cutaway.files import inside

TEXTS, DOCUMENTS, PASSAGES = "texts.bin", "documents.jsonl", "passages.npy"


@dataclass(frozen=True)
class Document:
    """A document of an index.

    Attributes:
        source: readable and unique, such as "docs/guide.md" or "faq.csv:17".
        file: that it was read from.
        title: as the file says it; "": it does not.
        begin: its first byte in texts.bin.
        end: behind its last.
    """

    source: str
    file: str
    title: str
    begin: int
    end: int


@dataclass
class Store:
    """Documents and their passages.

    Attributes:
        folder: where the texts lie.
        documents: in the order of their files.
        passages: (N, 3) int64, in the order of the documents.
        texts: the bytes of texts.bin, mapped: they stay those of these documents when the folder is replaced.
    """

    folder: Path
    documents: list[Document]
    passages: Int64[np.ndarray, "N 3"]
    texts: mmap.mmap | bytes
    _last: tuple[int, str] = field(default=(-1, ""), repr=False)

    @cached_property
    def of_file(self) -> dict[str, list[int]]:
        """The documents of each file."""
        found: dict[str, list[int]] = {}
        for number, document in enumerate(self.documents):
            found.setdefault(document.file, []).append(number)
        return found

    def text(self, number: int) -> str:
        """All of a document."""
        last = self._last  # threads may ask at once
        if last[0] != number:
            self._last = last = number, self._read(number)
        return last[1]

    def _read(self, number: int) -> str:
        document = self.documents[number]
        try:
            return self.texts[document.begin : document.end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedFile(
                f"{self.folder / TEXTS} does not hold {document.source}; build the index again"
            ) from error

    def passage(self, number: int) -> str:
        """What a passage says."""
        document, start, end = self.passages[number].tolist()
        return self.text(document)[start:end]

    def all_passages(self) -> Iterator[str]:
        """What each passage says, in order."""
        return map(self.passage, range(len(self.passages)))


class StoreWriter:
    """Writes the files of a store into a folder, document after document.

    Args:
        folder: that exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.documents = folder, list[Document]()
        self._passages: list[tuple[int, int, int]] = []
        self._file = (folder / TEXTS).open("wb")

    def add(self, source: str, file: str, title: str, text: str, passages: Sequence[tuple[int, int]]) -> None:
        """One more document."""
        begin = self._file.tell()
        self._file.write(text.encode("utf-8"))
        number = len(self.documents)
        self.documents.append(Document(source, file, title, begin, self._file.tell()))
        self._passages += [(number, start, end) for start, end in passages]

    def close(self) -> Store:
        """Write what is left; the store."""
        self._file.close()
        passages = np.array(self._passages, np.int64).reshape(-1, 3)
        np.save(self.folder / PASSAGES, passages, allow_pickle=False)
        lines = [json.dumps(asdict(document), ensure_ascii=False) + "\n" for document in self.documents]
        (self.folder / DOCUMENTS).write_text("".join(lines), "utf-8", newline="\n")
        return Store(self.folder, self.documents, passages, _mapped(self.folder / TEXTS))


def load_store(folder: Path) -> Store:
    """Read what a writer wrote.

    Raises:
        DamagedFile: it is not that.
    """
    try:
        documents = [
            Document(**json.loads(line)) for line in inside(folder, DOCUMENTS).read_text("utf-8").split("\n")[:-1]
        ]
        passages, texts = load_array(folder, PASSAGES, np.int64, 2), _mapped(inside(folder, TEXTS))
        if passages.shape[1] != 3:
            raise ValueError(f"passages of shape {passages.shape}")
        if len(passages) and not (passages.min() >= 0 and passages[:, 0].max() < len(documents)):
            raise ValueError("passages of documents that are not there")
        if (np.diff(passages[:, 0]) < 0).any():
            raise ValueError("passages in no order")
        for one in documents:
            words = (one.source, one.file, one.title)
            whole = type(one.begin) is int and type(one.end) is int
            if not (all(isinstance(word, str) for word in words) and whole and 0 <= one.begin <= one.end <= len(texts)):
                raise ValueError(f"a document that is none: {one}")
    except (OSError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(f"the documents in {folder} cannot be read ({error}); build the index again") from error
    return Store(folder, documents, passages, texts)


def load_array(folder: Path, name: str, dtype: Any, dims: int) -> np.ndarray:
    """An array of an index, mapped: it is no larger than its bytes, whatever its head says.

    Raises:
        DamagedFile: it is none, of another type or of other dimensions, or a link to another place.
    """
    path = inside(folder, name)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy's own: of many kinds, with all of the head in their words
        raise DamagedFile(f"{path} is no array that can be read; build the index again") from error
    if array.dtype != dtype or array.ndim != dims:
        raise DamagedFile(f"{path} holds another kind of numbers than an index does; build the index again")
    return array


def _mapped(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
