"""Write a token store (its layout is told in store.py)."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import numpy as np

from cutaway.errors import ConfigError
from cutaway.files import atomic_folder, disk_errors, write_atomic, write_json
from cutaway.settings import to_dict
from cutaway.tokenizers.tokenizer import Tokenizer

FORMAT = 1
STORE_JSON = "store.json"
SHARD_TOKENS = 2**26
SPLIT_NAME = re.compile(r"[A-Za-z0-9_]{1,64}\Z")


@dataclass(frozen=True)
class SplitInfo:
    """What store.json says about a split."""

    tokens: int  # end_of_text included
    documents: int
    text_bytes: int  # UTF-8 bytes of the documents
    shards: int


@dataclass(frozen=True)
class StoreInfo:
    """store.json.

    Attributes:
        kind: "texts": documents; "pairs": a document and the next are a source and its target; "labels": every document
            has a label.
    """

    format: int
    dtype: str  # "uint16" or "uint32"
    shard_tokens: int
    end_of_text: int
    fingerprint: str  # of the tokenizer
    splits: dict[str, Any]  # name -> SplitInfo
    kind: Literal["texts", "pairs", "labels"] = "texts"
    labels: tuple[str, ...] = ()  # what the numbers in .labels stand for


class StoreWriter:
    """Write a token store, whole or not at all: the folder appears when `close` has checked and synced everything.

    As a context manager it closes at the end of the block, and leaves nothing behind after an exception.
    """

    def __init__(
        self,
        folder: str | Path,
        tokenizer: Tokenizer,
        *,
        kind: Literal["texts", "pairs", "labels"] = "texts",
        shard_tokens: int = SHARD_TOKENS,
    ) -> None:
        """Begin.

        Args:
            folder: where; a store that is there already is replaced at the end.
            tokenizer: what made the ids.
            kind: as in StoreInfo.
            shard_tokens: the length of a shard.

        Raises:
            ConfigError: the tokenizer has no end_of_text, which stands between documents.
            InputError: the place cannot be written.
        """
        if tokenizer.end_of_text is None:
            raise ConfigError(f"{tokenizer} has no token that ends a text; name its eos_token in tokenizer_config.json")
        if shard_tokens < 1:
            raise ConfigError(f"shard_tokens must be at least 1, not {shard_tokens}")
        self.folder = Path(folder)
        self._tokenizer = tokenizer
        self._kind: Literal["texts", "pairs", "labels"] = kind
        self._labels: dict[str, int] = {}  # as they come
        self._end = np.array([tokenizer.end_of_text], tokenizer.dtype)
        self._shard_tokens = shard_tokens
        self._splits: dict[str, _SplitWriter] = {}
        self._stack = ExitStack()
        self._stack.enter_context(disk_errors(self.folder))
        self._room = self._stack.enter_context(atomic_folder(self.folder))

    def add(self, split: str, ids: np.ndarray, *, source: str, text_bytes: int, label: str | None = None) -> None:
        """Append a document; end_of_text is added after it.

        Args:
            split: "train", "valid" …; letters, digits and underscores.
            ids: (T,) integers of the tokenizer.
            source: where the document came from.
            text_bytes: the length of its text in UTF-8.
            label: of the document, in a store of labels.

        Raises:
            ConfigError: the split's name will not do, an id is outside the vocabulary, or a label is missing or too
                many.
            InputError: the disk is full.
        """
        writer = self._splits.get(split)
        if writer is None:
            if not SPLIT_NAME.match(split):
                raise ConfigError(f"a split's name has letters, digits and underscores, at most 64, not {split!r}")
            writer = self._splits[split] = _SplitWriter(self._room, split, self._shard_tokens, self._end)
            self._stack.callback(writer.stop)
        ids = np.asarray(ids)
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self._tokenizer.vocab_size:
            raise ConfigError(
                f"{source}: ids must lie in 0 … {self._tokenizer.vocab_size - 1}, "
                f"but {ids.min()} … {ids.max()} was given"
            )
        if (label is not None) != (self._kind == "labels"):
            raise ConfigError(f"{source}: a store of {self._kind} takes {'a' if label is None else 'no'} label")
        writer.add(ids.astype(self._end.dtype, copy=False), source, text_bytes)
        if label is not None:
            writer.labels.append(self._labels.setdefault(label, len(self._labels)))

    def attach(self, name: str, text: str) -> None:
        """Put one more text file into the folder, under the same checksums (a report, the settings)."""
        write_atomic(self._room / name, text)

    def close(self) -> None:
        """Write what is left, the checksums last, and put the folder in its place.

        Raises:
            InputError: the disk is full.
        """
        with self._stack:
            self._tokenizer.save(self._room)
            labels = sort_labels(self._labels)
            if self._kind == "labels":
                place = {label: number for number, label in enumerate(labels)}
                places = np.array([place[label] for label in self._labels], "<i4")
                for writer in self._splits.values():
                    writer.write_labels(places)
            info = StoreInfo(
                format=FORMAT,
                dtype=self._end.dtype.name,
                shard_tokens=self._shard_tokens,
                end_of_text=int(self._end[0]),
                fingerprint=self._tokenizer.fingerprint,
                splits={name: to_dict(writer.close()) for name, writer in self._splits.items()},
                kind=self._kind,
                labels=tuple(labels),
            )
            record = to_dict(info)
            if self._kind == "texts":  # as it was before there were others
                del record["kind"], record["labels"]
            write_json(self._room / STORE_JSON, record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
        else:
            self._stack.__exit__(kind, error, trace)


class _SplitWriter:
    """The open files of one split."""

    def __init__(self, room: Path, name: str, shard_tokens: int, end: np.ndarray) -> None:
        self._room, self._name, self._shard_tokens, self._end = room, name, shard_tokens, end
        self._documents = (room / f"{name}.documents").open("wb")
        self._sources = (room / f"{name}.sources").open("wb")
        self._shard: BinaryIO | None = None
        self.labels = array("i")
        self._tokens = self._count = self._bytes = self._shards = 0

    def add(self, ids: np.ndarray, source: str, text_bytes: int) -> None:
        self._documents.write(np.array([self._tokens, self._sources.tell()], "<i8").tobytes())
        self._sources.write(json.dumps(source).encode() + b"\n")
        self._append(ids)
        self._append(self._end)
        self._count += 1
        self._bytes += text_bytes

    def _append(self, ids: np.ndarray) -> None:
        while len(ids):
            if self._shard is None:
                self._shard = (self._room / shard_name(self._name, self._shards)).open("wb")
                self._shards += 1
            room = self._shards * self._shard_tokens - self._tokens
            part, ids = ids[:room], ids[room:]
            self._shard.write(part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes())
            self._tokens += len(part)
            if len(part) == room:
                self._shard.close()
                self._shard = None

    def write_labels(self, places: np.ndarray) -> None:
        """Write the number of each document's label, which has its place in the order of labels."""
        (self._room / f"{self._name}.labels").write_bytes(places[np.array(self.labels, np.int64)].tobytes())

    def stop(self) -> None:
        for file in (self._documents, self._sources, self._shard):
            if file is not None:
                file.close()

    def close(self) -> SplitInfo:
        self.stop()
        return SplitInfo(self._tokens, self._count, self._bytes, self._shards)


def sort_labels(labels: Iterable[str]) -> list[str]:
    """By value where all are numbers, else as words."""
    try:
        return sorted(labels, key=float)
    except ValueError:
        return sorted(labels)


def shard_name(split: str, number: int) -> str:
    """The file of a shard."""
    return f"{split}-{number:05d}.tokens"
