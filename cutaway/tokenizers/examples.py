"""From tables and JSON lines to examples: pairs of texts, or texts with labels, as a token store.

What somebody paired or labelled is taken as it is: nothing is cleaned; only rows that lack a part, and examples that
were there already, are left out. An example's split follows from its text alone: equal texts are never in two splits.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np

from cutaway.errors import ConfigError, InputError
from cutaway.progress import OnProgress, Progress
from cutaway.text.dedup import bytes_key
from cutaway.text.readers import Skipped, Sources, read
from cutaway.text.split import SPLITS, check_fractions, choose
from cutaway.tokenizers.pipeline import find_tokenizer, sample_size
from cutaway.tokenizers.store import TokenStore
from cutaway.tokenizers.tokenizer import Tokenizer
from cutaway.tokenizers.train import train_tokenizer
from cutaway.tokenizers.writer import StoreWriter

CHUNK = 4096  # examples encoded together
SHOWN = 20  # labels that a message lists


@dataclass(frozen=True)
class Example:
    """A text, what belongs to it, and where both came from."""

    text: str
    answer: str  # a target, or a label
    source: str


@dataclass(frozen=True)
class PreparedExamples:
    """Prepared examples.

    Attributes:
        folder: where they are: a token store of pairs or labels, with `examples.json` (the figures) in it.
        splits: name -> examples, tokens and bytes.
        labels: name -> how many examples have it.
        tokenizer: kind, vocab_size and bytes_per_token.
        dropped: why -> how many rows were left out.
    """

    folder: Path
    splits: dict[str, dict[str, int]]
    labels: dict[str, int] = field(default_factory=dict)
    tokenizer: dict[str, str | int | float] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def store(self) -> TokenStore:
        """The tokens, memory-mapped."""
        return TokenStore.open(self.folder)


def prepare_examples(
    sources: Sources,
    folder: str | Path,
    *,
    text: str,
    target: str | None = None,
    label: str | None = None,
    tokenizer: str | Path | Tokenizer = "bpe",
    vocab_size: int = 8192,
    valid: float = 0.05,
    test: float = 0.0,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> PreparedExamples:
    """Prepare examples for training. The folder appears whole or not at all.

    Args:
        sources: tables, JSON lines or Parquet files.
        folder: where to put the store; one that is there already is replaced.
        text: the column with the text, or with the source of a pair.
        target: the column with the text that is to be made of it; this or `label`.
        label: the column with its class or number.
        tokenizer: a kind to train, a path to load, or a Tokenizer.
        vocab_size: how many tokens a trained tokenizer has.
        valid: share of the examples for validation.
        test: share for testing.
        seed: of the split.
        progress: called now and then.

    Raises:
        InputError: nothing to read, no complete row, too little to hold anything out, no room on the disk.
        ConfigError: no such column, neither or both of target and label, or shares that leave nothing to train on.
    """
    answer = target if label is None else label
    if answer is None or (target is not None and label is not None):
        raise ConfigError("give the column that belongs to the text: target for texts to make of it, or label")
    check_fractions(valid, test)
    folder = Path(folder)
    dropped: Counter[str] = Counter()
    ready = find_tokenizer(tokenizer)
    if ready is None:
        ready = train_tokenizer(_sample(sources, text, answer, pairs=label is None, most=sample_size(vocab_size)),
                                str(tokenizer), vocab_size, progress=progress)  # fmt: skip
    splits: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    labels: Counter[str] = Counter()
    done = 0
    with StoreWriter(folder, ready, kind="pairs" if label is None else "labels") as writer:
        for chunk, names in _divided(_unique(_read(sources, text, answer, dropped), dropped), valid, test, seed):
            texts = ready.encode_bulk([example.text for example in chunk])
            targets = ready.encode_bulk([example.answer for example in chunk]) if label is None else [None] * len(chunk)
            for example, split, ids, made in zip(chunk, names, texts, targets, strict=True):
                size, length = len(example.text.encode()), len(ids)
                kept = None if label is None else example.answer
                writer.add(split, ids, source=example.source, text_bytes=size, label=kept)
                if made is not None:
                    size, length = len(example.answer.encode()), length + len(made)
                    writer.add(split, made, source=example.source, text_bytes=size)
                    size += len(example.text.encode())
                else:
                    labels[example.answer] += 1
                splits[split].update(examples=1, bytes=size, tokens=length)
            done += len(chunk)
            if progress:
                progress(Progress("encoding", done, unit="examples"))
        figures = {name: dict(counts) for name, counts in splits.items() if counts}
        if not figures:
            raise InputError(_nothing(text, answer, dropped))
        _check(figures, labels, valid, test)
        total = Counter()
        for counts in figures.values():
            total.update(counts)
        about = {"kind": ready.kind, "vocab_size": ready.vocab_size}
        about |= {"bytes_per_token": round(total["bytes"] / max(1, total["tokens"]), 3)}
        made_of = PreparedExamples(folder, figures, dict(labels.most_common()), about, dict(dropped))
        record = {"splits": figures, "labels": made_of.labels, "tokenizer": about, "dropped": made_of.dropped}
        writer.attach("examples.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return made_of


def _read(sources: Sources, text: str, answer: str, dropped: Counter[str]) -> Iterator[Example]:
    """Every row that has both parts."""

    def skipped(what: Skipped) -> None:
        dropped[what.reason if what.read else f"{what.source}: {what.reason}"] += 1

    for document in read(sources, column=text, also=(answer,), skipped=skipped):
        found = document.meta.get(answer, "").strip()
        if found:
            yield Example(document.text, found, document.source)
        else:
            dropped[f"nothing in {answer!r}"] += 1


def _unique(examples: Iterable[Example], dropped: Counter[str]) -> Iterator[Example]:
    """Each example once."""
    seen: set[bytes] = set()
    for example in examples:
        key = blake2b(f"{example.text}\0{example.answer}".encode(), digest_size=8).digest()
        if key in seen:
            dropped["the same example again"] += 1
        else:
            seen.add(key)
            yield example


def _divided(
    examples: Iterable[Example], valid: float, test: float, seed: int
) -> Iterator[tuple[list[Example], list[str]]]:
    """Examples in chunks, with the split of each."""
    examples = iter(examples)
    while chunk := list(islice(examples, CHUNK)):
        found = np.array([bytes_key(example.text.encode()) for example in chunk], np.uint64)
        yield chunk, [SPLITS[i] for i in choose(found, valid=valid, test=test, seed=seed).tolist()]


def _sample(sources: Sources, text: str, answer: str, *, pairs: bool, most: int) -> Iterator[str]:
    """Texts to train a tokenizer on, about so many characters."""
    dropped: Counter[str] = Counter()
    found = False
    for example in _read(sources, text, answer, dropped):
        found = True
        yield example.text
        if pairs:
            yield example.answer
        most -= len(example.text) + pairs * len(example.answer)
        if most <= 0:
            return
    if not found:
        raise InputError(_nothing(text, answer, dropped))


def _nothing(text: str, answer: str, dropped: Counter[str]) -> str:
    why = ", ".join(f"{count:,} rows: {reason}" for reason, count in dropped.most_common(3))
    return f"no row has both {text!r} and {answer!r} ({why}); name the columns that hold them"


def _check(splits: dict[str, dict[str, int]], labels: Counter[str], valid: float, test: float) -> None:
    """Raise InputError if a split that was asked for has nothing, or all labels are one."""
    asked = ["train", *["valid"] * (valid > 0), *["test"] * (test > 0)]
    if empty := [name for name in asked if name not in splits]:
        total = sum(counts["examples"] for counts in splits.values())
        raise InputError(
            f"of {total:,} examples none is left for {' and '.join(empty)}; give more, a larger share, or hold nothing "
            "out with valid=0 and test=0"
        )
    if len(labels) == 1:
        raise InputError(f"all examples have the label {next(iter(labels))!r}, so there is nothing to learn")
