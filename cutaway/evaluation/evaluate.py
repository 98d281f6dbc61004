"""A model, asked the questions of suites: how many it has right, and how sure that is.

Shapes: N items, K columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cutaway.errors import InputError
from cutaway.evaluation.boundaries import Cut, cut
from cutaway.evaluation.likelihood import Likelihood, likelihoods, pseudo_likelihoods, refuse
from cutaway.evaluation.significance import Figure, Statistic, figure
from cutaway.evaluation.suites import LEVELS, Item, Suite
from cutaway.generation import Engine
from cutaway.models import Encoder
from cutaway.progress import OnProgress, Progress


@dataclass(frozen=True)
class Answer:
    """What a model made of one question.

    Attributes:
        item: the question.
        choices: how likely it finds each choice.
    """

    item: Item
    choices: tuple[Likelihood, ...]

    @property
    def right(self) -> bool:
        """Whether the right choice is the likeliest (of equal ones the first counts); of a last word, whether it is
        what the model would write."""
        if len(self.choices) == 1:
            return self.choices[0].greedy
        return int(np.argmax([one.logprob for one in self.choices])) == self.item.answer

    @property
    def right_by_length(self) -> bool:
        """The same, with each log-likelihood divided by the characters of its choice."""
        share = [one.logprob / length for one, length in zip(self.choices, self.item.lengths, strict=True)]
        return int(np.argmax(share)) == self.item.answer


@dataclass(frozen=True)
class Group:
    """A part of a suite: a level ("phenomenon"), one group of it, its questions, and how many are right."""

    level: str
    name: str
    items: int
    right: int

    @property
    def accuracy(self) -> float:
        """The share that is right."""
        return self.right / self.items


@dataclass(frozen=True)
class Scores:
    """What a model made of a suite.

    Attributes:
        name: of the suite.
        kind: of its questions.
        items: how many.
        right: how many it has right.
        logprob: the sum of the log-likelihoods of all right choices.
        figures: "acc"; of choices "acc_norm"; of last words "perplexity".
        groups: accuracies of phenomena and the like.
        answers: to each question.
        notes: what to know about the numbers.
    """

    name: str
    kind: str
    items: int
    right: int
    logprob: float
    figures: dict[str, Figure]
    groups: tuple[Group, ...]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...] = ()


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class Metric:
    """A figure of a suite.

    Attributes:
        name: as lm-eval calls it.
        adds: what an answer adds to the sum whose mean is told.
        statistic: makes figures of sums of that and of ones.
    """

    name: str
    adds: Callable[[Answer], float]
    statistic: Statistic = _ratio

    def columns(self, answers: Sequence[Answer]) -> Float[np.ndarray, "N 2"]:
        """What each answer adds, and one."""
        return np.array([(float(self.adds(answer)), 1.0) for answer in answers])


ACC = Metric("acc", lambda answer: answer.right)
METRICS = {
    "pairs": (ACC,),
    "choices": (ACC, Metric("acc_norm", lambda answer: answer.right_by_length)),
    "words": (ACC, Metric("perplexity", lambda answer: -answer.choices[0].logprob, lambda sums: np.exp(_ratio(sums)))),
}


def evaluate(engine: Engine, suite: Suite, *, limit: int | None = None, progress: OnProgress | None = None) -> Scores:
    """Ask a model the questions of a suite, and count as lm-eval does.

    A sentence of a pair, a choice and a last word are scored behind a space (see `boundaries`). An encoder that fills
    gaps ranks the sentences of pairs by their pseudo-log-likelihoods.

    Args:
        engine: of the model.
        suite: from `read_suite`.
        limit: only the first so many questions of each group.
        progress: told of questions.

    Raises:
        ConfigError: a model that cannot answer such questions.
        InputError: a question without a token to score; says where it stands.
        NonFinite: the model computes a NaN or an infinity.
    """
    refuse(engine.model, suite.kind)
    suite = suite.first(limit)
    model = engine.model
    masked = isinstance(model.network, Encoder)

    def cuts() -> Iterator[Cut]:
        for item in suite.items:
            try:
                for choice in item.choices:
                    yield cut(model, item.context, choice)
            except InputError as error:
                raise InputError(f"{item.where}: {error}") from error

    found = (
        pseudo_likelihoods(model, [choice for item in suite.items for choice in item.choices])
        if masked
        else likelihoods(engine, cuts())
    )
    answers: list[Answer] = []
    right = 0
    for item in suite.items:
        answers.append(Answer(item, tuple(next(found) for _ in item.choices)))
        right += answers[-1].right
        if progress is not None:
            share = f"{right / len(answers):.3f}"
            progress(Progress(suite.name, len(answers), len(suite.items), "items", {"acc": share}))
    notes = []
    if masked:
        notes.append("ranked by pseudo-log-likelihood: each token hidden in turn, predicted from all others")
    if short := sum(any(one.cut for one in answer.choices) for answer in answers):
        notes.append(f"of {short:,} questions the beginning was left out: the model sees {model.config.context} tokens")
    logprob = sum(answer.choices[answer.item.answer].logprob for answer in answers)
    return Scores(
        suite.name,
        suite.kind,
        len(answers),
        right,
        logprob,
        {metric.name: figure(metric.columns(answers), metric.statistic) for metric in METRICS[suite.kind]},
        tuple(_groups(answers)),
        tuple(answers),
        tuple(notes),
    )


def _groups(answers: Sequence[Answer]) -> Iterator[Group]:
    """The accuracies of all groups, level by level from coarse to fine, in their order."""
    for level in LEVELS:
        counts: dict[str, tuple[int, int]] = {}
        for answer in answers:
            if (name := answer.item.groups.get(level)) is not None:
                items, right = counts.get(name, (0, 0))
                counts[name] = items + 1, right + answer.right
        for name, (items, right) in counts.items():
            yield Group(level, name, items, right)
