"""What a task is: its examples, how they become rows, its head and loss, its answers, its figures and its baseline.

A task is a small frozen config with a meaning, in a file of its own. Everything else here (splits, starts, training,
calibration, reports, serving) knows tasks by this class alone.

Shapes: N examples, L labels.
"""

from __future__ import annotations

import json
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.evaluation.significance import Figure, Statistic, figure
from cutaway.models import Model
from cutaway.progress import OnProgress
from cutaway.settings import to_dict
from cutaway.training.objectives import Objective
from cutaway.training.rows import Parts

if TYPE_CHECKING:
    from cutaway.generation import Engine

UNREAD = {"Cc", "Cf", "Mn", "Me"}  # categories of characters of which tokenizers of published models make nothing
LONGEST_TEXT = 1_000_000  # characters of one text; longer ones are documents to be cut first


@dataclass(frozen=True)
class Role:
    """What a column of the user's file stands for.

    Attributes:
        name: in options and requests, such as "text".
        what: for people, such as "the text".
        usual: names that columns of this kind often have, lower case, the surest first.
        needed: whether a row without it is no example.
        answer: whether it is the truth, which is not given where a model is asked.
    """

    name: str
    what: str
    usual: tuple[str, ...]
    needed: bool = True
    answer: bool = False


@dataclass(frozen=True)
class Example:
    """One row of the user's, checked.

    Attributes:
        source: where it came from, such as "reviews.csv:17".
        given: role -> what a model is asked about.
        truth: what is right, in the task's own form; None where it is not known.
        more: other columns, by which figures can be sliced.
    """

    source: str
    given: Mapping[str, Any]
    truth: Any = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a model says of one example.

    Attributes:
        answer: a label, labels, spans, a text …, as JSON has them; None where it abstains.
        probability: that it is right, calibrated on validation data; None where the task gives none.
        more: what else is told: the probability of each label, offsets, sources …
    """

    answer: Any
    probability: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"answer": self.answer, "probability": self.probability, **self.more}


@dataclass(frozen=True)
class Quantity:
    """A figure in the making, so that it gets an interval and can be compared with that of other answers.

    Attributes:
        name: such as "macro_f1"; higher is better.
        columns: (N, K) float64, what each example adds.
        statistic: makes figures of sums over examples, (R, K) -> (R,).
    """

    name: str
    columns: np.ndarray
    statistic: Statistic

    def figure(self) -> Figure:
        """The figure with its 95 % interval (bootstrap over examples)."""
        return figure(self.columns, self.statistic)


@dataclass(frozen=True)
class Measured:
    """How good answers are.

    Attributes:
        quantities: the task's metric first.
        right: (N,) float64 in 0 … 1, how right each answer is.
        tables: (title, columns, rows), such as a confusion matrix or figures for each label.
    """

    quantities: tuple[Quantity, ...]
    right: np.ndarray
    tables: tuple[tuple[str, list[str], list[list[Any]]], ...] = ()


@dataclass(frozen=True)
class Task(ABC):
    """A task and its settings.

    Attributes:
        name: as in TASKS.
        summary: a line for people.
        roles: what is read of a row.
        metric: the figure that says most, and by which the best weights are kept: a name in the objective's figures, or
            `best` is one.
        best: the figure of the objective by which the best weights are kept, where the metric is none of them.
        kinds: of networks that can do it; the first is made where none is asked for.
        trained: whether there is something to learn from examples.
        one_truth: whether one text has but one truth, so that rows that differ contradict each other.
        alone: whether an answer is right or wrong by itself, so that those of several models can be measured together.
        baseline_name: what the baseline is called; "": there is none.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    roles: ClassVar[tuple[Role, ...]] = ()
    metric: ClassVar[str] = "accuracy"
    best: ClassVar[str] = ""
    kinds: ClassVar[tuple[str, ...]] = ("encoder",)
    trained: ClassVar[bool] = True
    one_truth: ClassVar[bool] = True
    alone: ClassVar[bool] = True
    baseline_name: ClassVar[str] = ""

    # the user's data

    @abstractmethod
    def example(self, source: str, values: Mapping[str, Any], *, answered: bool) -> Example:
        """An example of a row.

        Args:
            source: where it came from.
            values: role -> what stands in its column; None where nothing does.
            answered: whether the truth is needed.

        Raises:
            InputError: it is none; the clause says why and does not name the source.
        """

    @abstractmethod
    def texts(self, example: Example) -> list[str]:
        """What is read of it: for tokenizers, baselines, and to tell which examples are the same."""

    def together(self, example: Example) -> list[str]:
        """Texts: examples that share one of them must be in the same split, such as what they ask about."""
        return ["\0".join(self.texts(example))]

    def vocabulary(self, example: Example) -> list[str]:
        """The texts that a tokenizer is trained on, where it begins with fresh weights."""
        return self.texts(example)

    def settle(self, examples: Sequence[Example]) -> Task:
        """The task with what the training examples decide."""
        return self

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """The names of the labels; (): the task has none."""
        return ()

    def known(self, labels: Sequence[str]) -> set[str]:
        """The labels that can be answered: those that are learned, and what is said where none of them holds."""
        return set(labels)

    def stratum(self, example: Example) -> str:
        """What the shares of the splits should be alike in."""
        return ""

    def check(self, examples: Mapping[str, Sequence[Example]], labels: tuple[str, ...]) -> list[str]:
        """Check that the splits can be learned from and measured on; notes for people.

        Raises:
            InputError: they cannot; says why and what to do.
        """
        return []

    # training

    def advised(self, fresh: bool, size: int) -> dict[str, Any]:
        """Fields of TaskConfig that suit the task, read where the user says nothing.

        Args:
            fresh: whether it begins with fresh weights; `network` is of those alone.
            size: the size dial of these.
        """
        return {}

    @abstractmethod
    def features(self, labels: tuple[str, ...]) -> dict[str, Any]:
        """Fields of the network's config that follow from the task: its head."""

    @abstractmethod
    def objective(self, examples: Sequence[Example], labels: tuple[str, ...]) -> Objective:
        """What the network learns of the training examples."""

    @abstractmethod
    def encode(self, model: Model, examples: Sequence[Example], context: int) -> tuple[Parts, list[int]]:
        """Rows for the objective, and of each row the number of its example: a long text may make several, and one
        whose label the model does not know makes none.
        """

    def keep(
        self, model: Model, examples: Sequence[Example], labels: tuple[str, ...], progress: OnProgress | None = None
    ) -> dict[str, Tensor]:
        """What lies beside the model of the training examples, by which it answers too: vectors of them, counts …"""
        return {}

    # answers

    @abstractmethod
    def infer(self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None = None) -> list[Any]:
        """What the network makes of each example, before calibration."""

    def recall(self, raw: list[Any], examples: Sequence[Example], kept: Mapping[str, Tensor]) -> list[Any]:
        """Outputs with what `keep` has kept; this is what is calibrated and answered from."""
        return raw

    def calibrate(self, raw: Sequence[Any], examples: Sequence[Example], labels: tuple[str, ...]) -> dict[str, Any]:
        """What validation examples teach about the network's outputs, such as a temperature; plain data."""
        return {}

    @abstractmethod
    def answer(self, raw: Any, example: Example, labels: tuple[str, ...], calibration: Mapping[str, Any]) -> Answer:
        """What is said to the user."""

    # figures

    @abstractmethod
    def measure(self, answers: Sequence[Answer], examples: Sequence[Example], labels: tuple[str, ...]) -> Measured:
        """How good answers to examples with a truth are."""

    def baseline(
        self, train: Sequence[Example], test: Sequence[Example], labels: tuple[str, ...], *, seed: int = 0
    ) -> list[Answer] | None:
        """What the usual simple method answers, learned from the same training examples; None: there is none."""
        return None

    # why

    def why(self, model: Model, example: Example, answer: Answer, *, method: str = "", part: int = 0) -> Any:
        """Which parts of the example the answer is owed to: a result of `interp`, with its receipt.

        Args:
            model: that answered.
            example: that was asked.
            answer: that was given.
            method: of attribution; "": the task's usual one.
            part: of an answer of several parts (spans, labels), which of them is asked about, from 0.

        Raises:
            ConfigError: the task has no such method.
            InputError: the answer has no such part.
        """
        raise ConfigError(f"the task {self.name} cannot say why")


def is_blank(text: str) -> bool:
    """Whether there is nothing to read in a text: white space, control characters and accents of no letter alone."""
    return all(letter.isspace() or unicodedata.category(letter) in UNREAD for letter in text)


def text_of(values: Mapping[str, Any], role: str, what: str) -> str:
    """A text of a row.

    Raises:
        InputError: there is none, it is empty, no text, or longer than LONGEST_TEXT.
    """
    value = values.get(role)
    if value is None:
        raise InputError(f"{what} is missing")
    if not isinstance(value, str):
        raise InputError(f"{what} must be text, but {type(value).__name__} was given")
    if is_blank(value):
        raise InputError(f"{what} is empty")
    if len(value) > LONGEST_TEXT:
        raise InputError(f"{what} is longer than {LONGEST_TEXT:,} characters ({len(value):,}); cut it into parts")
    return value


def cell_of(value: Any, begins: tuple[str, ...] = ("[",)) -> Any:
    """What stands in a cell that is written as JSON; any other value, and a text that is no JSON, as it is.

    Args:
        value: of a cell.
        begins: how JSON of this kind begins.
    """
    if isinstance(value, str) and value.lstrip().startswith(begins):
        with suppress(ValueError, RecursionError):  # lists in lists without end
            return json.loads(value)
    return value


def task_to_dict(task: Task) -> dict[str, Any]:
    """Plain data with the name first; `task_from` leads back."""
    return {"name": task.name, **to_dict(task)}
