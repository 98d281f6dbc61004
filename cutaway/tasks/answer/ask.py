"""Answers out of a searched folder: the best passages are read together, and each answer says where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import ConfigError, InputError
from cutaway.tasks.answer.task import AnswerQuestions, Found
from cutaway.tasks.search import Hit, Index
from cutaway.tasks.task import is_blank

if TYPE_CHECKING:
    from cutaway.tasks.trained import TaskModel

PRIOR = 1.0  # nats for e times the fused score of a passage


@dataclass(frozen=True)
class Sourced:
    """An answer with its source.

    Attributes:
        answer: word for word; None: the passages that were read hold none.
        probability: that it is right, calibrated on single texts.
        source: the document; "": there is none.
        file: that it was read from.
        start: in characters of the document; None without an answer.
        end: behind the last.
        hit: the passage that it stands in.
        score: by which answers are ordered.
    """

    answer: str | None
    probability: float
    source: str = ""
    file: str = ""
    start: int | None = None
    end: int | None = None
    hit: Hit | None = None
    score: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def ask(
    index: Index,
    question: str,
    reader: TaskModel,
    *,
    top: int = 3,
    passages: int = 5,
    prior: float = PRIOR,
    **how: Any,
) -> list[Sourced]:
    """The answers to a question that stand in an index's documents, the likeliest first.

    Passages that the search finds are read, each by itself, as if they were windows of one long text. What is known of
    "no answer" in a single text is what is known here.

    Args:
        index: of the documents.
        question: to be answered.
        reader: a model of the task answer.
        top: answers at the most; of the same place once.
        passages: that are read.
        prior: how much the search's order counts beside what the reader makes of a passage.
        **how: as `Index.search` takes it.

    Returns:
        Answers; the first has no text where the reader finds none; [] where nothing was found to be read.

    Raises:
        ConfigError: a model of another task.
        InputError: an empty question.
    """
    task = reader.task
    if not isinstance(task, AnswerQuestions):
        raise ConfigError(
            f"a model of the task {task.name} answers no questions; train one with: cutaway task train answer"
        )
    if top < 1 or passages < 1:
        raise InputError(f"top and passages must be at least 1, but {top} and {passages} were given")
    hits = [hit for hit in index.search(question, passages, **how) if not is_blank(hit.text)]
    if not hits:
        return []
    examples = [reader.example({"question": question, "context": hit.text}) for hit in hits]
    raw: Sequence[Found] = reader.raw(examples)
    best = max(hit.score for hit in hits)
    spans = [
        (score + prior * float(np.log(max(hit.score, 1e-12) / best)) if best > 0 else score, number, start, end)
        for number, (hit, found) in enumerate(zip(hits, raw, strict=True))
        for score, start, end in found.spans
    ]
    order = _once(sorted(spans, key=lambda one: (-one[0], one[1:])), hits)
    whole = Found(tuple((score, place, place) for place, (score, *_) in enumerate(order)), min(one.none for one in raw))
    if not order:
        return [Sourced(None, chance_of(task, whole, reader.calibration)[1])]
    made = []
    for place, (score, number, start, end) in enumerate(order[:top]):
        said = Found((whole.spans[place], *whole.spans[:place], *whole.spans[place + 1 :]), whole.none)
        silent, chance = chance_of(task, said, reader.calibration)
        hit = hits[number]
        if silent:
            return made or [Sourced(None, chance)]
        document = hit.source, hit.file, hit.start + start, hit.start + end
        made.append(Sourced(hit.text[start:end], chance, *document, hit, score))
    return made


def chance_of(task: AnswerQuestions, found: Found, calibration: Any) -> tuple[bool, float]:
    """Whether the first stretch is kept silent about, and the calibrated probability of what is said."""
    spans, margin = task.said(found, calibration)
    return not spans, task.chance(margin, calibration)


def _once(spans: Sequence[tuple[float, int, int, int]], hits: Sequence[Hit]) -> list[tuple[float, int, int, int]]:
    """Each place of a document once: passages overlap."""
    seen: dict[tuple[str, int, int], tuple[float, int, int, int]] = {}
    for one in spans:
        _, number, start, end = one
        hit = hits[number]
        seen.setdefault((hit.source, hit.start + start, hit.start + end), one)
    return list(seen.values())
