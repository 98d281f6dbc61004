"""From texts to a token store: read → clean → drop duplicates → split → encode → store, in a stream, on all cores.

Workers read, clean and encode jobs of consecutive parts (jobs.py); this process takes their output in the order of the
corpus, decides on duplicates and splits by keys, and writes the store. So the result is the same for any number of
workers, and memory depends neither on the size of the corpus nor on that of any file.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cutaway.errors import ConfigError, InputError, many, unknown
from cutaway.files import disk_errors, read_json
from cutaway.progress import OnProgress, Progress
from cutaway.settings import to_dict
from cutaway.text.bag import check_classic, why_not
from cutaway.text.clean import USUAL, Quality, check_steps
from cutaway.text.clean.language import check_languages
from cutaway.text.dedup import NEARLY_SAME, SAME, Seen
from cutaway.text.outcome import EXCERPT
from cutaway.text.readers import Part, Sources, find
from cutaway.text.report import EXAMPLES, Report, html
from cutaway.text.split import SPLITS, check_fractions, choose, positions
from cutaway.text.workers import Workers, usable_cores
from cutaway.tokenizers.jobs import (
    BANDS,
    BYTES,
    CHARACTERS,
    GLOBAL,
    KEY,
    Chunk,
    Recipe,
    read_chunk,
    sample_job,
    shard_job,
    work,
)
from cutaway.tokenizers.load import load_tokenizer
from cutaway.tokenizers.store import TokenStore
from cutaway.tokenizers.tokenizer import Tokenizer
from cutaway.tokenizers.train import KINDS, train_tokenizer
from cutaway.tokenizers.writer import StoreWriter

SAMPLE = 20_000_000, 2_500, 50_000_000  # characters to train a tokenizer on: at least, per token wanted, at most
SPREAD, LARGEST_JOB = 64, 8 << 20  # a corpus is divided into about so many jobs, of at most so many bytes
PIECE, SMALL_PIECE, FEW = (
    8192,
    1024,
    20,
)  # characters that a long document is cut after; shorter if that gives few pieces
WORKER_WORTH = 2 << 20  # bytes; starting an interpreter takes as long as preparing about so much


@dataclass(frozen=True)
class Prepared:
    """A prepared corpus.

    Attributes:
        folder: where it is: a token store, with `report.json` and `prepare.json` (the settings) in it.
        report: what happened to the text, warnings included.
    """

    folder: Path
    report: Report = field(repr=False)

    @property
    def store(self) -> TokenStore:
        """The tokens, memory-mapped."""
        return TokenStore.open(self.folder)

    @property
    def warnings(self) -> list[str]:
        """What the user should know."""
        return self.report.warnings

    @classmethod
    def open(cls, folder: str | Path) -> "Prepared":
        """A corpus that `prepare` made.

        Raises:
            InputError: there is none.
            DamagedFile: its report cannot be read.
        """
        return cls(Path(folder), Report.from_dict(read_json(Path(folder) / "report.json")))


def prepare(
    sources: Sources,
    folder: str | Path,
    *,
    tokenizer: str | Path | Tokenizer = "bpe",
    vocab_size: int = 8192,
    column: str | None = None,
    steps: Iterable[str] | None = None,
    quality: Quality | None = None,
    near_duplicates: bool = False,
    languages: Iterable[str] = (),
    classic: Iterable[str] = (),
    valid: float = 0.05,
    test: float = 0.0,
    seed: int = 0,
    workers: int | None = None,
    report: bool = False,
    progress: OnProgress | None = None,
) -> Prepared:
    """Prepare texts for training: clean, drop duplicates, split, train a tokenizer, encode, and store the tokens.

    The result depends on the arguments and the texts alone, not on the number of workers. The folder appears whole or
    not at all.

    Args:
        sources: files and folders, in any format that cutaway.text can read.
        folder: where to put the corpus; one that is there already is replaced.
        tokenizer: a kind to train ("bpe", "unigram", "wordpiece", "word", "char"), a path to load, or a Tokenizer.
        vocab_size: how many tokens a trained tokenizer has.
        column: the column or field with the text, for tables and records; None finds it.
        steps: names in cutaway.text.clean.STEPS; None takes USUAL.
        quality: thresholds of the quality filters; None takes Quality(), which suits texts that somebody chose.
        near_duplicates: drop near-duplicates too.
        languages: ISO 639-1 codes of the languages to keep; none keeps all.
        classic: names in cutaway.text.bag.CLASSIC. They harm a language model, and a warning says how.
        valid: share of the text for validation, by pieces of at most about 8,000 characters.
        test: share for testing.
        seed: of the split.
        workers: processes; None takes as many as there are cores to use and work for.
        report: write `report.html` into the folder too.
        progress: called now and then, in this thread.

    Raises:
        InputError: nothing to read, nothing left after cleaning, too little to hold anything out, no room on the disk.
        ConfigError: an unknown step, language or kind of tokenizer, or shares that leave nothing to train on.
        MissingExtra: a step or a format needs a library that is not installed.
    """
    chosen = check_steps([*(USUAL if steps is None else steps), *(["near_duplicates"] if near_duplicates else [])])
    languages = (languages,) if isinstance(languages, str) else tuple(languages)
    if languages:
        check_languages(languages)
    check_fractions(valid, test)
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, but {workers} was given; leave it out for one per core")
    ready = find_tokenizer(tokenizer)
    skipped: dict[str, str] = {}
    parts = find(sources, skipped=lambda what: skipped.update({what.source: what.reason}))
    total = sum(part.size for part in parts)
    recipe = Recipe(
        steps=chosen,
        quality=quality or Quality(),
        languages=languages,
        classic=check_classic(classic),
        piece=PIECE,
        column=column,
    )
    folder = Path(folder)
    count = workers or max(1, min(usable_cores(), total // WORKER_WORTH))
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as room,
            Workers(count, work) as pool,
        ):
            run = _Run(folder, Path(room), recipe, _jobs(parts, total), pool, progress, seed, skipped)
            if ready is None:
                ready = train_tokenizer(run.sample(sample_size(vocab_size)), str(tokenizer), vocab_size)
            ready.save(run.room)
            made = run.store(ready, valid, test, page=report)
    return Prepared(folder, made)


def find_tokenizer(given: str | Path | Tokenizer) -> Tokenizer | None:
    """The tokenizer given or loaded; None if it is a kind that is to be trained."""
    if isinstance(given, Tokenizer):
        return given
    if Path(given).exists():
        return load_tokenizer(given)
    if str(given) not in KINDS:
        raise ConfigError(unknown("kind of tokenizer (and there is no such path):", str(given), KINDS))
    return None


def sample_size(vocab_size: int) -> int:
    """How many characters show a tokenizer its rarest tokens often enough."""
    least, each, most = SAMPLE
    return min(max(least, each * vocab_size), most)


def _jobs(parts: Sequence[Part], total: int) -> list[list[Part]]:
    """Consecutive parts in groups of similar size; a function of the corpus alone."""
    size = min(LARGEST_JOB, total // SPREAD)
    jobs: list[list[Part]] = []
    room = 0
    for part in parts:
        if room <= 0:
            jobs.append([])
            room = size
        jobs[-1].append(part)
        room -= part.size
    return jobs


class _Empty(Exception):
    """Splits that got no text, and where the pieces fell (ends the writing of a store)."""

    def __init__(self, splits: list[str], places: np.ndarray) -> None:
        super().__init__(splits)
        self.splits, self.places = splits, places


@dataclass
class _Run:
    """One call of prepare, in its two passes over the corpus: a sample for the tokenizer, then all of it."""

    folder: Path
    room: Path  # for files that are gone at the end
    recipe: Recipe
    jobs: list[list[Part]]
    pool: Workers
    progress: OnProgress | None
    seed: int
    skipped: dict[str, str]

    def sample(self, most: int) -> Iterator[str]:
        """Cleaned texts from all over the corpus, about `most` characters if there are so many."""
        chosen = self.jobs[:: max(1, len(self.jobs) // SPREAD)] if _size(self.jobs) > most else self.jobs
        size = max(1, _size(chosen))
        outs = [self.room / f"sample-{number:06d}" for number in range(len(chosen))]
        jobs = (
            sample_job(job, self.recipe, out, 1 + int(min(1.0, most / size) * _size([job])))
            for job, out in zip(chosen, outs, strict=True)
        )
        report = Report()
        for answer in self.pool.map(jobs, self._tick("reading a sample", size)):
            report.add(Report.from_dict(answer["report"]))
        if self.progress:
            self.progress(Progress("training the tokenizer", 0))
        empty = True
        for out in outs:
            for text in read_json(out):
                empty = empty and not text
                yield text
        if empty:
            raise InputError(_nothing(report))

    def store(self, tokenizer: Tokenizer, valid: float, test: float, *, page: bool) -> Report:
        """Encode everything and write the store; once more if no piece of a small corpus fell where one must.

        Raises:
            InputError: nothing is left, or too little to divide.
        """
        asked = ["train", *(name for name, share in (("valid", valid), ("test", test)) if share > 0)]
        warnings: list[str] = []
        while True:
            try:
                return self._write(tokenizer, valid, test, asked, warnings, page=page)
            except _Empty as found:
                splits, places = found.splits, found.places
            if len(places) < FEW and self.recipe.piece > SMALL_PIECE:
                self.recipe = replace(self.recipe, piece=SMALL_PIECE)
            elif not warnings and len(places) >= len(asked):
                # The piece nearest to the edge moves over: with the same texts always the same piece.
                valid = float(places.min()) + 1e-12 if "valid" in splits else valid
                test = 1 - float(places.max()) + 1e-12 if "test" in splits else test
                warnings = [f"small corpus: {' and '.join(splits)} got one piece of text of {len(places)}"]
            else:
                raise InputError(
                    f"after cleaning there is too little text to divide ({many(len(places), 'piece')}): nothing "
                    f"is left for {' and '.join(splits)}. Give more text, or hold nothing out with valid=0 and test=0."
                )

    def _write(
        self, tokenizer: Tokenizer, valid: float, test: float, asked: list[str], warnings: list[str], *, page: bool
    ) -> Report:
        """Write the store. Raises _Empty if a split asked for got nothing; then there is no store."""
        with StoreWriter(self.folder, tokenizer) as writer:
            report, places = self._encode(writer, tokenizer, valid, test)
            if not len(places):
                raise InputError(_nothing(report))
            if empty := [name for name in asked if name not in report.splits]:
                raise _Empty(empty, places)
            report.skipped = self.skipped | report.skipped
            report.warnings = why_not(self.recipe.classic) + warnings
            settings = {"recipe": to_dict(self.recipe), "valid": valid, "test": test, "seed": self.seed}
            for name, values in (("prepare.json", settings), ("report.json", report.to_dict())):
                writer.attach(name, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
            if page:
                writer.attach("report.html", html(report))
        return report

    def _encode(
        self, writer: StoreWriter, tokenizer: Tokenizer, valid: float, test: float
    ) -> tuple[Report, np.ndarray]:
        """Fill the store. Returns what happened, and where between 0 and 1 every kept piece fell."""
        report, seen = Report(), {name: Seen() for name in GLOBAL if name in self.recipe.steps}
        splits: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
        places: list[np.ndarray] = []
        encoder = ""
        outs = [self.room / f"job-{number:06d}" for number in range(len(self.jobs))]
        jobs = (shard_job(job, self.recipe, out, self.room) for job, out in zip(self.jobs, outs, strict=True))
        answers = self.pool.map(jobs, self._tick("cleaning and encoding", _size(self.jobs), splits))
        for out, answer in zip(outs, answers, strict=True):
            report.add(Report.from_dict(answer["report"]))
            encoder = answer["encoder"]
            for number in range(answer["chunks"]):
                chunk = read_chunk(out, number)
                kept = _drop_duplicates(chunk, seen, report, tokenizer)
                places.append(positions(chunk.table[kept, KEY], self.seed))
                split = choose(chunk.table[:, KEY], valid=valid, test=test, seed=self.seed)
                for name, first, last in _runs(chunk, kept, split):
                    ids = chunk.ids[chunk.bounds[first] : chunk.bounds[last + 1]]
                    size = int(chunk.table[first : last + 1, BYTES].sum())
                    writer.add(name, ids, source=chunk.sources[first], text_bytes=size)
                    splits[name].update(documents=1, bytes=size, tokens=len(ids))
            out.rmdir()
        report.splits = {name: dict(figures) for name, figures in splits.items() if figures}
        tokens = sum(figures["tokens"] for figures in splits.values())
        size = sum(figures["bytes"] for figures in splits.values())
        report.tokenizer = {
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "bytes_per_token": round(size / max(1, tokens), 3),
            "encoded_with": encoder,
        }
        return report, np.concatenate([*places, np.zeros(0)])

    def _tick(
        self, stage: str, total: int, splits: Mapping[str, Mapping[str, int]] | None = None
    ) -> Callable[[int], None] | None:
        """What the pool calls with the bytes read so far."""
        if not (progress := self.progress):
            return None

        def tick(done: int) -> None:
            figures = {"tokens": f"{sum(s.get('tokens', 0) for s in splits.values()):,}"} if splits else {}
            progress(Progress(stage, min(done, total), total, "bytes", figures))

        return tick


def _nothing(report: Report) -> str:
    why = report.losses() or "there was no text"
    return f"nothing is left after cleaning: {why}. Choose other steps or thresholds, or give other texts."


def _size(jobs: Iterable[Iterable[Part]]) -> int:
    return sum(part.size for job in jobs for part in job)


def _drop_duplicates(chunk: Chunk, seen: Mapping[str, Seen], report: Report, tokenizer: Tokenizer) -> np.ndarray:
    """Which pieces of a chunk are no duplicates: (N,) bool; the others go into the report."""
    kept = np.ones(len(chunk.table), bool)
    for name, keys, reason in (
        ("exact_duplicates", chunk.table[:, KEY], SAME),
        ("near_duplicates", chunk.table[:, BANDS], NEARLY_SAME),
    ):
        if name not in seen:
            continue
        before = np.flatnonzero(kept)
        new = seen[name].first(keys[before])
        gone = before[~new]
        kept[gone] = False
        step = report.step(name)
        step.documents += len(before)
        step.characters += int(chunk.table[before, CHARACTERS].sum())
        step.dropped.update({reason: len(gone)} if len(gone) else {})
        step.dropped_characters += int(chunk.table[gone, CHARACTERS].sum())
        for i in gone[: EXAMPLES - len(step.examples.get(reason, []))].tolist():
            ids = chunk.ids[chunk.bounds[i] : min(chunk.bounds[i] + EXCERPT, chunk.bounds[i + 1])]
            step.show(reason, tokenizer.decode(ids))
    return kept


def _runs(chunk: Chunk, kept: np.ndarray, split: np.ndarray) -> Iterator[tuple[str, int, int]]:
    """(split, first piece, last piece) of each stretch of neighbouring pieces of one document that share a split.

    They were one text, and are stored as one document again.
    """
    pieces = np.flatnonzero(kept)
    if not len(pieces):
        return
    new = (np.diff(pieces) > 1) | (np.diff(chunk.documents[pieces]) != 0) | (np.diff(split[pieces]) != 0)
    firsts = pieces[np.concatenate(([True], new))]
    lasts = pieces[np.concatenate((new, [True]))]
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        yield SPLITS[split[first]], first, last
