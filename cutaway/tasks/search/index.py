"""An index on disk over a folder of documents: built, opened, brought up to date, and searched by words and by meaning.

index.json       its settings, the model, and the checksum of every file that was read
texts.bin …      the documents and their passages (see `store`)
words/           BM25 (see `words`): arrays and JSON
vectors.npy …    a vector for each passage (see `vectors`), where a model makes them
manifest.json    the checksum of every file above
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cutaway import __version__
from cutaway.errors import ConfigError, CutawayError, DamagedFile, InputError
from cutaway.files import HALF, MANIFEST, atomic_folder, holds, inside, read_json, sha256, verify, write_json
from cutaway.generation import Engine
from cutaway.models import Model, load_model
from cutaway.progress import OnProgress, Progress
from cutaway.settings import build
from cutaway.tasks.search.fusion import Hit, fuse, hits_of
from cutaway.tasks.search.passages import passages
from cutaway.tasks.search.store import Store, StoreWriter, load_store
from cutaway.tasks.search.vectors import PROBE, VectorIndex, check_same, embedded
from cutaway.tasks.search.words import WordIndex, cutter, usual_segmenter
from cutaway.text.readers import find, read_part
from cutaway.text.readers.base import OnSkipped, Part, Skipped, skipped_for
from cutaway.text.readers.streams import os_errors

INDEX, WORDS = "index.json", "words"
FORMAT = 1
HOW = ("hybrid", "words", "vectors")


@dataclass(frozen=True)
class IndexSettings:
    """How documents are cut and counted.

    Raises:
        ConfigError: a value is out of range.
    """

    size: int = 800  # letters of a passage; a Chinese character counts for three
    overlap: int = 160  # letters with which the next passage begins again, whole sentences of them
    segmenter: str = ""  # of Chinese: jieba or characters; "": jieba where it is installed
    language: str = ""  # whose endings are cut off (en, de …); "": none are
    graph_from: int = 50_000  # passages from which on a graph is searched, instead of comparing all

    def __post_init__(self) -> None:
        for name, least in {"size": 20, "overlap": 0, "graph_from": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, but {getattr(self, name)} was given")
        if self.overlap >= self.size:
            raise ConfigError(f"overlap ({self.overlap}) must be smaller than size ({self.size})")


@dataclass(frozen=True)
class Changes:
    """What building or updating did, in files and passages.

    Attributes:
        added: files that are new.
        changed: files that hold something else now.
        removed: files that are gone.
        kept: files that are as they were, and were not read again.
        passages: in the index now.
        embedded: of them, those whose vectors were computed.
    """

    added: list[str]
    changed: list[str]
    removed: list[str]
    kept: int
    passages: int
    embedded: int


@dataclass(eq=False)
class Index:
    """Documents that can be searched.

    Attributes:
        folder: where it lies.
        settings: with which it was built.
        sources: files and folders that it is of.
        files: path -> SHA-256 of what was read.
        store: documents and passages.
        words: BM25.
        vectors: of passages; None where it searches by words alone.
        about: of the model: "source", "probe".
        changes: what building or updating it has done.
    """

    folder: Path
    settings: IndexSettings
    sources: list[str]
    files: dict[str, str]
    store: Store
    words: WordIndex
    vectors: VectorIndex | None = None
    about: dict[str, Any] = field(default_factory=dict)
    changes: Changes | None = None
    _model: Model | str | None = None
    _engine: Engine | None = None

    def __len__(self) -> int:
        """Passages."""
        return len(self.store.passages)

    @property
    def engine(self) -> Engine:
        """What makes vectors of questions, opened when it is first needed.

        Raises:
            ConfigError: the index has no vectors, or the model is not there or not the one that it was built with.
        """
        if self.vectors is None:
            raise ConfigError(f"{self.folder} was built without a model, so it is searched by words alone")
        if self._engine is None:
            if not (made := self._model or self.about["source"]):
                raise ConfigError(f"{self.folder} was built with a model that lay nowhere; open it with model=…")
            engine = _engine_of(made)
            check_same(engine, self.about["probe"], str(engine.model.source or "the model"))
            self._engine = engine
        return self._engine

    def cut(self, text: str) -> list[str]:
        """A question or passage in the words that are counted."""
        return cutter(self.settings.segmenter, self.settings.language)(text)

    def search(
        self, question: str, top: int = 10, *, how: str = "", rerank: Any = None, pool: int = 100, k: int = 60
    ) -> list[Hit]:
        """The passages that answer a question best, the best first.

        Args:
            question: words, or a sentence.
            top: how many at the most.
            how: "hybrid" joins both rankings by reciprocal ranks, "words" is BM25 alone, "vectors" meaning alone; "":
                hybrid where there are vectors.
            rerank: a TaskModel of two texts that orders the best of `pool` anew by its probability.
            pool: passages that each way finds before they are joined.
            k: of the reciprocal rank (Cormack et al. 2009).

        Raises:
            InputError: an empty question, or a number that is none.
            ConfigError: a way that this index does not know.
        """
        if not isinstance(question, str) or not question.strip():
            raise InputError("the question is empty; give some words")
        if min(top, pool) < 1 or k < 0:
            raise InputError(f"top and pool must be at least 1 and k at least 0, but {top}, {pool} and {k} were given")
        how = how or ("hybrid" if self.vectors is not None else "words")
        if how not in HOW:
            raise ConfigError(f"an index is searched by {', '.join(HOW)}, but {how!r} was given")
        pool = max(pool, top)
        by_word = self.by_words(question, pool) if how != "vectors" else {}
        by_vector = self.by_vectors(question, pool) if how != "words" else {}
        scores = fuse([list(by_word), list(by_vector)], k) if how == "hybrid" else by_word or by_vector
        return hits_of(self.store, question, scores, by_word, by_vector, top, rerank, pool)

    def by_words(self, question: str, count: int) -> dict[int, float]:
        """Passages with a word of the question by their BM25 score, the best first."""
        scores = self.words.scores(self.cut(question))
        some = np.flatnonzero(scores > 0)
        order = some[np.lexsort((some, -scores[some]))][:count]
        return dict(zip(order.tolist(), scores[order].tolist(), strict=True))

    def by_vectors(self, question: str, count: int) -> dict[int, float]:
        """Passages by the cosine of their vector and the question's, the best first."""
        vector = embedded(self.engine, [question])[0]
        assert self.vectors is not None
        order, cosines = self.vectors.nearest(vector, count)
        return dict(zip(order.tolist(), cosines.tolist(), strict=True))

    def why(self, question: str, hit: Hit) -> Any:
        """What a hit is owed to: words that add up to its BM25 score, and tokens that add up to its cosine."""
        from cutaway.tasks.search.reasons import reasons

        return reasons(self, question, hit)

    def update(
        self,
        sources: Sequence[str] | None = None,
        *,
        skipped: OnSkipped | None = None,
        progress: OnProgress | None = None,
    ) -> Changes:
        """Read what is new or has changed, forget what is gone, and leave the rest as it is.

        Files are told apart by their checksums; a passage that was there before keeps its vector. The folder is
        replaced as a whole, so that who reads it meanwhile sees the old index or the new one.

        Args:
            sources: other files and folders than those that it was built of.
            skipped: told of files that cannot be read.
            progress: told at every stage.

        Raises:
            InputError: a source is not there, or there is no text in them.
        """
        engine = self.engine if self.vectors is not None else None
        given = list(sources or self.sources)
        made = _make(self.folder, given, self.settings, engine, self, skipped, progress)
        for name in ("sources", "files", "store", "words", "vectors", "about", "changes"):
            setattr(self, name, getattr(made, name))
        assert self.changes is not None
        return self.changes


def build_index(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    model: Model | str | None = None,
    settings: IndexSettings | Mapping[str, Any] | None = None,
    skipped: OnSkipped | None = None,
    progress: OnProgress | None = None,
) -> Index:
    """Make an index of files and folders.

    Args:
        sources: text, Markdown, HTML, PDF, tables, JSON …, or folders of them.
        out: the folder to make.
        model: that embeds, or where it is; None: the index is searched by words alone.
        settings: how documents are cut.
        skipped: told of files that cannot be read.
        progress: told at every stage.

    Raises:
        InputError: `out` is there already, a source is not, or there is no text in them.
        ConfigError: a setting that is none, or a model that does not embed.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already; bring it up to date with --update, or choose another folder")
    given = [str(one) for one in ([sources] if isinstance(sources, str | Path) else sources)]
    chosen = settings if isinstance(settings, IndexSettings) else build(IndexSettings, dict(settings or {}))
    if not chosen.segmenter:
        chosen = replace(chosen, segmenter=usual_segmenter())
    cutter(chosen.segmenter, chosen.language)  # for its errors, before anything is read
    return _make(out, given, chosen, None if model is None else _engine_of(model), None, skipped, progress)


def open_index(folder: str | Path, *, model: Model | str | None = None) -> Index:
    """Open an index; every file is checked against its checksum.

    What is opened stays as it is while another program brings the folder up to date.

    Args:
        folder: as `build_index` made it.
        model: that embeds questions, where it is elsewhere now.

    Raises:
        InputError: no such folder, or no index in it.
        DamagedFile: a file is damaged, named.
        ConfigError: made by another version, or a model was given and the index has no vectors.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; make an index with: cutaway task index docs --out {folder}")
    if not holds(folder, INDEX):
        raise InputError(
            f"{folder} holds no {INDEX}, so it is no index; make one with: cutaway task index docs --out idx"
        )
    sealed, found = _seal_of(folder), None
    try:
        found = _opened(folder, model)
    except (CutawayError, OSError):
        if _seal_of(folder) == sealed:
            raise
    # where the folder was replaced meanwhile, what was read may be of both
    return found if found is not None and _seal_of(folder) == sealed else open_index(folder, model=model)


def _seal_of(folder: Path) -> bytes:
    """The checksums of its files, which tell one state of a folder from the next."""
    path = folder / MANIFEST
    return path.read_bytes() if path.is_file() else b""


def _opened(folder: Path, model: Model | str | None) -> Index:
    verify(folder)
    record = read_json(inside(folder, INDEX))
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ConfigError(f"{folder / INDEX} is of another version of Cutaway; build the index again")
    try:
        settings = build(IndexSettings, record["settings"])
        sources, files = [str(one) for one in record["sources"]], dict(record["files"])
        about = dict(record["model"] or {})
        if about:
            about = {"source": str(about["source"] or ""), "probe": [float(one) for one in about["probe"]]}
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(f"{folder / INDEX} lacks what an index is made of ({error}); build it again") from error
    store = load_store(folder)
    words = WordIndex.load(folder, WORDS, len(store.passages))
    if model is not None and not about:
        raise ConfigError(f"{folder} was built without a model, so it has no vectors; build it again with one")
    vectors = VectorIndex.load(folder, len(store.passages)) if about else None
    return Index(folder, settings, sources, files, store, words, vectors, about, _model=model)


def _engine_of(model: Model | str) -> Engine:
    made = model if isinstance(model, Model) else load_model(model)
    if getattr(made.config, "head", "") != "embedding":
        raise ConfigError(
            f"{made.source or 'the model'} makes no vectors of texts; give one that embeds, such as "
            "sentence-transformers/all-MiniLM-L6-v2, or one of: cutaway task train embed"
        )
    return Engine(made)


def _make(
    out: Path,
    sources: list[str],
    settings: IndexSettings,
    engine: Engine | None,
    old: Index | None,
    skipped: OnSkipped | None,
    progress: OnProgress | None,
) -> Index:
    """Write an index, with what an older one has already."""
    parts: dict[str, list[Part]] = {}
    tell = skipped or (lambda _: None)
    for part in find(sources, skipped=skipped):
        if HALF.search(part.path):
            tell(Skipped(part.name, "its name is no text in UTF-8; rename it"))
        elif not _within(part.path, out):
            parts.setdefault(part.path, []).append(part)
    before = old.files if old else {}
    files: dict[str, str] = {}
    kept, added, changed = 0, [], []
    with atomic_folder(out) as room:
        writer = StoreWriter(room)
        for number, (path, some) in enumerate(parts.items()):
            if progress:
                progress(Progress("reading", number, len(parts), "files"))
            try:
                with os_errors(path):
                    checksum = sha256(Path(path))
            except InputError as error:
                if some[0].asked:
                    raise
                tell(skipped_for(path, error))
                continue
            if old is not None and before.get(path) == checksum:
                kept += 1
                files[path] = checksum
                _copy(old.store, path, writer)
                continue
            count = len(writer.documents)
            for part in some:
                for document in read_part(part, skipped=skipped):
                    if document.text.strip():
                        title = str(document.meta.get("title", ""))
                        cuts = passages(document.text, settings.size, settings.overlap)
                        writer.add(document.source, path, title, document.text, cuts)
            if len(writer.documents) > count:  # else it is read again the next time: it may be readable then
                files[path] = checksum
                (changed if path in before else added).append(path)
        store = writer.close()
        if not len(store.passages):
            raise InputError(f"there is no text in {', '.join(sources[:3])}, so nothing can be searched")
        cut = cutter(settings.segmenter, settings.language)
        words = WordIndex.of([cut(text) for text in _told(store, "counting words", progress)])
        (room / WORDS).mkdir()
        words.save(room / WORDS)
        vectors, computed, about = None, 0, {}
        if engine is not None:
            matrix, computed = _vectors(store, engine, old, progress)
            vectors = VectorIndex.of(matrix, graph=len(matrix) >= settings.graph_from)
            vectors.save(room)
            about = {"source": engine.model.source, "probe": embedded(engine, [PROBE])[0].tolist()}
        record = {"format": FORMAT, "cutaway": __version__, "settings": asdict(settings), "sources": sources}
        write_json(room / INDEX, {**record, "files": files, "model": about or None})
    removed = [path for path in before if path not in files]
    changes = Changes(added, changed, removed, kept, len(store.passages), computed)
    store.folder = out
    return Index(out, settings, sources, files, store, words, vectors, about, changes, _engine=engine)


def _within(path: str, folder: Path) -> bool:
    """Whether a file lies in a folder: an index in the folder that it is of does not read itself."""
    return os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)


def _copy(store: Store, path: str, writer: StoreWriter) -> None:
    """What an older store holds of a file."""
    for number in store.of_file.get(path, ()):
        document = store.documents[number]
        first, last = np.searchsorted(store.passages[:, 0], (number, number + 1)).tolist()
        cuts = [(start, end) for _, start, end in store.passages[first:last].tolist()]
        writer.add(document.source, path, document.title, store.text(number), cuts)


def _told(store: Store, what: str, progress: OnProgress | None) -> Iterable[str]:
    for number, text in enumerate(store.all_passages()):
        if progress and number % 4096 == 0:
            progress(Progress(what, number, len(store.passages), "passages"))
        yield text


def _vectors(store: Store, engine: Engine, old: Index | None, progress: OnProgress | None) -> tuple[np.ndarray, int]:
    """A vector for each passage, and how many were computed: the others were there."""
    known: dict[str, int] = {}
    matrix = np.zeros((0, 0), np.float32)
    if old is not None and old.vectors is not None:
        matrix = np.asarray(old.vectors.matrix)
        known = {text: number for number, text in enumerate(old.store.all_passages())}
    texts = list(store.all_passages())
    fresh = list(dict.fromkeys(text for text in texts if text not in known))
    made = embedded(engine, fresh, progress)
    place = {text: number for number, text in enumerate(fresh)}
    rows = [made[place[text]] if text in place else matrix[known[text]] for text in texts]
    return np.stack(rows).astype(np.float32), len(fresh)
