"""The part of `prepare` that is done in many processes: read some parts of the corpus, clean them, encode them.

A job's output goes to files, so that a process holds one chunk at a time however large its part is:

    000000.ids      the token ids of the chunk's pieces, end to end
    000000.npy      (N, 4 or more) uint64, a row a piece: how many ids, bytes and characters; its key and band keys
    000000.json     the number of each piece's document within the job, and the sources of those documents
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cutaway.files import disk_errors
from cutaway.settings import build
from cutaway.text.bag import classic as classic_steps
from cutaway.text.clean import STEPS, Cleaning, Quality
from cutaway.text.clean.language import Survey
from cutaway.text.dedup import band_keys, bytes_key
from cutaway.text.documents import Document
from cutaway.text.readers import Part, Skipped, read_part
from cutaway.text.report import Report
from cutaway.text.split import pieces
from cutaway.text.workers import Tell
from cutaway.tokenizers.load import load_tokenizer
from cutaway.tokenizers.tokenizer import Tokenizer

BATCH = 125_000  # characters cleaned together: enough for the vectorised counts, not too many for the processor's cache
CHUNK = 4_000_000  # characters encoded together and written to one set of files
GLOBAL = ("exact_duplicates", "near_duplicates")  # decided over the whole corpus, not in a job

LENGTH, BYTES, CHARACTERS, KEY = range(4)  # the columns of a chunk's table
BANDS = slice(4, None)


@dataclass(frozen=True)
class Recipe:
    """What is done to every document.

    Attributes:
        steps: names in STEPS.
        quality: thresholds.
        languages: ISO 639-1 codes to keep; none keeps all.
        classic: names in CLASSIC.
        piece: characters after which a long document is cut.
        column: the column or field that holds the text.
    """

    steps: tuple[str, ...]
    quality: Quality = field(default_factory=Quality)
    languages: tuple[str, ...] = ()
    classic: tuple[str, ...] = ()
    piece: int = 8192
    column: str | None = None


def sample_job(parts: Iterable[Part], recipe: Recipe, out: Path, characters: int) -> dict[str, Any]:
    """Plain data for `work`: clean the beginning of each part, about `characters` in all, for training a tokenizer."""
    return {
        "do": "sample",
        "parts": [asdict(p) for p in parts],
        "recipe": asdict(recipe),
        "out": str(out),
        "most": characters,
    }


def shard_job(parts: Iterable[Part], recipe: Recipe, out: Path, tokenizer: Path) -> dict[str, Any]:
    """Plain data for `work`: clean and encode all of the parts."""
    job = {"do": "shard", "parts": [asdict(p) for p in parts], "recipe": asdict(recipe), "out": str(out)}
    return job | {"tokenizer": str(tokenizer)}


def work(job: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Do a job. Returns the report of what happened; a shard job also how many chunks it wrote, and what encoded."""
    parts = [Part(**part) for part in job["parts"]]
    recipe = build(Recipe, job["recipe"])
    out, report = Path(job["out"]), Report()
    with disk_errors(out):
        if job["do"] == "sample":
            _sample(parts, recipe, report, out, job["most"])
            return {"report": report.to_dict()}
        out.mkdir()
        tokenizer = _tokenizer(job["tokenizer"])
        chunks = 0
        for chunk in _chunks(_pieces(_cleaned(parts, recipe, report, tell), recipe)):
            _write(out / f"{chunks:06d}", chunk, tokenizer, near="near_duplicates" in recipe.steps)
            chunks += 1
    return {"chunks": chunks, "report": report.to_dict(), "encoder": str(tokenizer.bulk)}


@dataclass(frozen=True)
class Chunk:
    """Some consecutive pieces of a job.

    Attributes:
        ids: (T,) the token ids of all of them.
        bounds: (N + 1,) where each piece's ids start.
        table: (N, 4 or more) uint64, see the columns above.
        documents: (N,) the number of each piece's document within the job.
        sources: the source of each.
    """

    ids: np.ndarray
    bounds: np.ndarray
    table: np.ndarray
    documents: np.ndarray
    sources: list[str]


def read_chunk(out: Path, number: int) -> Chunk:
    """What a job wrote to `out` as its chunk `number`; the files are then deleted."""
    files = [out / f"{number:06d}{suffix}" for suffix in (".ids", ".npy", ".json")]
    about = json.loads(files[2].read_text("ascii"))
    table = np.load(files[1], allow_pickle=False)
    bounds = np.concatenate(([0], np.cumsum(table[:, LENGTH], dtype=np.int64)))
    chunk = Chunk(np.fromfile(files[0], about["dtype"]), bounds, table, np.array(about["documents"]), about["sources"])
    for file in files:
        file.unlink()
    return chunk


def _sample(parts: list[Part], recipe: Recipe, report: Report, out: Path, most: int) -> None:
    """Write a JSON list of cleaned texts: from the beginning of each part its share by size."""
    texts: list[str] = []
    total = max(1, sum(part.size for part in parts))
    for part in parts:
        room = max(1, most * part.size // total)
        for document in _cleaned([part], recipe, report, None):
            texts.append(_classic(document.text[:room], recipe))
            room -= len(document.text)
            if room <= 0:
                break
    out.write_text(json.dumps(texts), "ascii")


def _cleaned(parts: list[Part], recipe: Recipe, report: Report, tell: Tell | None) -> Iterator[Document]:
    """The documents of the parts after the steps; `report` adds up what happened."""

    def skipped(what: Skipped) -> None:
        report.skipped[what.source] = what.reason

    batch: list[Document] = []
    length, survey = 0, Survey()
    for part in parts:
        read = 0
        for document in read_part(part, column=recipe.column, skipped=skipped):
            batch.append(document)
            length += len(document.text)
            if length >= BATCH:
                yield from _clean(batch, recipe, report, survey)
                batch, length = [], 0
                read = _tell_some(read, part, tell)
        if tell:
            tell(part.size - read)
        report.files += part.start == 0
    if batch:
        yield from _clean(batch, recipe, report, survey)


def _clean(batch: list[Document], recipe: Recipe, report: Report, survey: Survey) -> list[Document]:
    config = Cleaning(recipe.quality, recipe.languages)
    length = sum(len(document.text) for document in batch)
    report.documents += len(batch)
    report.characters += length
    for name in recipe.steps:
        if name in GLOBAL:
            continue
        outcome = STEPS[name](batch, config)
        report.step(name).add_outcome(length, outcome)
        batch = outcome.kept
        length = sum(len(document.text) for document in batch)
    if "language" in recipe.steps:
        report.languages += survey(batch)
    return batch


def _tell_some(read: int, part: Part, tell: Tell | None) -> int:
    """Report a batch as read, never more than the part in all (its size is of bytes that may be compressed)."""
    amount = min(BATCH, part.size - read)
    if tell and amount > 0:
        tell(amount)
    return read + max(0, amount)


def _pieces(documents: Iterable[Document], recipe: Recipe) -> Iterator[tuple[int, Document, str]]:
    """(document number, document, text) of every piece."""
    for number, document in enumerate(documents):
        for text in pieces(document.text, recipe.piece):
            yield number, document, _classic(text, recipe)


def _classic(text: str, recipe: Recipe) -> str:
    return classic_steps(text, recipe.classic) if recipe.classic else text


def _chunks(found: Iterable[tuple[int, Document, str]]) -> Iterator[list[tuple[int, Document, str]]]:
    """The pieces in groups of about CHUNK characters."""
    group: list[tuple[int, Document, str]] = []
    length = 0
    for piece in found:
        group.append(piece)
        length += len(piece[2])
        if length >= CHUNK:
            yield group
            group, length = [], 0
    if group:
        yield group


def _write(stem: Path, chunk: list[tuple[int, Document, str]], tokenizer: Tokenizer, *, near: bool) -> None:
    texts = [text for _, _, text in chunk]
    ids = tokenizer.encode_bulk(texts)
    raw = [text.encode() for text in texts]
    rows = [(len(i), len(r), len(t), bytes_key(r)) for i, r, t in zip(ids, raw, texts, strict=True)]
    table = np.column_stack([np.array(rows, np.uint64)] + ([band_keys(texts)] if near else []))
    flat = np.concatenate(ids).astype(tokenizer.dtype, copy=False)
    flat.tofile(stem.with_suffix(".ids"))
    np.save(stem.with_suffix(".npy"), table)
    about = {"dtype": flat.dtype.str, "documents": [n for n, _, _ in chunk], "sources": [d.source for _, d, _ in chunk]}
    stem.with_suffix(".json").write_text(json.dumps(about), "ascii")


@lru_cache(maxsize=1)
def _tokenizer(folder: str) -> Tokenizer:
    return load_tokenizer(folder)
