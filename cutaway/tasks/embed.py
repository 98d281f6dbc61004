"""Vectors of texts: what belongs together lies close to each other.

Learned from pairs (a question and its answer, two wordings), from pairs with a text that is hard to tell from the
partner, or from texts with labels, of which those with the same label belong together.

Shapes: N examples, E channels of a vector.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cutaway.errors import ConfigError, InputError, need
from cutaway.models import Model
from cutaway.progress import OnProgress
from cutaway.tasks.figures import mean_of
from cutaway.tasks.reading import arrays, framed, read_all
from cutaway.tasks.task import Answer, Example, Measured, Quantity, Role, Task, text_of
from cutaway.training.objectives import Contrast, Objective
from cutaway.training.rows import Parts

if TYPE_CHECKING:
    from cutaway.generation import Engine

TEXT = Role(
    "text", "the text", ("anchor", "query", "question", "sentence1", "text1", "sentence", "utterance", "问题", "文本")
)
POSITIVE = Role(
    "positive",
    "the text that belongs to it",
    ("pos", "answer", "passage", "sentence2", "text2", "paraphrase", "document", "答案"),
    needed=False,
    answer=True,
)
NEGATIVE = Role("negative", "a text that does not, but seems to", ("neg", "hard_negative"), needed=False, answer=True)
LABEL = Role(
    "label", "what texts of one kind share", ("class", "category", "intent", "标签"), needed=False, answer=True
)
SCORE = Role(
    "score", "how alike the two are", ("similarity", "similarity_score", "relatedness"), needed=False, answer=True
)
CUTS = (1, 5, 10)


@dataclass(frozen=True)
class Partner:
    """What belongs to a text.

    Attributes:
        positive: its partner; "": it has a label instead.
        negative: a text that is hard to tell from the partner; "": none.
        label: that other texts share; "": none.
        score: how alike the two are, where that is graded.
    """

    positive: str = ""
    negative: str = ""
    label: str = ""
    score: float | None = None

    def __str__(self) -> str:
        return self.positive or self.label


@dataclass(frozen=True)
class Embed(Task):
    """A vector for each text, so that what belongs together is close."""

    temperature: float = 0.05  # of the choice among the batch's partners
    symmetric: bool = True  # a partner also chooses its text
    alike: float = 0.5  # where pairs are graded: from which share of the highest grade on they are learned as partners

    name: ClassVar[str] = "embed"
    summary: ClassVar[str] = "a vector for each text, close where texts belong together"
    roles: ClassVar[tuple[Role, ...]] = (TEXT, POSITIVE, NEGATIVE, LABEL, SCORE)
    metric: ClassVar[str] = "mrr"
    kinds: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    one_truth: ClassVar[bool] = False
    alone: ClassVar[bool] = False
    baseline_name: ClassVar[str] = "cosine of TF-IDF vectors"

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not 0 <= self.alike <= 1:
            raise ConfigError(
                f"temperature must be above 0 and alike in 0 … 1, but {self.temperature} and {self.alike} were given"
            )

    def example(self, source: str, values: Mapping[str, Any], *, answered: bool) -> Example:
        text, truth = text_of(values, "text", "the text"), None
        given = {role: values.get(role) for role in ("positive", "negative", "label", "score")}
        given = {role: value for role, value in given.items() if value not in (None, "")}
        if given.keys() & {"positive", "label"}:
            texts = {
                role: text_of(values, role, f"the {role} text") for role in ("positive", "negative") if role in given
            }
            label = str(given.get("label", "")) if "positive" not in given else ""
            truth = Partner(**texts, label=label, score=_grade(given.get("score")))
        elif answered:
            raise InputError("there is neither a text that belongs to it (positive) nor a label")
        return Example(source, {"text": text}, truth)

    def texts(self, example: Example) -> list[str]:
        partner = example.truth or Partner()
        return [example.given["text"], partner.positive] if partner.positive else [example.given["text"]]

    def together(self, example: Example) -> list[str]:
        return [example.given["text"]]

    def stratum(self, example: Example) -> str:
        return example.truth.label

    def check(self, examples: Mapping[str, Sequence[Example]], labels: tuple[str, ...]) -> list[str]:
        train = examples["train"]
        learned = self._learned(train)
        if len(learned) < 2:
            raise InputError(f"{len(learned)} of {len(train):,} rows are pairs to learn from; at least 2 are needed")
        kinds = {example.truth.label for example in train if not example.truth.positive}
        if len(kinds) == 1 and all(not example.truth.positive for example in train):
            raise InputError(f"all texts have the label {kinds.pop()!r}, so there is nothing to tell apart")
        if any(example.truth.negative for example in train) and not all(example.truth.negative for example in learned):
            raise InputError("some rows have a negative text and some have none; give one in every row, or in none")
        left = len(train) - len(learned)
        return [f"{left:,} pairs of train are graded too low to be learned as partners"] * bool(left)

    def _learned(self, examples: Sequence[Example]) -> list[Example]:
        """Those that are partners: all, or where pairs are graded those with a high grade."""
        grades = [example.truth.score for example in examples if example.truth.score is not None]
        least = self.alike * max(grades) if grades else 0.0
        return [example for example in examples if example.truth.score is None or example.truth.score >= least]

    # training

    def features(self, labels: tuple[str, ...]) -> dict[str, Any]:
        return {"head": "embedding", "pooling": "mean", "normalize": True}

    def objective(self, examples: Sequence[Example], labels: tuple[str, ...]) -> Objective:
        return Contrast(temperature=self.temperature, symmetric=self.symmetric)

    def encode(self, model: Model, examples: Sequence[Example], context: int) -> tuple[Parts, list[int]]:
        learned = {id(example) for example in self._learned(examples)}
        owners = [number for number, example in enumerate(examples) if id(example) in learned]
        chosen = [examples[number] for number in owners]
        partners = _partners(chosen)
        texts = [example.given["text"] for example in chosen]
        kinds = [example.truth.label for example in chosen]
        groups = [
            _numbers([kind or text for kind, text in zip(kinds, some, strict=True)]) for some in (texts, partners)
        ]
        parts: dict[str, list[np.ndarray]] = {
            "ids": arrays(framed(model, texts, context)),
            "positive": arrays(framed(model, partners, context)),
            "groups": list(np.stack(groups, axis=1)),
        }
        if all(example.truth.negative for example in chosen):
            parts["negative"] = arrays(framed(model, [example.truth.negative for example in chosen], context))
        return parts, owners

    # answers

    def infer(
        self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None = None
    ) -> list[dict[str, np.ndarray]]:
        longest = getattr(engine.model.config, "longest", 0)
        made: list[dict[str, np.ndarray]] = [{} for _ in examples]
        for side in ("text", "positive"):
            asked = [_side(example, side) for example in examples]
            some = [number for number, text in enumerate(asked) if text]
            ids = framed(engine.model, [asked[number] for number in some], longest) if some else []
            for number, vector in zip(some, read_all(engine, ids, progress=progress), strict=True):
                made[number][side] = vector.numpy() / max(float(vector.norm()), 1e-12)
        return made

    def answer(
        self, raw: Mapping[str, np.ndarray], example: Example, labels: tuple[str, ...], calibration: Mapping[str, Any]
    ) -> Answer:
        told: dict[str, Any] = {}
        if "positive" in raw:
            told = {"positive": raw["positive"].tolist(), "cosine": float(raw["text"] @ raw["positive"])}
        return Answer(raw["text"].tolist(), None, told)

    # figures

    def measure(self, answers: Sequence[Answer], examples: Sequence[Example], labels: tuple[str, ...]) -> Measured:
        vectors = _stacked([answer.answer for answer in answers])
        if all(example.truth.positive for example in examples):
            found = [answer.more.get("positive") for answer in answers]
            keys, names = [e.truth.positive for e in examples], [e.given["text"] for e in examples]
            ranks = partner_ranks(vectors, _stacked(found), names, keys)
        else:
            ranks = label_ranks(vectors, [e.truth.label or e.given["text"] for e in examples])
        quantities = [mean_of("mrr", 1 / ranks)]
        quantities += [mean_of(f"recall@{cut}", ranks <= cut) for cut in CUTS]
        grades = [example.truth.score for example in examples]
        if all(grade is not None for grade in grades) and len(set(grades)) > 1:
            quantities.append(spearman(np.array([a.more.get("cosine", 0.0) for a in answers]), np.array(grades, float)))
        return Measured(tuple(quantities), 1 / ranks)

    def baseline(
        self, train: Sequence[Example], test: Sequence[Example], labels: tuple[str, ...], *, seed: int = 0
    ) -> list[Answer] | None:
        sklearn = need("sklearn.feature_extraction.text", "classic", "the baseline")
        maker = sklearn.TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
        maker.fit([text for example in train for text in self.texts(example)])
        texts, partners = (maker.transform([_side(one, side) for one in test]) for side in ("text", "positive"))
        cosines = np.asarray(texts.multiply(partners).sum(1)).ravel()
        return [
            Answer(texts[number], None, {"positive": partners[number], "cosine": float(cosines[number])})
            for number in range(len(test))
        ]

    # why

    def why(self, model: Model, example: Example, answer: Answer, *, method: str = "", part: int = 0) -> Any:
        from cutaway.tasks.search.reasons import shares_of

        if method not in ("", "tokens"):
            raise ConfigError(f"why is found by tokens, but {method!r} was given")
        text = example.given["text"]
        return shares_of(model, text, _side(example, "positive") or text)  # alone: what each token adds to its vector


def _grade(value: Any) -> float | None:
    if value is None:
        return None
    with suppress(TypeError, ValueError):
        grade = float(value)
        if np.isfinite(grade):
            return grade
    raise InputError(f"the score must be a number, but {value!r} was given")


def _side(example: Example, side: str) -> str:
    return example.given["text"] if side == "text" else (example.truth or Partner()).positive


def _partners(examples: Sequence[Example]) -> list[str]:
    """Each text's partner; of texts with labels the next one with the same label."""
    homes: dict[str, list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        if not example.truth.positive:
            homes[example.truth.label].append(number)
    following = {number: home[(place + 1) % len(home)] for home in homes.values() for place, number in enumerate(home)}
    return [
        example.truth.positive or examples[following[number]].given["text"] for number, example in enumerate(examples)
    ]


def _numbers(values: Sequence[str]) -> np.ndarray:
    place = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return np.array([place[value] for value in values], np.int64)


def _stacked(vectors: Sequence[Any]) -> Any:
    """Vectors as rows, (N, E), of lists or of sparse rows; where there is none zeros, which are close to nothing."""
    if hasattr(vectors[0], "tocsr"):
        return need("scipy.sparse", "classic", "the baseline").vstack(list(vectors)).tocsr()
    width = max((len(vector) for vector in vectors if vector is not None), default=1)
    return np.array([[0.0] * width if vector is None else vector for vector in vectors], np.float32)


def _cosines(rows: Any, others: Any) -> np.ndarray:
    made = rows @ others.T
    return made.toarray() if hasattr(made, "toarray") else made


def partner_ranks(
    vectors: Any, partners: Any, texts: Sequence[str], names: Sequence[str], at_once: int = 1024
) -> np.ndarray:
    """(N,) the rank of each text's partner among all different partners, from 1; of several the best one's.

    Args:
        vectors: (N, E) of the texts, of length 1.
        partners: (N, E) of their partners, likewise.
        texts: equal ones have each other's partners.
        names: of the partners; equal ones are one.
        at_once: texts that are compared at a time.
    """
    place = {name: number for number, name in reversed(list(enumerate(names)))}
    pool = sorted(place.values())
    column = {number: at for at, number in enumerate(pool)}
    right: dict[str, set[int]] = defaultdict(set)
    for text, name in zip(texts, names, strict=True):
        right[text].add(column[place[name]])
    ranks = np.empty(len(names))
    for start in range(0, len(names), at_once):
        scores = _cosines(vectors[start : start + at_once], partners[pool])
        for row, found in enumerate(scores):
            wanted = sorted(right[texts[start + row]])
            found = np.delete(found, wanted), found[wanted].max()
            ranks[start + row] = 1 + np.count_nonzero(found[0] >= found[1])
    return ranks


def label_ranks(vectors: Any, labels: Sequence[str], at_once: int = 1024) -> np.ndarray:
    """(N,) the rank of the nearest other text with the same label; N where no other has it."""
    known, ranks = np.array(labels), np.empty(len(labels))
    for start in range(0, len(labels), at_once):
        scores = _cosines(vectors[start : start + at_once], vectors)
        for row, found in enumerate(scores):
            number = start + row
            other = np.arange(len(labels)) != number
            alike = other & (known == known[number])
            if not alike.any():
                ranks[number] = len(labels)
                continue
            ranks[number] = 1 + np.count_nonzero(found[other & ~alike] >= found[alike].max())
    return ranks


def spearman(said: np.ndarray, grades: np.ndarray) -> Quantity:
    """Spearman's rank correlation of cosines and grades (ties share their mean rank), as scipy's spearmanr."""
    x, y = (_ranked(values) for values in (said, grades))
    columns = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)

    def statistic(sums: np.ndarray) -> np.ndarray:
        count, sx, sy, sxx, syy, sxy = sums.T
        spread = np.sqrt(np.maximum((sxx - sx**2 / count) * (syy - sy**2 / count), 1e-12))
        return (sxy - sx * sy / count) / spread

    return Quantity("spearman", columns, statistic)


def _ranked(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place] / len(values)
