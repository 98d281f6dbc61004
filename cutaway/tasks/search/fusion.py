"""Hits, and how rankings become one: reciprocal-rank fusion (Cormack, Clarke & Büttcher 2009), and re-ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cutaway.errors import ConfigError
from cutaway.tasks.search.store import Store


@dataclass(frozen=True)
class Part:
    """What one way of searching says of a hit.

    Attributes:
        rank: from 1.
        score: BM25's, or the cosine.
    """

    rank: int
    score: float


@dataclass(frozen=True)
class Hit:
    """A passage that was found.

    Attributes:
        passage: its number in the index.
        source: the document.
        file: that the document was read from.
        title: of the document; "": it says none.
        start: in characters of the document.
        end: behind the last.
        text: what stands there, word for word.
        score: by which hits are ordered.
        words: what BM25 says of it; None: it is not among its best.
        vectors: what the vectors say of it, likewise.
        probability: of the model that orders anew; None without one.
    """

    passage: int
    source: str
    file: str
    title: str
    start: int
    end: int
    text: str
    score: float
    words: Part | None = None
    vectors: Part | None = None
    probability: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def fuse(rankings: Sequence[Sequence[int]], k: int = 60) -> dict[int, float]:
    """Σ 1 / (k + rank) over the rankings that a passage is in, the highest first.

    Args:
        rankings: passages, the best first.
        k: how little the first ranks count above the others.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, passage in enumerate(ranking, 1):
            scores[passage] = scores.get(passage, 0.0) + 1 / (k + rank)
    return dict(sorted(scores.items(), key=lambda one: (-one[1], one[0])))


def hits_of(
    store: Store,
    question: str,
    scores: Mapping[int, float],
    by_word: Mapping[int, float],
    by_vector: Mapping[int, float],
    top: int,
    rerank: Any,
    pool: int,
) -> list[Hit]:
    """The best passages with what is known of them, ordered anew where a model does that."""
    parts = [
        {passage: Part(rank, score) for rank, (passage, score) in enumerate(found.items(), 1)}
        for found in (by_word, by_vector)
    ]
    hits = []
    for passage in list(scores)[: pool if rerank is not None else top]:
        number, start, end = store.passages[passage].tolist()
        document = store.documents[number]
        place = (document.source, document.file, document.title, start, end, store.text(number)[start:end])
        hits.append(Hit(passage, *place, scores[passage], parts[0].get(passage), parts[1].get(passage)))
    return hits if rerank is None else reranked(rerank, question, hits)[:top]


def reranked(model: Any, question: str, hits: Sequence[Hit]) -> list[Hit]:
    """Hits in the order of a model's probability that a passage belongs to the question.

    Args:
        model: a TaskModel that reads two texts; the probability is that of the label which another one only denies
            ("relevant", "irrelevant"; "entailment", "not_entailment"), else that of the last ("no", "yes"; "0", "1").
        question: that was asked.
        hits: to order.

    Raises:
        ConfigError: the model reads something else.
    """
    asked = [role.name for role in model.task.roles if not role.answer]
    if len(asked) != 2 or not model.labels:
        raise ConfigError(
            f"the task {model.task.name} does not judge two texts; train one with: cutaway task train pair"
        )
    first, second = asked
    answers = model.predict([{first: question, second: hit.text} for hit in hits])
    wanted = belongs(model.labels)
    chances = [float(answer.more["probabilities"][wanted]) for answer in answers]
    both = sorted(zip(chances, range(len(hits)), strict=True), key=lambda one: (-one[0], one[1]))
    return [Hit(**{**vars(hits[place]), "score": chance, "probability": chance}) for chance, place in both]


def belongs(labels: Sequence[str]) -> str:
    """The label that says that two texts belong together, see `reranked`."""
    denied = (
        label
        for label in labels
        if not label.isdecimal() and any(other != label and other.lower().endswith(label.lower()) for other in labels)
    )
    return next(denied, labels[-1])
