"""The token store: a prepared corpus on disk, ready for training.

A folder of raw little-endian numbers that are mapped into memory, never read whole:

    store.json               format, dtype, and for each split its tokens, documents, bytes of text and shards
    tokenizer.json           what the ids mean
    train-00000.tokens …     ids; every document is followed by end_of_text; shards are cut anywhere, all but the last full
    train.documents          two int64 per document: its first token, and where its line in train.sources begins
    train.sources            where each document came from, a JSON string a line
    manifest.json            SHA-256 and size of every file

A split is a ring: after the last document comes the first. So every window is whole, every token is once a target, and
the first token's context is the end of a text, as for every other document.

Shapes: B batch, T tokens (the context).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from cutaway.errors import ConfigError, DamagedFile, InputError, unknown
from cutaway.files import atomic_folder, disk_errors, read_json, write_atomic, write_json
from cutaway.files import verify as verify_folder
from cutaway.settings import build, to_dict
from cutaway.tokenizers.load import load_tokenizer
from cutaway.tokenizers.order import keys, permute
from cutaway.tokenizers.tokenizer import Tokenizer

FORMAT = 1
STORE_JSON = "store.json"
SHARD_TOKENS = 2**26
IGNORE = -100  # a target that counts for nothing, as in torch's cross_entropy
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}\Z")


@dataclass(frozen=True)
class SplitInfo:
    """What store.json says about a split."""

    tokens: int  # end_of_text included
    documents: int
    text_bytes: int  # UTF-8 bytes of the documents
    shards: int


@dataclass(frozen=True)
class StoreInfo:
    """store.json."""

    format: int
    dtype: str  # "uint16" or "uint32"
    shard_tokens: int
    end_of_text: int
    fingerprint: str  # of the tokenizer
    splits: dict[str, Any]  # name -> SplitInfo


class StoreWriter:
    """Write a token store, whole or not at all: the folder appears when `close` has checked and synced everything.

    As a context manager it closes at the end of the block, and leaves nothing behind after an exception.
    """

    def __init__(self, folder: str | Path, tokenizer: Tokenizer, *, shard_tokens: int = SHARD_TOKENS) -> None:
        """Begin.

        Args:
            folder: where; a store that is there already is replaced at the end.
            tokenizer: what made the ids.
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
        self._end = np.array([tokenizer.end_of_text], tokenizer.dtype)
        self._shard_tokens = shard_tokens
        self._splits: dict[str, _SplitWriter] = {}
        self._stack = ExitStack()
        self._stack.enter_context(disk_errors(self.folder))
        self._room = self._stack.enter_context(atomic_folder(self.folder))

    def add(self, split: str, ids: np.ndarray, *, source: str, text_bytes: int) -> None:
        """Append a document; end_of_text is added after it.

        Args:
            split: "train", "valid" …; letters, digits and underscores.
            ids: (T,) integers of the tokenizer.
            source: where the document came from.
            text_bytes: the length of its text in UTF-8.

        Raises:
            ConfigError: the split's name will not do, or an id is outside the vocabulary.
            InputError: the disk is full.
        """
        writer = self._splits.get(split)
        if writer is None:
            if not _NAME.match(split):
                raise ConfigError(f"a split's name has letters, digits and underscores, at most 64, not {split!r}")
            writer = self._splits[split] = _SplitWriter(self._room, split, self._shard_tokens, self._end)
        ids = np.asarray(ids)
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self._tokenizer.vocab_size:
            raise ConfigError(
                f"{source}: ids must lie in 0 … {self._tokenizer.vocab_size - 1}, but {ids.min()} … {ids.max()} was given"
            )
        writer.add(ids.astype(self._end.dtype, copy=False), source, text_bytes)

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
            info = StoreInfo(
                format=FORMAT,
                dtype=self._end.dtype.name,
                shard_tokens=self._shard_tokens,
                end_of_text=int(self._end[0]),
                fingerprint=self._tokenizer.fingerprint,
                splits={name: to_dict(writer.close()) for name, writer in self._splits.items()},
            )
            write_json(self._room / STORE_JSON, to_dict(info))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
            return
        for writer in self._splits.values():
            writer.stop()
        self._stack.__exit__(kind, error, trace)


class _SplitWriter:
    """The open files of one split."""

    def __init__(self, room: Path, name: str, shard_tokens: int, end: np.ndarray) -> None:
        self._room, self._name, self._shard_tokens, self._end = room, name, shard_tokens, end
        self._documents = (room / f"{name}.documents").open("wb")
        self._sources = (room / f"{name}.sources").open("wb")
        self._shard: BinaryIO | None = None
        self._tokens = self._count = self._bytes = self._shards = 0

    def add(self, ids: np.ndarray, source: str, text_bytes: int) -> None:
        line = json.dumps(source).encode() + b"\n"
        self._documents.write(np.array([self._tokens, self._sources.tell()], "<i8").tobytes())
        self._sources.write(line)
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

    def stop(self) -> None:
        for file in (self._documents, self._sources, self._shard):
            if file is not None:
                file.close()

    def close(self) -> SplitInfo:
        self.stop()
        return SplitInfo(self._tokens, self._count, self._bytes, self._shards)


class TokenStore:
    """A prepared corpus: `store["train"]` is a TokenSplit.

    Attributes:
        folder: where it lies.
        tokenizer: what the ids mean.
        splits: name -> TokenSplit.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, splits: dict[str, TokenSplit]) -> None:
        self.folder = folder
        self.tokenizer = tokenizer
        self.splits = splits

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> TokenStore:
        """Open a store.

        Args:
            folder: as StoreWriter or `cutaway prepare` wrote it.
            verify: compare every file with its checksum (a gigabyte takes about a second).

        Raises:
            InputError: no store there.
            DamagedFile: a file is missing or changed; names it.
            ConfigError: made by another version.
        """
        folder = Path(folder)
        if not (folder / STORE_JSON).is_file():
            raise InputError(
                f"{folder} is no token store (it has no {STORE_JSON}); make one with: cutaway prepare TEXTS --out {folder}"
            )
        raw = read_json(folder / STORE_JSON)
        if verify:
            verify_folder(folder, only=STORE_JSON)
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            given = raw.get("format") if isinstance(raw, dict) else None
            raise ConfigError(
                f"{folder} was made by another version of Cutaway (store format {given!r}, this one reads {FORMAT}); "
                "prepare the texts again with: cutaway prepare"
            )
        if verify:
            verify_folder(folder)
        info = build(StoreInfo, raw, where=str(folder / STORE_JSON))
        tokenizer = load_tokenizer(folder)
        if tokenizer.fingerprint != info.fingerprint:
            raise DamagedFile(
                f"{folder / 'tokenizer.json'} is not the tokenizer that made this store; prepare the texts again"
            )
        splits = {}
        for name, entry in info.splits.items():
            split = build(SplitInfo, entry, where=f"{folder / STORE_JSON}, split {name}")
            splits[name] = TokenSplit(folder, name, split, info)
        return cls(folder, tokenizer, splits)

    @classmethod
    def from_texts(cls, texts: Mapping[str, Sequence[str]], tokenizer: Tokenizer, folder: str | Path) -> TokenStore:
        """A store of texts in memory, for a notebook or a test: {"train": [...], "valid": [...]}."""
        with StoreWriter(folder, tokenizer) as writer:
            for split, documents in texts.items():
                for number, (text, ids) in enumerate(zip(documents, tokenizer.encode_bulk(documents), strict=True)):
                    writer.add(split, ids, source=f"{split}:{number}", text_bytes=len(text.encode()))
        return cls.open(folder)

    def __getitem__(self, split: str) -> TokenSplit:
        if split not in self.splits:
            raise ConfigError(unknown(f"split of {self.folder}", split, self.splits))
        return self.splits[split]


class TokenSplit:
    """One split of a store.

    Attributes:
        name: "train", "valid" …
        tokens: how many, end_of_text included.
        bytes: UTF-8 bytes of the text that the tokens spell.
        documents: how many.
    """

    def __init__(self, folder: Path, name: str, info: SplitInfo, store: StoreInfo) -> None:
        if not _NAME.match(name) or store.dtype not in ("uint16", "uint32") or store.shard_tokens < 1:
            raise DamagedFile(f"{folder / STORE_JSON} does not describe a token store; prepare the texts again")
        self.name = name
        self.folder = folder
        self.tokens, self.bytes, self.documents = info.tokens, info.text_bytes, info.documents
        self._end = store.end_of_text
        self._shard_tokens = store.shard_tokens
        dtype = np.dtype(store.dtype).newbyteorder("<")
        full = [store.shard_tokens] * (info.shards - 1) + [info.tokens - store.shard_tokens * (info.shards - 1)] * bool(
            info.shards
        )
        self._shards = [_mapped(folder / shard_name(name, n), dtype, size) for n, size in enumerate(full)]
        # first token and source line of each document
        self._documents = _mapped(folder / f"{name}.documents", np.dtype("<i8"), 2 * info.documents).reshape(-1, 2)

    def __repr__(self) -> str:
        return f"TokenSplit({self.name}: {self.tokens:,} tokens, {self.documents:,} documents, {self.bytes:,} bytes)"

    def window(self, start: int, length: int) -> np.ndarray:
        """`length` ids from `start` on, (length,) int64. After the last token comes the first."""
        out = np.empty(length, np.int64)
        self._copy(start % self.tokens, out)
        return out

    def _copy(self, start: int, out: np.ndarray) -> None:
        """Fill `out` with the ids from `start` on."""
        done = 0
        while done < len(out):
            number, offset = divmod((start + done) % self.tokens, self._shard_tokens)
            part = self._shards[number][offset : offset + len(out) - done]
            out[done : done + len(part)] = part
            done += len(part)

    def batch(
        self, step: int, *, seed: int, batch: int, context: int, rank: int = 0, world: int = 1
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The batch of a step: a pure function of (seed, step) and the shape.

        An epoch goes through all `tokens // context` windows in an order of its own, and the windows begin at another
        offset each time. With several processes each gets its share of the rows; one after another they are the batch.

        Args:
            step: 0, 1, 2 …
            seed: any integer.
            batch: rows over all processes.
            context: T.
            rank: which process this is.
            world: how many processes there are; must divide `batch`.

        Returns:
            ids (B, T) int64, targets (B, T) int64 (the ids one further on), starts (B,) int64 (each row's first token).

        Raises:
            InputError: the split is shorter than one window.
            ConfigError: `world` does not divide `batch`, or a number is out of range.
        """
        self._check(context)
        if batch < 1 or world < 1 or not 0 <= rank < world or step < 0:
            raise ConfigError(f"no such batch: step {step}, {batch} rows, process {rank} of {world}")
        if batch % world:
            raise ConfigError(
                f"a batch of {batch} rows cannot be shared by {world} processes; choose a multiple of {world}"
            )
        share = batch // world
        starts = self._starts(step * batch + rank * share, share, seed, context)
        both = np.empty((share, context + 1), np.int64)
        for row, start in zip(both, starts.tolist(), strict=True):
            self._copy(start, row)
        return np.ascontiguousarray(both[:, :-1]), np.ascontiguousarray(both[:, 1:]), starts

    def _starts(self, first: int, count: int, seed: int, context: int) -> np.ndarray:
        """Where the windows number `first` … of an endless walk begin, (count,) int64."""
        windows = self.tokens // context
        epoch, index = np.divmod(np.arange(first, first + count, dtype=np.uint64), np.uint64(windows))
        key = keys(seed, epoch)
        shift = key % np.uint64(self.tokens)
        places = permute(index, windows, key) * np.uint64(context) + shift
        return (places % np.uint64(self.tokens)).astype(np.int64)

    def in_order(self, batch: int, context: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The whole split once, every token exactly once as a target: for the full loss and for bits per byte.

        The first token is predicted from end_of_text. The last row is filled up with targets of -100.

        Yields:
            ids (≤ B, T) int64 and targets (≤ B, T) int64.

        Raises:
            InputError: the split is empty.
        """
        if not self.tokens:
            raise InputError(f"the split {self.name!r} of {self.folder} is empty; prepare more text")
        if batch < 1 or context < 1:
            raise ConfigError(f"batch and context must be at least 1, not {batch} and {context}")
        for begin in range(0, self.tokens, batch * context):
            count = min(batch * context, self.tokens - begin)
            rows = -(-count // context)
            ids = np.full(rows * context, self._end, np.int64)
            targets = np.full(rows * context, IGNORE, np.int64)
            both = self.window(begin - 1, count + 1)
            ids[:count], targets[:count] = both[:-1], both[1:]
            yield ids.reshape(rows, context), targets.reshape(rows, context)

    def documents_at(self, starts: Iterable[int], context: int) -> list[str]:
        """The sources of the documents that windows touch, each named once, in the order of the windows."""
        found: dict[int, None] = {}
        first = self._documents[:, 0]
        for start in starts:
            start, left = int(start) % self.tokens, context
            while left > 0:
                end = min(start + left, self.tokens)
                low, high = np.searchsorted(first, [start, end - 1], side="right")
                found |= dict.fromkeys(range(int(low) - 1, int(high)))
                start, left = 0, left - (end - start)
        return [self.source(number) for number in found]

    def source(self, document: int) -> str:
        """Where a document came from."""
        with (self.folder / f"{self.name}.sources").open("rb") as file:
            file.seek(int(self._documents[document, 1]))
            return json.loads(file.readline())

    def _check(self, context: int) -> None:
        if context < 1:
            raise ConfigError(f"context must be at least 1, not {context}")
        if self.tokens < context + 1:
            raise InputError(
                f"the split {self.name!r} of {self.folder} has {self.tokens:,} tokens, but one window needs {context + 1:,} "
                f"(the context of {context:,} and one to predict); add text, or choose a context below {max(self.tokens, 2):,}"
            )


def shard_name(split: str, number: int) -> str:
    """The file of a shard."""
    return f"{split}-{number:05d}.tokens"


def _mapped(path: Path, dtype: np.dtype, size: int) -> np.ndarray:
    """A file of `size` numbers as a read-only array that the system pages in as it is read."""
    if not path.is_file() or size < 0 or path.stat().st_size != size * dtype.itemsize:
        raise DamagedFile(
            f"{path} is missing or has not the {size:,} numbers that {STORE_JSON} tells of; prepare the texts again"
        )
    if size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))  # plain array: slicing a memmap costs microseconds
