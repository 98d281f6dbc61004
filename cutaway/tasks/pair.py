"""What two texts are to each other: whether they mean the same, whether one follows from the other, or answers it.

Shapes: N examples, L labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import InputError, many
from cutaway.models import Model
from cutaway.progress import OnProgress
from cutaway.tasks import pair_baseline
from cutaway.tasks.attribution import attribution_by
from cutaway.tasks.calibrate import temperature_of
from cutaway.tasks.figures import by_label, confusion, macro_f1, mean_of, one_hot
from cutaway.tasks.reading import arrays, read_all
from cutaway.tasks.task import Answer, Example, Measured, Role, Task, text_of
from cutaway.tokenizers.frame import frame_pair
from cutaway.tokenizers.writer import sort_labels
from cutaway.training.objectives import Classification, Objective
from cutaway.training.rows import Parts

if TYPE_CHECKING:
    from cutaway.generation import Engine

ROLES = (
    Role("first", "the first text", ("text1", "sentence1", "question1", "premise", "text_a", "query", "question", "a")),
    Role("second", "the second text", ("text2", "sentence2", "question2", "hypothesis", "text_b", "answer", "b")),
    Role("label", "their label", ("labels", "class", "gold_label", "is_duplicate", "relation", "标签"), answer=True),
)
SHOWN = 12  # labels of which confusions are shown


@dataclass(frozen=True)
class Pair(Task):
    """What two texts are to each other."""

    reads: Literal["together", "apart"] = "together"
    # together: each token sees those of both texts, as a network trained on pairs reads them; apart: each text becomes
    # a vector of its own, and the head compares these: better with few examples, from a checkpoint with good vectors
    swap: bool = False  # the order says nothing: every training pair is learned in both orders

    name: ClassVar[str] = "pair"
    summary: ClassVar[str] = "what two texts are to each other: same meaning, entailment, answer or not"
    roles: ClassVar[tuple[Role, ...]] = ROLES
    metric: ClassVar[str] = "accuracy"
    kinds: ClassVar[tuple[str, ...]] = ("encoder",)
    baseline_name: ClassVar[str] = pair_baseline.NAME

    def example(self, source: str, values: Mapping[str, Any], *, answered: bool) -> Example:
        given = {role.name: text_of(values, role.name, role.what) for role in ROLES[:2]}
        known = values.get("label")
        known = None if known is None else str(known).strip()
        if answered and not known:
            raise InputError("the label is missing")
        return Example(source, given, (known,) if known else None)

    def texts(self, example: Example) -> list[str]:
        return [example.given["first"], example.given["second"]]

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return tuple(sort_labels({example.truth[0] for example in examples}))

    def stratum(self, example: Example) -> str:
        return example.truth[0]

    def together(self, example: Example) -> list[str]:
        """Pairs of one first text, such as one question with several answers, belong in one split."""
        return [example.given["first"]]

    def check(self, examples: Mapping[str, Sequence[Example]], labels: tuple[str, ...]) -> list[str]:
        if len(labels) < 2:
            raise InputError(f"all examples have the label {''.join(labels)!r}, so there is nothing to learn")
        counts = Counter(example.truth[0] for example in examples["train"])
        notes = [f"{len(labels)} labels: {', '.join(f'{label} {count:,}' for label, count in counts.most_common(6))}"]
        for name, some in examples.items():
            strange = [example for example in some if example.truth[0] not in labels]
            if strange:
                notes.append(
                    f"{name} has {many(len(strange), 'pair')} of labels that are not learned, such as "
                    f"{strange[0].truth[0]!r} at {strange[0].source}; an answer to them is wrong"
                )
        return notes

    # training

    def features(self, labels: tuple[str, ...]) -> dict[str, Any]:
        head = {"head": "sequence_classification", "labels": labels, "labelling": "one", "pooling": "mean"}
        return {**head, "head_activation": "none", "apart": self.reads == "apart"}

    def objective(self, examples: Sequence[Example], labels: tuple[str, ...]) -> Objective:
        return Classification()

    def encode(self, model: Model, examples: Sequence[Example], context: int) -> tuple[Parts, list[int]]:
        place = {label: number for number, label in enumerate(model.config.labels)}  # pyright: ignore[reportAttributeAccessIssue]
        owners = [number for number, example in enumerate(examples) if example.truth[0] in place]
        pairs = [self.texts(examples[owner]) for owner in owners]
        if self.swap:
            pairs, owners = pairs + [pair[::-1] for pair in pairs], owners * 2
        ids, types = paired(model, pairs, context)
        targets = [np.array([place[examples[owner].truth[0]]], np.int64) for owner in owners]
        parts = {"ids": arrays(ids), "target": targets}
        return (parts if types is None else {**parts, "types": arrays(types)}), owners

    # answers

    def infer(self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None = None) -> list[Tensor]:
        ids, types = paired(engine.model, [self.texts(example) for example in examples])
        return read_all(engine, ids, types, progress)

    def calibrate(self, raw: Sequence[Tensor], examples: Sequence[Example], labels: tuple[str, ...]) -> dict[str, Any]:
        known = [(one, example) for one, example in zip(raw, examples, strict=True) if example.truth[0] in labels]
        if not known:
            return {}
        true = torch.tensor([labels.index(example.truth[0]) for _, example in known])
        return {"temperature": temperature_of(torch.stack([one for one, _ in known]), true)}

    def answer(self, raw: Tensor, example: Example, labels: tuple[str, ...], calibration: Mapping[str, Any]) -> Answer:
        chances = (raw.double() / calibration.get("temperature", 1.0)).softmax(-1).tolist()
        return _said(labels, chances)

    # figures

    def measure(self, answers: Sequence[Answer], examples: Sequence[Example], labels: tuple[str, ...]) -> Measured:
        place = {label: number for number, label in enumerate(labels)}
        numbers = np.array([place.get(example.truth[0], -1) for example in examples])
        guesses = np.array([place.get(answer.answer, -1) for answer in answers])
        right = ((numbers == guesses) & (guesses >= 0)).astype(float)
        true, said = one_hot(numbers, len(labels)), one_hot(guesses, len(labels))
        tables: list[Any] = [by_label(labels, true, said)]
        if len(labels) <= SHOWN:
            tables.append(confusion(labels, numbers, guesses))
        return Measured((mean_of("accuracy", right), macro_f1(true, said)), right, tuple(tables))

    def baseline(
        self, train: Sequence[Example], test: Sequence[Example], labels: tuple[str, ...], *, seed: int = 0
    ) -> list[Answer] | None:
        targets = np.array([labels.index(example.truth[0]) for example in train])
        pairs = [[(example.given["first"], example.given["second"]) for example in some] for some in (train, test)]
        made = pair_baseline.linear_probabilities(pairs[0], targets, pairs[1], seed=seed)
        return [_said(labels, chances) for chances in made.tolist()]

    # why

    def why(self, model: Model, example: Example, answer: Answer, *, method: str = "", part: int = 0) -> Any:
        """Which words of both texts the label is owed to."""
        from cutaway.interp import pair_of

        attribution = attribution_by(method)
        if part:
            raise InputError(f"the answer has one label, so none of them is number {part}")
        return attribution(model, pair_of(model, *self.texts(example)), token=answer.answer, grain="word")


def paired(
    model: Model, pairs: Sequence[Sequence[str]], context: int = 0
) -> tuple[list[list[int]], list[list[int]] | None]:
    """Ids of pairs of texts as a model reads them, and the types of their tokens where it knows any.

    Args:
        model: whose tokenizer and context.
        pairs: two texts each.
        context: tokens of both at the most; 0: those of the model. The longer text is cut.
    """
    longest = min(context or model.config.context, model.config.context)
    apart = getattr(model.config, "apart", False)
    both = [model.tokenizer.encode_bulk([pair[side] for pair in pairs]) for side in (0, 1)]
    made = [
        frame_pair(model.tokenizer, a.tolist(), b.tolist(), longest=longest, apart=apart)
        for a, b in zip(*both, strict=True)
    ]
    known = apart or getattr(model.config, "token_types", 0)
    return [ids for ids, _ in made], [types for _, types in made] if known else None


def _said(labels: Sequence[str], chances: list[float]) -> Answer:
    best = max(range(len(labels)), key=chances.__getitem__)
    return Answer(labels[best], chances[best], {"probabilities": dict(zip(labels, chances, strict=True))})
