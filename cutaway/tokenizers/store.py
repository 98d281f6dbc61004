"""The token store: a prepared corpus on disk, ready for training.

A folder of raw little-endian numbers that are mapped into memory, never read whole:

    store.json               format, dtype, and for each split its tokens, documents, bytes of text and shards
    tokenizer.json           what the ids mean
    train-00000.tokens …     ids; every document is followed by end_of_text; all shards but the last are full
    train.documents          two int64 per document: its first token, and where its line in train.sources begins
    train.sources            where each document came from, a JSON string a line
    train.labels             in a store of labels: an int32 per document, its label's place in store.json
    manifest.json            SHA-256 and size of every file

A split is a ring: after the last document comes the first. So every window is whole, every token is once a target, and
the first token's context is the end of a text, as for every other document.

Examples to learn from are documents too: in a store of pairs a source and the next document, its target; in a store of
labels a text with a number beside it.

Shapes: B batch, T tokens (the context).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from cutaway.errors import ConfigError, DamagedFile, InputError, unknown
from cutaway.files import inside, parse_json, read_json
from cutaway.files import verify as verify_folder
from cutaway.settings import build
from cutaway.tokenizers.load import load_tokenizer
from cutaway.tokenizers.order import drawn, keys, permute
from cutaway.tokenizers.tokenizer import Tokenizer
from cutaway.tokenizers.writer import FORMAT, SPLIT_NAME, STORE_JSON, SplitInfo, StoreInfo, StoreWriter, shard_name

LONGEST_SOURCE = 2**20  # bytes of a line that says where a document came from
IGNORE = -100  # a target that counts for nothing, as in torch's cross_entropy


class TokenStore:
    """A prepared corpus: `store["train"]` is a TokenSplit.

    Attributes:
        folder: where it lies.
        tokenizer: what the ids mean.
        splits: name -> TokenSplit.
        kind: "texts", "pairs" or "labels".
        labels: the names of the labels, or the numbers.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, splits: dict[str, TokenSplit], info: StoreInfo) -> None:
        self.folder = folder
        self.tokenizer = tokenizer
        self.splits = splits
        self.kind, self.labels = info.kind, info.labels

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
                f"{folder} is no token store (no {STORE_JSON}); make one with: cutaway prepare TEXTS --out FOLDER"
            )
        raw = read_json(inside(folder, STORE_JSON))
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
            splits[name] = TokenSplit(folder, name, split, info, tokenizer)
        return cls(folder, tokenizer, splits, info)

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
        end_of_text: the id after each of them.
        label_names: of all labels, in a store of them.
        group: how many documents an example has: 2 in a store of pairs.
        tokenizer: what the ids mean.
    """

    def __init__(self, folder: Path, name: str, info: SplitInfo, store: StoreInfo, tokenizer: Tokenizer) -> None:
        if not SPLIT_NAME.match(name) or store.dtype not in ("uint16", "uint32") or store.shard_tokens < 1:
            raise DamagedFile(f"{folder / STORE_JSON} does not describe a token store; prepare the texts again")
        if info.documents < 0 or info.shards != max(0, -(-info.tokens // store.shard_tokens)):
            raise DamagedFile(f"{folder / STORE_JSON} tells of {info.tokens:,} tokens in {info.shards:,} shards")
        self.name = name
        self.folder = folder
        self.tokenizer = tokenizer
        self.tokens, self.bytes, self.documents = info.tokens, info.text_bytes, info.documents
        self.end_of_text = store.end_of_text
        self._shard_tokens = store.shard_tokens
        dtype = np.dtype(store.dtype).newbyteorder("<")
        full = [store.shard_tokens] * (info.shards - 1) + [info.tokens - store.shard_tokens * (info.shards - 1)] * bool(
            info.shards
        )
        self._shards = [_mapped(inside(folder, shard_name(name, n)), dtype, size) for n, size in enumerate(full)]
        # first token and source line of each document
        self._documents = _mapped(inside(folder, f"{name}.documents"), np.dtype("<i8"), 2 * info.documents)
        self._documents = self._documents.reshape(-1, 2)

        self._labels, self.label_names = None, store.labels
        if store.kind == "labels":
            self._labels = _mapped(inside(folder, f"{name}.labels"), np.dtype("<i4"), info.documents)
            if info.documents and not 0 <= int(self._labels.min()) <= int(self._labels.max()) < len(store.labels):
                raise DamagedFile(f"{folder / f'{name}.labels'} has numbers of no label; prepare the texts again")
        self.group = 2 if store.kind == "pairs" else 1
        if info.documents % self.group:
            raise DamagedFile(f"{folder / STORE_JSON}: the last source of {name} has no target; prepare them again")

    def __repr__(self) -> str:
        return f"TokenSplit({self.name}: {self.tokens:,} tokens, {self.documents:,} documents, {self.bytes:,} bytes)"

    def window(self, start: int, length: int) -> Int64[np.ndarray, " N"]:
        """`length` ids from `start` on, N = length, (N,) int64. After the last token comes the first."""
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
    ) -> tuple[Int64[np.ndarray, "B T"], Int64[np.ndarray, "B T"], Int64[np.ndarray, " B"]]:
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

    def _starts(self, first: int, count: int, seed: int, context: int) -> Int64[np.ndarray, " N"]:
        """Where the windows number `first` … of an endless walk begin, N = count, (N,) int64."""
        windows = self.tokens // context
        epoch, index = np.divmod(np.arange(first, first + count, dtype=np.uint64), np.uint64(windows))
        key = keys(seed, epoch)
        shift = key % np.uint64(self.tokens)
        places = permute(index, windows, key) * np.uint64(context) + shift
        return (places % np.uint64(self.tokens)).astype(np.int64)

    # examples

    @property
    def examples(self) -> int:
        """How many there are: documents, or pairs of them."""
        return self.documents // self.group

    def document(self, number: int) -> Int64[np.ndarray, " N"]:
        """The ids of a document without its end_of_text, (N,) int64."""
        start = int(self._documents[number, 0])
        return self.window(start, self._end_of(number) - start - 1)

    def labels(self, numbers: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """The numbers of documents' labels, (B,) int64.

        Raises:
            ConfigError: the store has none.
        """
        if self._labels is None:
            raise ConfigError(f"{self.folder} has no labels; prepare it with --label")
        return self._labels[numbers].astype(np.int64)

    def draw(
        self, step: int, *, seed: int, batch: int, rank: int = 0, world: int = 1
    ) -> tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " N"]]:
        """Which examples a step's batch has, as `order.drawn` says.

        Raises:
            InputError: the split is empty.
        """
        if not self.examples:
            raise InputError(f"the split {self.name!r} of {self.folder} is empty; prepare more examples")
        return drawn(step, self.examples, self.lengths, seed=seed, batch=batch, rank=rank, world=world)

    def document_lengths(self, numbers: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
        """The tokens of documents without end_of_text, (N,) int64."""
        ends = np.append(self._documents[1:, 0], self.tokens)
        return ends[numbers] - self._documents[numbers, 0] - 1

    def lengths(self, numbers: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
        """The tokens of examples, (N,) int64, end_of_text after each document included."""
        first, last = numbers * self.group, numbers * self.group + self.group - 1
        ends = np.where(last + 1 < self.documents, self._documents[(last + 1) % self.documents, 0], self.tokens)
        return ends - self._documents[first, 0]

    def _end_of(self, document: int) -> int:
        """Where the next document begins."""
        return int(self._documents[document + 1, 0]) if document + 1 < self.documents else self.tokens

    def in_order(self, batch: int, context: int) -> Iterator[tuple[Int64[np.ndarray, "B T"], Int64[np.ndarray, "B T"]]]:
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
            ids = np.full(rows * context, self.end_of_text, np.int64)
            targets = np.full(rows * context, IGNORE, np.int64)
            both = self.window(begin - 1, count + 1)
            ids[:count], targets[:count] = both[:-1], both[1:]
            yield ids.reshape(rows, context), targets.reshape(rows, context)

    def documents_at(self, starts: Iterable[int] | Int64[np.ndarray, " B"], context: int) -> list[str]:
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
        with inside(self.folder, f"{self.name}.sources").open("rb") as file:
            place = int(self._documents[document, 1])
            file.seek(max(place, 0))
            source = parse_json(file.readline(LONGEST_SOURCE), file.name)
        if not isinstance(source, str) or place < 0:
            raise DamagedFile(f"{file.name} does not say where document {document} came from; prepare the texts again")
        return source

    def _check(self, context: int) -> None:
        if context < 1:
            raise ConfigError(f"context must be at least 1, not {context}")
        if self.tokens < context + 1:
            longest = f"choose a context of at most {self.tokens - 1:,}" if self.tokens > 1 else "prepare it again"
            raise InputError(
                f"the split {self.name!r} of {self.folder} has {self.tokens:,} tokens, but a window is {context + 1:,} "
                f"(the context of {context:,} and one to predict): add text, or {longest}"
            )


def _mapped(path: Path, dtype: np.dtype, size: int) -> np.ndarray:
    """A file of `size` numbers as a read-only array that the system pages in as it is read."""
    if size < 0 or path.stat().st_size != size * dtype.itemsize:
        raise DamagedFile(f"{path} has not the {size:,} numbers that {STORE_JSON} tells of; prepare the texts again")
    if size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))  # plain array: slicing a memmap costs microseconds
