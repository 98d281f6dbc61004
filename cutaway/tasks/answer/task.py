"""Answers to questions, word for word out of a text, or the word that it holds none.

Shapes: N examples, T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.models import Model
from cutaway.progress import OnProgress
from cutaway.tasks.answer import counting
from cutaway.tasks.answer.chances import best_none, logistic, sure
from cutaway.tasks.answer.known import Known, known_answers
from cutaway.tasks.answer.simple import likeliest_sentences
from cutaway.tasks.answer.windows import Pieces, Window, Windows, places_in
from cutaway.tasks.figures import mean_of
from cutaway.tasks.reading import arrays, read_all
from cutaway.tasks.task import Answer, Example, Measured, Role, Task, text_of
from cutaway.text.bag import HAN
from cutaway.training.objectives import Objective, SpanExtraction
from cutaway.training.rows import Parts

if TYPE_CHECKING:
    from cutaway.generation import Engine

QUESTION = Role("question", "the question", ("query", "asked", "问题"))
CONTEXT = Role(
    "context", "the text that is asked", ("passage", "text", "paragraph", "document", "article", "文章", "段落")
)
ANSWER = Role(
    "answer",
    "the answer in the text",
    ("answers", "answer_text", "span", "label", "答案"),
    answer=True,
)
START = Role(
    "start", "the place of its first character", ("answer_start", "offset", "begin"), needed=False, answer=True
)
KEPT, TRIED = 10, 20  # answers that are kept of a text; first and last places of a window that are tried
HAN_SHARE = 0.3  # of texts with Chinese characters, from which on answers are counted by characters


@dataclass(frozen=True)
class Found:
    """What a network makes of a question and a text.

    Attributes:
        spans: (score, start, end) of stretches of characters, the best first; the score is a sum of two logits.
        none: the score of there being no answer: the lowest of all windows, as an answer in one is an answer.
    """

    spans: tuple[tuple[float, int, int], ...]
    none: float


@dataclass(frozen=True)
class AnswerQuestions(Task):
    """Find the answer to a question in a text, word for word; or that it holds none."""

    none: Literal["auto", "yes", "no"] = "auto"  # may a text hold no answer? auto: as the data has it
    window: int = 320  # tokens read at once, question included
    overlap: int = 96  # tokens of the text that two windows share
    longest: int = 30  # tokens of an answer
    strangers: int = (
        0  # for each question, other texts that it is shown with while it learns to say that they hold none
    )
    counting: Literal["auto", "words", "characters"] = "auto"  # as SQuAD's script counts, or CMRC's; auto: by script

    name: ClassVar[str] = "answer"
    summary: ClassVar[str] = "the answer to a question, word for word out of a text"
    roles: ClassVar[tuple[Role, ...]] = (QUESTION, CONTEXT, ANSWER, START)
    metric: ClassVar[str] = "f1"
    kinds: ClassVar[tuple[str, ...]] = ("encoder",)
    one_truth: ClassVar[bool] = False  # several people may have marked several answers
    baseline_name: ClassVar[str] = "the sentence that shares most with the question (TF-IDF)"

    def __post_init__(self) -> None:
        for name, least in {"window": 16, "overlap": 0, "longest": 1, "strangers": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, but {getattr(self, name)} was given")

    def example(self, source: str, values: Mapping[str, Any], *, answered: bool) -> Example:
        question, context = text_of(values, "question", "the question"), text_of(values, "context", "the text")
        truth = None
        if "answer" in values:
            if values["answer"] is None and answered:
                raise InputError("the answer is missing; leave it empty where the text holds none")
            truth = known_answers(values["answer"], values.get("start"), context)
        return Example(source, {"question": question, "context": context}, truth)

    def texts(self, example: Example) -> list[str]:
        return [example.given["question"], example.given["context"]]

    def together(self, example: Example) -> list[str]:
        return [example.given["context"]]

    def settle(self, examples: Sequence[Example]) -> Task:
        made = self
        if self.none == "auto":
            made = replace(made, none="yes" if any(not example.truth for example in examples) else "no")
        if self.counting == "auto":
            chinese = sum(bool(HAN.search(example.given["context"])) for example in examples)
            made = replace(made, counting="characters" if chinese > HAN_SHARE * len(examples) else "words")
        return made

    def check(self, examples: Mapping[str, Sequence[Example]], labels: tuple[str, ...]) -> list[str]:
        notes = []
        for name, some in examples.items():
            without = [example for example in some if not example.truth]
            if without and self.none == "no":
                raise InputError(
                    f"{name} has {len(without):,} questions without an answer, the first at {without[0].source}, but "
                    "none='no' leaves none to be said; set none to 'yes'"
                )
            if len(without) == len(some):
                raise InputError(f"no question of {name} has an answer, so there is nothing to learn")
            texts = len({example.given["context"] for example in some})
            empty = f", {len(without):,} without an answer" if without else ""
            notes.append(f"{name}: {len(some):,} questions about {texts:,} texts{empty}")
        return notes

    # training

    def features(self, labels: tuple[str, ...]) -> dict[str, Any]:
        return {"head": "span_extraction", "head_activation": "none"}

    def objective(self, examples: Sequence[Example], labels: tuple[str, ...]) -> Objective:
        return SpanExtraction(longest=self.longest)

    def encode(self, model: Model, examples: Sequence[Example], context: int) -> tuple[Parts, list[int]]:
        windows = Windows(model, min(context, self.window), self.overlap)
        rows: list[Window] = []
        spans: list[np.ndarray] = []
        owners: list[int] = []
        draw = np.random.default_rng(len(examples))
        for owner, example in enumerate(examples):
            asked, text = example.given["question"], example.given["context"]
            pieces = windows.pieces(text)
            shown = [(window, _spans(window, pieces, example.truth)) for window in windows(asked, text)]
            for number in draw.integers(0, len(examples), self.strangers).tolist():
                other = examples[number].given["context"]
                if other != text:
                    shown.append((windows(asked, other)[0], np.zeros((1, 2), np.int64)))
            rows += [window for window, _ in shown]
            spans += [places for _, places in shown]
            owners += [owner] * len(shown)
        parts: dict[str, list[np.ndarray]] = {
            "ids": arrays([window.ids for window in rows]),
            "allowed": [window.allowed.astype(np.int64) for window in rows],
            "spans": spans,
        }
        if getattr(model.config, "token_types", 0):
            parts["types"] = arrays([window.types for window in rows])
        return parts, owners

    # answers

    def infer(self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None = None) -> list[Found]:
        windows = Windows(engine.model, self.window, self.overlap)
        made = [windows(example.given["question"], example.given["context"]) for example in examples]
        rows = [window for some in made for window in some]
        read = iter(read_all(engine, [row.ids for row in rows], [row.types for row in rows], progress=progress))
        found = []
        for example, some in zip(examples, made, strict=True):
            text = example.given["context"]
            found.append(gathered(text, windows.pieces(text), [(w, next(read)) for w in some], self.longest))
        return found

    def calibrate(self, raw: Sequence[Found], examples: Sequence[Example], labels: tuple[str, ...]) -> dict[str, Any]:
        learned: dict[str, Any] = {}
        if self.none == "yes":
            best = np.array(
                [self._right(one.spans[:1], example)[0] for one, example in zip(raw, examples, strict=True)]
            )
            silent = np.array([self._right((), example)[0] for example in examples])
            gaps = np.array([one.none - (one.spans[0][0] if one.spans else -np.inf) for one in raw])
            learned["threshold"] = best_none(gaps, best, silent)
        said = [self.said(one, learned) for one in raw]
        right = np.array([self._right(spans, example)[1] for (spans, _), example in zip(said, examples, strict=True)])
        learned["scale"], learned["shift"] = logistic(np.array([margin for _, margin in said]), right)
        return learned

    def said(self, raw: Found, calibration: Mapping[str, Any]) -> tuple[tuple[tuple[float, int, int], ...], float]:
        """The stretch that is said, or none; and by how much it is likelier than all else, in nats."""
        rest = np.array([score for score, _, _ in raw.spans] + [raw.none] * (self.none == "yes"))
        silent = not raw.spans or (
            self.none == "yes" and raw.none - raw.spans[0][0] > calibration.get("threshold", 0.0)
        )
        if silent:
            return (), sure(raw.none, rest[:-1])
        return raw.spans[:1], sure(raw.spans[0][0], rest[1:])

    def chance(self, margin: float, calibration: Mapping[str, Any]) -> float:
        """The probability that what is said by so much is exactly right."""
        scaled = calibration.get("scale", 1.0) * margin + calibration.get("shift", 0.0)
        return float(1 / (1 + np.exp(-np.clip(scaled, -60, 60))))

    def _right(self, spans: Sequence[tuple[float, int, int]], example: Example) -> tuple[float, float]:
        """F1 and exact match of a stretch."""
        said = example.given["context"][spans[0][1] : spans[0][2]] if spans else ""
        return self._counted(said, example)

    def _counted(self, said: str, example: Example) -> tuple[float, float]:
        known: list[str] = [one.text for one in example.truth]
        script: counting.Script = "characters" if self.counting == "characters" else "words"
        return counting.f1(said, known, script), counting.exact(said, known, script)

    def answer(self, raw: Found, example: Example, labels: tuple[str, ...], calibration: Mapping[str, Any]) -> Answer:
        spans, margin = self.said(raw, calibration)
        chance, text, none = self.chance(margin, calibration), example.given["context"], raw.none
        others = [
            {"text": text[start:end], "start": start, "end": end, "score": score} for score, start, end in raw.spans[:5]
        ]
        told: dict[str, Any] = {"start": None, "end": None, "none": none, "candidates": others}
        if not spans:
            return Answer(None, chance, told)
        _, start, end = spans[0]
        return Answer(text[start:end], chance, {**told, "start": start, "end": end})

    # figures

    def measure(self, answers: Sequence[Answer], examples: Sequence[Example], labels: tuple[str, ...]) -> Measured:
        both = [self._counted(a.answer or "", example) for a, example in zip(answers, examples, strict=True)]
        f1, exact = np.array(both).T
        quantities = [mean_of("f1", f1), mean_of("exact", exact)]
        kinds = {"with an answer": np.array([bool(e.truth) for e in examples])}
        if not kinds["with an answer"].all():
            kinds["without an answer"] = ~kinds["with an answer"]
            said = np.array([a.answer is not None for a in answers])
            quantities.append(mean_of("said_rightly_whether", said == kinds["with an answer"]))
        rows: list[list[Any]] = [
            [name, float(f1[some].mean()), float(exact[some].mean()), int(some.sum())]
            for name, some in kinds.items()
            if some.any()
        ]
        return Measured(tuple(quantities), exact, (("Questions", ["", "F1", "exact", "questions"], rows),))

    def baseline(
        self, train: Sequence[Example], test: Sequence[Example], labels: tuple[str, ...], *, seed: int = 0
    ) -> list[Answer] | None:
        asked = [(example.given["question"], example.given["context"]) for example in test]
        made = []
        for (_, text), (start, end) in zip(asked, likeliest_sentences(asked), strict=True):
            made.append(Answer(text[start:end], None, {"start": start, "end": end}))
        return made

    # why

    def why(self, model: Model, example: Example, answer: Answer, *, method: str = "", part: int = 0) -> Any:
        from cutaway.tasks.answer.reasons import reasons

        windows = Windows(model, self.window, self.overlap)
        return reasons(model, windows, example, answer, method=method, part=part)


def _spans(window: Window, pieces: Pieces, truth: Sequence[Known]) -> np.ndarray:
    """The places of all right answers in a window, (K, 2); (0, 0) where it holds none."""
    found = [places_in(window, pieces, *place) for known in truth for place in known.places]
    kept = list(dict.fromkeys(place for place in found if place is not None))
    return np.array(kept or [(0, 0)], np.int64)


def gathered(text: str, pieces: Pieces, read: Sequence[tuple[Window, Tensor]], longest: int) -> Found:
    """The best stretches of all windows, each once, in characters.

    Args:
        text: that was read.
        pieces: of it.
        read: windows, and (T, 2) logits of each.
        longest: tokens of a stretch.
    """
    best: dict[tuple[int, int], float] = {}
    none = np.inf
    for window, logits in read:
        scores = logits.double().numpy()
        none = min(none, float(scores[0].sum()))
        inside = np.flatnonzero(window.tokens >= 0)
        starts, ends = (inside[np.argsort(-scores[inside, side], kind="stable")[:TRIED]] for side in (0, 1))
        for begin in starts.tolist():
            for stop in ends.tolist():
                if not begin <= stop < begin + longest:
                    continue
                place = trimmed(text, int(pieces.starts[window.tokens[begin]]), int(pieces.ends[window.tokens[stop]]))
                score = float(scores[begin, 0] + scores[stop, 1])
                if place[0] < place[1] and score > best.get(place, -np.inf):
                    best[place] = score
    order = sorted(((score, *place) for place, score in best.items()), key=lambda one: (-one[0], one[1], one[2]))
    return Found(tuple(order[:KEPT]), none)


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A stretch without the white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
