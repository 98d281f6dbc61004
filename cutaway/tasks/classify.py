"""Which label has a text, or which labels.

Shapes: N examples, L labels.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.models import Model
from cutaway.progress import OnProgress
from cutaway.tasks import baseline
from cutaway.tasks.calibrate import temperature_of
from cutaway.tasks.figures import by_label, confusion, macro_f1, mean_of, one_hot
from cutaway.tasks.reading import arrays, framed, read_all
from cutaway.tasks.task import Answer, Example, Measured, Role, Task, text_of
from cutaway.tokenizers.writer import sort_labels
from cutaway.training.objectives import Classification, Objective
from cutaway.training.rows import Parts

if TYPE_CHECKING:
    from cutaway.generation import Engine

TEXTS = (
    *("review", "sentence", "comment", "message", "content", "question", "utterance", "tweet", "body", "query"),
    *("review_text", "sentence1", "文本", "内容", "评论"),
)
LABELS = (
    *("labels", "class", "category", "intent", "sentiment", "target", "tag", "tags", "topic", "rating"),
    *("标签", "类别"),
)
TEXT, LABEL = Role("text", "the text", TEXTS), Role("label", "its label", LABELS, answer=True)
SHOWN = 12  # labels of which confusions are shown


@dataclass(frozen=True)
class Classify(Task):
    """Which label has a text; or, where several may hold, which labels."""

    several: Literal["auto", "yes", "no"] = "auto"  # may several labels hold of a text? auto: as the data has it
    separator: str = "|"  # between the labels of a text, where a column holds several
    balance: bool = False  # rare labels count for more while it learns
    consistency: float = 0.0  # how much two readings under other dropout should agree (R-Drop); each step takes twice
    thresholds: Literal["half", "best"] = "best"  # several: from which probability on a label is said; best: for F1

    name: ClassVar[str] = "classify"
    summary: ClassVar[str] = "which label, or labels, a text has"
    roles: ClassVar[tuple[Role, ...]] = (TEXT, LABEL)
    metric: ClassVar[str] = "accuracy"
    kinds: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "recurrent")
    baseline_name: ClassVar[str] = baseline.NAME

    def example(self, source: str, values: Mapping[str, Any], *, answered: bool) -> Example:
        text = text_of(values, "text", "the text")
        known = values.get("label")
        if known in (None, "") and answered and self.several != "yes":
            raise InputError("the label is missing")
        return Example(source, {"text": text}, self._labels_of(known) if "label" in values else None)

    def _labels_of(self, value: Any) -> tuple[str, ...]:
        if value is None or value == "":
            return ()
        if isinstance(value, str) and value.lstrip().startswith("["):
            with suppress(ValueError):
                value = json.loads(value)
        if isinstance(value, list):
            return tuple(dict.fromkeys(str(one).strip() for one in value))
        text = str(value).strip()
        if self.several != "no" and isinstance(value, str) and self.separator and self.separator in text:
            return tuple(dict.fromkeys(part.strip() for part in text.split(self.separator) if part.strip()))
        return (text,)

    def settle(self, examples: Sequence[Example]) -> Task:
        if self.several != "auto":
            return self
        return replace(self, several="yes" if any(len(example.truth) != 1 for example in examples) else "no")

    def texts(self, example: Example) -> list[str]:
        return [example.given["text"]]

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return tuple(sort_labels({label for example in examples for label in example.truth}))

    def stratum(self, example: Example) -> str:
        return "\0".join(sorted(example.truth))

    def check(self, examples: Mapping[str, Sequence[Example]], labels: tuple[str, ...]) -> list[str]:
        if len(labels) < (1 if self.several == "yes" else 2):
            only = f"all examples have the label {labels[0]!r}" if labels else "no example has a label"
            raise InputError(f"{only}, so there is nothing to learn")
        notes = []
        for name, some in examples.items():
            strange = Counter(label for example in some for label in example.truth if label not in labels)
            if strange:
                label, count = strange.most_common(1)[0]
                lines = [example.source for example in some if label in example.truth]
                notes.append(
                    f"{name} has {sum(strange.values()):,} examples of labels that are not learned, such as {label!r} "
                    f"({count:,} times, first at {lines[0]}); an answer to them is wrong"
                )
        counts = Counter(label for example in examples["train"] for label in example.truth)
        shown = ", ".join(f"{label} {count:,}" for label, count in counts.most_common(6))
        more = f" and {len(labels) - 6} more" if len(labels) > 6 else ""
        return [f"{len(labels)} labels: {shown}{more}", *notes]

    # training

    def features(self, labels: tuple[str, ...]) -> dict[str, Any]:
        several = "several" if self.several == "yes" else "one"
        head = {"head": "sequence_classification", "labels": labels, "labelling": several, "pooling": "mean"}
        return {**head, "head_activation": "none"}

    def objective(self, examples: Sequence[Example], labels: tuple[str, ...]) -> Objective:
        weights = self._weights(examples, labels)
        return Classification(several=self.several == "yes", weights=weights, consistency=self.consistency)

    def _weights(self, examples: Sequence[Example], labels: tuple[str, ...]) -> tuple[float, ...]:
        if not self.balance:
            return ()
        counts = Counter(label for example in examples for label in example.truth)
        if self.several == "yes":  # how many do not have it for one that does, to the square root
            return tuple(max(1.0, ((len(examples) - counts[label]) / counts[label]) ** 0.5) for label in labels)
        return tuple(len(examples) / (len(labels) * counts[label]) for label in labels)

    def encode(self, model: Model, examples: Sequence[Example], context: int) -> tuple[Parts, list[int]]:
        ids = framed(model, [example.given["text"] for example in examples], context)
        targets = self._targets(examples, model.config.labels)  # pyright: ignore[reportAttributeAccessIssue]
        return {"ids": arrays(ids), "target": list(targets)}, list(range(len(examples)))

    def _targets(self, examples: Sequence[Example], labels: tuple[str, ...]) -> np.ndarray:
        """(N, L) float32 of those that hold, or (N, 1) int64; a label that is not known is the first."""
        place = {label: number for number, label in enumerate(labels)}
        if self.several != "yes":
            return np.array([[place.get(example.truth[0], 0)] for example in examples], np.int64)
        made = np.zeros((len(examples), len(labels)), np.float32)
        for row, example in zip(made, examples, strict=True):
            row[[place[label] for label in example.truth if label in place]] = 1
        return made

    # answers

    def infer(self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None = None) -> list[Tensor]:
        ids = framed(engine.model, [example.given["text"] for example in examples])
        return read_all(engine, ids, progress=progress)

    def calibrate(self, raw: Sequence[Tensor], examples: Sequence[Example], labels: tuple[str, ...]) -> dict[str, Any]:
        known = [set(example.truth) <= set(labels) for example in examples]
        logits = torch.stack([one for one, good in zip(raw, known, strict=True) if good])
        targets = self._targets([one for one, good in zip(examples, known, strict=True) if good], labels)
        several = self.several == "yes"
        true = torch.from_numpy(targets if several else targets[:, 0])
        found: dict[str, Any] = {"temperature": temperature_of(logits, true, several=several)}
        if several and self.thresholds == "best":
            chances = (logits.double() / found["temperature"]).sigmoid().numpy()
            found["thresholds"] = [best_threshold(chances[:, n], targets[:, n]) for n in range(len(labels))]
        return found

    def answer(self, raw: Tensor, example: Example, labels: tuple[str, ...], calibration: Mapping[str, Any]) -> Answer:
        scaled = raw.double() / calibration.get("temperature", 1.0)
        if self.several == "yes":
            chances = scaled.sigmoid().tolist()
            limits = calibration.get("thresholds") or [0.5] * len(labels)
            said = [n for n, (chance, limit) in enumerate(zip(chances, limits, strict=True)) if chance >= limit]
            sure = float(np.prod([c if n in said else 1 - c for n, c in enumerate(chances)]))
            return Answer([labels[n] for n in said], sure, {"probabilities": dict(zip(labels, chances, strict=True))})
        chances = scaled.softmax(-1).tolist()
        best = max(range(len(labels)), key=chances.__getitem__)
        return Answer(labels[best], chances[best], {"probabilities": dict(zip(labels, chances, strict=True))})

    # figures

    def measure(self, answers: Sequence[Answer], examples: Sequence[Example], labels: tuple[str, ...]) -> Measured:
        place = {label: number for number, label in enumerate(labels)}
        if self.several == "yes":
            true = self._targets(examples, labels)
            said = np.zeros_like(true)
            for row, answer in zip(said, answers, strict=True):
                row[[place[label] for label in answer.answer or ()]] = 1
            right = np.array([set(a.answer or ()) == set(e.truth) for a, e in zip(answers, examples, strict=True)])
            quantities = (mean_of("accuracy", right), macro_f1(true, said))
            return Measured(quantities, right.astype(float), (by_label(labels, true, said),))
        numbers = np.array([place.get(example.truth[0], -1) for example in examples])
        guesses = np.array([-1 if answer.answer is None else place[answer.answer] for answer in answers])
        right = (numbers == guesses) & (guesses >= 0)
        true, said = one_hot(numbers, len(labels)), one_hot(guesses, len(labels))
        tables: list[Any] = [by_label(labels, true, said)]
        if len(labels) <= SHOWN:
            tables.append(confusion(labels, numbers, guesses))
        return Measured((mean_of("accuracy", right), macro_f1(true, said)), right.astype(float), tuple(tables))

    def baseline(
        self, train: Sequence[Example], test: Sequence[Example], labels: tuple[str, ...], *, seed: int = 0
    ) -> list[Answer] | None:
        targets, several = self._targets(train, labels), self.several == "yes"
        texts = [[self.texts(example)[0] for example in some] for some in (train, test)]
        made = baseline.linear_probabilities(
            texts[0], targets if several else targets[:, 0], texts[1], several=several, seed=seed
        )
        answers = []
        for row in made.tolist():
            told = {"probabilities": dict(zip(labels, row, strict=True))}
            if several:
                answers.append(Answer([label for label, p in zip(labels, row, strict=True) if p >= 0.5], None, told))
            else:
                answers.append(Answer(labels[row.index(max(row))], max(row), told))
        return answers

    # why

    def why(self, model: Model, example: Example, answer: Answer, *, method: str = "", part: int = 0) -> Any:
        from cutaway.interp.attribution import gradient_x_input, integrated_gradients, occlusion

        methods = {"occlusion": occlusion, "integrated_gradients": integrated_gradients, "gradient": gradient_x_input}
        if (method or "occlusion") not in methods:
            raise ConfigError(f"why can be found by {', '.join(methods)}, but {method!r} was given")
        parts = [answer.answer] if isinstance(answer.answer, str) else list(answer.answer or ())
        if part and not 0 <= part < len(parts):
            raise InputError(f"the answer has {len(parts)} labels, so none of them is number {part}")
        said = parts[part] if parts else None
        ids = framed(model, [example.given["text"]])[0]
        return methods[method or "occlusion"](model, ids, token=said, grain="word")


def best_threshold(chances: np.ndarray, true: np.ndarray) -> float:
    """From which probability on a label should be said for the best F1 on these examples; 0.5 where none has it.

    Args:
        chances: (N,) probabilities of the label.
        true: (N,) 1 where it holds.
    """
    order = np.argsort(-chances, kind="stable")
    hits = np.cumsum(true[order] > 0.5)
    if not len(hits) or not hits[-1]:
        return 0.5
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    last = np.r_[np.flatnonzero(np.diff(chances[order])), len(order) - 1]  # ties are said together
    place = int(last[np.argmax(f1[last])])
    after = chances[order[place + 1]] if place + 1 < len(order) else 0.0
    return float((chances[order[place]] + after) / 2)
