"""From texts to token shards: read → clean → drop duplicates → split → encode → store, in a stream, on all cores.

Workers read, clean and encode jobs of consecutive parts (prepare_job.py); this process takes their output in the
order of the corpus, decides on duplicates and splits by keys, and writes the store. So the result is the same for any
number of workers, and memory depends neither on the size of the corpus nor on that of any file.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.files import atomic_folder, read_json, write_atomic, write_json
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
from cutaway.tokenizers.prepare_job import (
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
from cutaway.tokenizers.store import StoreWriter, TokenStore
from cutaway.tokenizers.tokenizer import KINDS, Tokenizer, load_tokenizer, train_tokenizer

WORK, SHARDS = ".work", "tokens"  # inside the folder; the first is gone at the end
SAMPLE = 32_000_000  # characters that a tokenizer is trained on; more changes an 8,192-piece vocabulary hardly at all
SPREAD = 64  # jobs and sample places that a corpus is divided into, within these bounds:
LARGEST_JOB, LARGEST_PIECE, SMALLEST_PIECE = 8 << 20, 16_384, 1024
WORKER_WORTH = 2 << 20  # bytes; starting an interpreter takes as long as preparing about so much


@dataclass(frozen=True)
class Prepared:
    """A prepared corpus.

    Attributes:
        folder: where it is: the shards, `tokenizer/`, `report.json`, `prepare.json` (the settings), `manifest.json`.
        report: what happened to the text, warnings included.
    """

    folder: Path
    report: Report = field(repr=False)

    @property
    def store(self) -> TokenStore:
        """The token shards, memory-mapped."""
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
    """Prepare texts for training: clean them, drop duplicates, split, train a tokenizer, encode, and store the tokens.

    The result depends on the arguments and the texts alone, not on the number of workers. The folder appears whole or
    not at all.

    Args:
        sources: files and folders, in any format that cutaway.text can read.
        folder: where to put the corpus; one that is there already is replaced.
        tokenizer: a kind to train ("bpe", "unigram", "wordpiece", "word", "char"), a folder or file to load, or a
        Tokenizer.
        vocab_size: how many tokens a trained tokenizer has.
        column: the column or field with the text, for tables and records; None finds it.
        steps: names in cutaway.text.clean.STEPS; None takes USUAL.
        quality: thresholds of the quality filters; None takes Quality(), which suits texts that somebody chose.
        near_duplicates: drop near-duplicates too.
        languages: ISO 639-1 codes of the languages to keep; none keeps all.
        classic: names in cutaway.text.bag.CLASSIC. They harm a language model, and a warning says how.
        valid: share of the text for validation, by pieces of about 16,000 characters.
        test: share for testing.
        seed: of the split and of MinHash.
        workers: processes; None takes as many as there are cores to use and work for.
        report: write `report.html` into the folder too.
        progress: called now and then, in this thread.

    Raises:
        InputError: nothing to read, nothing left after cleaning, too little to hold out a validation set, no room on
        the disk.
        ConfigError: an unknown step, language or kind of tokenizer, or shares that leave nothing.
        MissingExtra: a step or a format needs a library that is not installed.
    """
    chosen = check_steps([*(USUAL if steps is None else steps), *(["near_duplicates"] if near_duplicates else [])])
    languages = (languages,) if isinstance(languages, str) else tuple(languages)
    if languages:
        check_languages(languages)
    check_fractions(valid, test)
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, but {workers} was given; leave it out for one per core")
    skipped: dict[str, str] = {}
    parts = find(sources, skipped=lambda what: skipped.update({what.source: what.reason}))
    total = sum(part.size for part in parts)
    recipe = Recipe(
        steps=chosen,
        quality=quality or Quality(),
        languages=languages,
        classic=check_classic(classic),
        piece=min(LARGEST_PIECE, max(SMALLEST_PIECE, total // SPREAD)),
        column=column,
    )
    count = workers or max(1, min(usable_cores(), total // WORKER_WORTH))
    with atomic_folder(Path(folder)) as room, Workers(count, work) as pool:
        run = _Run(room, recipe, _jobs(parts, total), pool, progress)
        (room / WORK).mkdir()
        made = run.store(run.tokenizer(tokenizer, vocab_size), valid, test, seed)
        made.skipped = skipped | made.skipped
        made.warnings = why_not(recipe.classic) + made.warnings
        shutil.rmtree(room / WORK)
        settings = {"sources": [str(s) for s in ([sources] if isinstance(sources, str | Path) else sources)]}
        settings |= {"recipe": to_dict(recipe), "valid": valid, "test": test, "seed": seed}
        write_json(room / "prepare.json", settings)
        write_json(room / "report.json", made.to_dict())
        if report:
            write_atomic(room / "report.html", html(made))
    return Prepared(Path(folder), made)


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


@dataclass
class _Run:
    """One call of prepare, in its two passes over the corpus: a sample for the tokenizer, then all of it."""

    room: Path
    recipe: Recipe
    jobs: list[list[Part]]
    pool: Workers
    progress: OnProgress | None

    def tokenizer(self, given: str | Path | Tokenizer, vocab_size: int) -> Tokenizer:
        """The tokenizer given, loaded, or trained on a sample from all over the corpus."""
        if isinstance(given, Tokenizer):
            ready = given
        elif str(given) in KINDS:
            ready = train_tokenizer(self._sample(), str(given), vocab_size=vocab_size)
        elif Path(given).exists():
            ready = load_tokenizer(given)
        else:
            raise ConfigError(unknown("kind of tokenizer (and there is no such path):", str(given), KINDS))
        ready.save(self.room / "tokenizer")
        return ready

    def store(self, tokenizer: Tokenizer, valid: float, test: float, seed: int) -> Report:
        """Encode everything and write the shards; twice if no piece of a small corpus fell where one must.

        Raises:
            InputError: nothing is left, or too little to divide.
        """
        report, places = self._encode(tokenizer, valid, test, seed)
        if not len(places):
            raise InputError(
                f"nothing is left after cleaning: {report.losses() or 'there was no text'}. See `steps`, `quality`."
            )
        asked = [name for name, share in (("valid", valid), ("test", test)) if share > 0]
        if empty := [name for name in asked if name not in report.splits]:
            # The nearest piece to the edge moves over: with the same texts always the same piece.
            valid = float(places.min()) + 1e-12 if "valid" in empty else valid
            test = 1 - float(places.max()) + 1e-12 if "test" in empty else test
            report, places = self._encode(tokenizer, valid, test, seed)
            report.warnings.append(f"small corpus: {' and '.join(empty)} got one piece of text of {len(places)}")
        if missing := [name for name in ("train", *asked) if name not in report.splits]:
            raise InputError(
                f"after cleaning there is too little text to divide ({len(places)} pieces): nothing is left for "
                f"{' and '.join(missing)}. Give more text, or hold nothing out with valid=0 and test=0."
            )
        return report

    def _sample(self) -> Iterator[str]:
        """Cleaned texts from all over the corpus, at most SAMPLE characters."""
        total = _size(self.jobs)
        chosen = self.jobs[:: max(1, len(self.jobs) // SPREAD)] if total > SAMPLE else self.jobs
        size = max(1, _size(chosen))
        outs = [self.room / WORK / f"sample-{number:06d}" for number in range(len(chosen))]
        jobs = (
            sample_job(job, self.recipe, out, 1 + int(min(1.0, SAMPLE / size) * _size([job])))
            for job, out in zip(chosen, outs, strict=True)
        )
        for _ in self.pool.map(jobs, self._tick("reading a sample", size)):
            pass
        if self.progress:
            self.progress(Progress("training the tokenizer", 0))
        for out in outs:
            yield from read_json(out)

    def _encode(self, tokenizer: Tokenizer, valid: float, test: float, seed: int) -> tuple[Report, np.ndarray]:
        """Write the shards. Returns what happened, and where between 0 and 1 every kept piece fell."""
        report, seen = Report(), {name: Seen() for name in GLOBAL if name in self.recipe.steps}
        splits: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
        places: list[np.ndarray] = []
        outs = [self.room / WORK / f"job-{number:06d}" for number in range(len(self.jobs))]
        jobs = (
            shard_job(job, self.recipe, out, self.room / "tokenizer") for job, out in zip(self.jobs, outs, strict=True)
        )
        answers = self.pool.map(jobs, self._tick("cleaning and encoding", _size(self.jobs), splits))
        with closing(StoreWriter(self.room / SHARDS, tokenizer)) as writer:
            for out, answer in zip(outs, answers, strict=True):
                report.add(Report.from_dict(answer["report"]))
                for number in range(answer["chunks"]):
                    chunk = read_chunk(out, number)
                    kept = _drop_duplicates(chunk, seen, report, tokenizer)
                    places.append(positions(chunk.table[kept, KEY], seed))
                    split = choose(chunk.table[:, KEY], valid=valid, test=test, seed=seed)
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
            step.show(reason, tokenizer.decode(ids.tolist()))
    return kept


def _runs(chunk: Chunk, kept: np.ndarray, split: np.ndarray) -> Iterator[tuple[str, int, int]]:
    """(split, first piece, last piece) of each stretch of neighbouring pieces of one document that share a split:
    they were one text, and are stored as one document again."""
    pieces = np.flatnonzero(kept)
    if not len(pieces):
        return
    document = chunk.documents[pieces]
    new = (np.diff(pieces) > 1) | (np.diff(document) != 0) | (np.diff(split[pieces]) != 0)
    firsts = pieces[np.concatenate(([True], new))]
    lasts = pieces[np.concatenate((new, [True]))]
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        yield SPLITS[split[first]], first, last
