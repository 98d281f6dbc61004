"""Which label has a text, or which labels.

Shapes: N examples, L labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError, many
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress
from cutaway.tasks import baseline
from cutaway.tasks.attribution import attribution_by
from cutaway.tasks.calibrate import temperature_of
from cutaway.tasks.decide import best_threshold, least_sure, offsets_for_f1, threshold_of
from cutaway.tasks.figures import by_label, confusion, macro_f1, mean_of, one_hot
from cutaway.tasks.reading import arrays, framed, in_parts, read_all
from cutaway.tasks.scope import fit_scope, scope_of
from cutaway.tasks.task import Answer, Example, Measured, Role, Task, cell_of, text_of
from cutaway.tasks.words import fit_words, weights_of, with_words, words_of
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
    *("labels", "class", "category", "intent", "sentiment", "target", "tag", "tags", "topic", "rating", "stars"),
    *("标签", "类别"),
)
TEXT, LABEL = Role("text", "the text", TEXTS), Role("label", "its label", LABELS, answer=True)
SHOWN = 12  # labels of which confusions are shown


@dataclass(frozen=True)
class Classify(Task):
    """Which label has a text; or, where several may hold, which labels.

    Raises:
        ConfigError: a value is out of range, or two contradict each other.
    """

    several: Literal["auto", "yes", "no"] = "auto"  # may several labels hold of a text? auto: as the data has it
    separator: str = "|"  # between the labels of a text, where a column holds several
    nothing: str = ""  # several: what stands in the data where no label holds, such as "neither"
    balance: bool = False  # rare labels count for more while it learns
    consistency: float = 0.0  # how much two readings under other dropout should agree (R-Drop); each step takes twice
    words: bool = False  # a linear model on words and letters (TF-IDF) answers beside the network
    long: Literal["cut", "ends", "windows"] = "cut"  # longer texts: their beginning, both ends, or windows averaged
    window: int = 128  # tokens that are read at once of longer texts, by their ends or in windows
    thresholds: Literal["half", "best", "precise", "complete"] = "best"  # several: from which probability on a label
    # is said: 0.5, or for the best F1; of all, where `reach` of those said are right, or of those that hold are said
    reach: float = 0.9  # that share, of "precise" and "complete"
    favour: Literal["accuracy", "macro_f1"] = "accuracy"  # one label: what answers are chosen for
    out_of_scope: str = ""  # one label: the label that means none of the others; one that no example has is said of
    # texts that are less like the known ones than nearly all of these
    scope_share: float = 0.0  # of texts out of scope where it is used; 0: as in the validation data
    abstain: float = 0.0  # below this probability nothing is answered
    accuracy: float = 0.0  # wanted of what is answered: from which probability on, validation data say; 0: not wanted

    name: ClassVar[str] = "classify"
    summary: ClassVar[str] = "which label, or labels, a text has"
    roles: ClassVar[tuple[Role, ...]] = (TEXT, LABEL)
    metric: ClassVar[str] = "accuracy"
    kinds: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "recurrent")
    baseline_name: ClassVar[str] = baseline.NAME

    def __post_init__(self) -> None:
        for name in ("reach", "scope_share", "abstain", "accuracy"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in 0 … 1, but {getattr(self, name)} was given")
        for name, least in {"consistency": 0, "window": 8}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, but {getattr(self, name)} was given")
        if self.several == "yes" and (self.out_of_scope or self.favour != "accuracy"):
            name = "out_of_scope" if self.out_of_scope else "favour"
            raise ConfigError(f"{name} is of texts with one label; leave it out, as no label may hold of a text here")
        if self.several == "no" and self.nothing:
            raise ConfigError("nothing is of texts of which several labels may hold; leave it out, or say several=yes")
        if self.abstain and self.accuracy:
            raise ConfigError("give abstain or accuracy, not both: accuracy chooses the probability itself")

    def example(self, source: str, values: Mapping[str, Any], *, answered: bool) -> Example:
        text = text_of(values, "text", "the text")
        known = values.get("label")
        known = (known.strip() or None) if isinstance(known, str) else known
        if known is None and answered and self.several != "yes":
            raise InputError("the label is missing")
        if "label" not in values:
            return Example(source, {"text": text})
        labels = self._labels_of(known)
        if answered and self.several == "no" and len(labels) != 1:
            raise InputError(f"{len(labels) or 'no'} labels were given ({', '.join(labels)}), where a text has one")
        return Example(source, {"text": text}, tuple(one for one in labels if one != self.nothing))

    def _labels_of(self, value: Any) -> tuple[str, ...]:
        """The labels that a cell holds, in order of their names, so that it does not matter how they were written."""
        if value is None:
            return ()
        value = cell_of(value)
        if isinstance(value, list):
            return tuple(sorted({str(one).strip() for one in value if one is not None} - {""}))
        text = str(value).strip()
        if self.several != "no" and isinstance(value, str) and self.separator and self.separator in text:
            return tuple(sorted({part.strip() for part in text.split(self.separator)} - {""}))
        return (text,)

    def settle(self, examples: Sequence[Example]) -> Task:
        if self.several != "auto":
            return self
        many = bool(self.nothing) or any(len(example.truth) != 1 for example in examples)
        return replace(self, several="yes" if many else "no")

    def texts(self, example: Example) -> list[str]:
        return [example.given["text"]]

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return tuple(sort_labels({label for example in examples for label in example.truth}))

    def known(self, labels: Sequence[str]) -> set[str]:
        return {*labels, self.out_of_scope} - {""}

    def stratum(self, example: Example) -> str:
        return "\0".join(sorted(example.truth))

    def check(self, examples: Mapping[str, Sequence[Example]], labels: tuple[str, ...]) -> list[str]:
        if len(labels) < (1 if self.several == "yes" else 2):
            only = f"all examples have the label {labels[0]!r}" if labels else "no example has a label"
            raise InputError(f"{only}, so there is nothing to learn")
        valid = examples.get("valid", [])
        if self.out_of_scope and valid and all(self.out_of_scope in example.truth for example in valid):
            raise InputError(
                f"all validation texts are out of scope ({self.out_of_scope!r}), so nothing tells which of others are; "
                "give some that are in it"
            )
        notes = []
        for name, some in examples.items():
            known = self.known(labels)
            strange = Counter(label for example in some for label in example.truth if label not in known)
            if strange:
                label, count = strange.most_common(1)[0]
                lines = [example.source for example in some if label in example.truth]
                notes.append(
                    f"{name} has {many(sum(strange.values()), 'example')} of labels that are not learned, such as "
                    f"{label!r} ({many(count, 'time')}, first at {lines[0]}); an answer to them is wrong"
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
        found = Counter(label for example in examples for label in example.truth)
        counts = [max(1, found[label]) for label in labels]  # of a part of the examples some label may have none
        if self.several == "yes":  # how many do not have it for one that does, to the square root
            return tuple(max(1.0, ((len(examples) - count) / count) ** 0.5) for count in counts)
        return tuple(len(examples) / (len(labels) * count) for count in counts)

    def encode(self, model: Model, examples: Sequence[Example], context: int) -> tuple[Parts, list[int]]:
        labels: tuple[str, ...] = model.config.labels  # pyright: ignore[reportAttributeAccessIssue]
        known = [number for number, example in enumerate(examples) if set(example.truth) <= set(labels)]
        ids, owners = self._read(model, [examples[number].given["text"] for number in known], context)
        targets, owners = self._targets(examples, labels), [known[owner] for owner in owners]
        return {"ids": arrays(ids), "target": [targets[owner] for owner in owners]}, owners

    def _read(self, model: Model, texts: Sequence[str], context: int = 0) -> tuple[list[list[int]], list[int]]:
        """Ids of what is read of each text, and the number of the text."""
        if self.long == "cut":
            return framed(model, texts, context), list(range(len(texts)))
        parts, owners = in_parts(model, texts, min(self.window, context or self.window), ends=self.long == "ends")
        return parts, owners

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

    def keep(
        self, model: Model, examples: Sequence[Example], labels: tuple[str, ...], progress: OnProgress | None = None
    ) -> dict[str, Tensor]:
        if not self.words:
            return {}
        if progress:
            progress(Progress("learning words", 0))
        targets = self._targets(examples, labels)
        texts = [example.given["text"] for example in examples]
        return fit_words(texts, targets if self.several == "yes" else targets[:, 0], len(labels)).tensors()

    def infer(self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None = None) -> list[Tensor]:
        ids, owners = self._read(engine.model, [example.given["text"] for example in examples])
        made = read_all(engine, ids, progress=progress)
        if len(owners) == len(examples):
            return made
        sums = torch.zeros(len(examples), len(made[0])).index_add_(0, torch.tensor(owners), torch.stack(made).float())
        return list(sums / torch.bincount(torch.tensor(owners))[:, None])

    def recall(self, raw: list[Any], examples: Sequence[Example], kept: Mapping[str, Tensor]) -> list[Any]:
        """Beside the network's logits those of the words, (2, L)."""
        if not self.words or not kept:
            return raw
        said = words_of(kept).logits([example.given["text"] for example in examples])
        return [torch.stack([one.float(), torch.from_numpy(row)]) for one, row in zip(raw, said, strict=True)]

    def calibrate(self, raw: Sequence[Tensor], examples: Sequence[Example], labels: tuple[str, ...]) -> dict[str, Any]:
        known = [self.known(labels).issuperset(example.truth) for example in examples]
        examples = [one for one, good in zip(examples, known, strict=True) if good]
        if not examples:
            return {}
        logits = torch.stack([one for one, good in zip(raw, known, strict=True) if good])
        inside = np.array([self.out_of_scope not in example.truth for example in examples])
        targets, several = self._targets(examples, labels), self.several == "yes"
        true = torch.from_numpy(targets if several else targets[:, 0])
        fit = torch.from_numpy(inside | (self.out_of_scope in labels))
        found: dict[str, Any] = {}
        if logits.ndim == 3:
            found["weights"] = weights_of(logits[fit], true[fit], several=several)
        else:
            found["temperature"] = temperature_of(logits[fit], true[fit], several=several)
        scaled = torch.stack([scaled_by(found, one) for one in logits]).numpy()
        if several:
            found["thresholds"] = self._thresholds(1 / (1 + np.exp(-scaled)), targets)
        elif self.out_of_scope:
            found["scope"] = fit_scope(scaled, targets[:, 0], inside, self._place(labels), self.scope_share)
        elif self.favour == "macro_f1":
            found["offsets"] = offsets_for_f1(scaled, targets[:, 0])
        if self.accuracy:
            answers = [self.answer(one, e, labels, found) for one, e in zip(logits, examples, strict=True)]
            said = [answer.answer if several else [answer.answer] for answer in answers]
            right = np.array([set(a) == set(e.truth) for a, e in zip(said, examples, strict=True)])
            found["abstain"] = least_sure(np.array([a.probability or 0.0 for a in answers]), right, self.accuracy)
        return found

    def _thresholds(self, chances: np.ndarray, true: np.ndarray) -> list[float]:
        if self.thresholds == "half":
            return [0.5] * chances.shape[1]
        reach = {"precise": {"precision": self.reach}, "complete": {"recall": self.reach}}.get(self.thresholds, {})
        return [best_threshold(p, t, **reach) for p, t in zip(chances.T, true.T, strict=True)]

    def answer(self, raw: Tensor, example: Example, labels: tuple[str, ...], calibration: Mapping[str, Any]) -> Answer:
        scaled = scaled_by(calibration, raw)
        if self.several == "yes":
            made = self._several(scaled.sigmoid().tolist(), labels, calibration)
        elif self.out_of_scope and (scope := calibration.get("scope")):
            made = self._scoped(scaled, labels, scope)
        else:
            chances, offsets = scaled.softmax(-1).tolist(), calibration.get("offsets")
            moved = chances if offsets is None else (scaled + torch.tensor(offsets)).tolist()
            best = max(range(len(labels)), key=moved.__getitem__)
            made = Answer(labels[best], chances[best], {"probabilities": dict(zip(labels, chances, strict=True))})
            if offsets is not None:
                made = replace(made, more={**made.more, "threshold": threshold_of(chances, offsets, best)})
        if made.probability is not None and made.probability < (self.abstain or calibration.get("abstain", 0.0)):
            return Answer(None, made.probability, {**made.more, "instead_of": made.answer})
        return made

    def _several(self, chances: list[float], labels: tuple[str, ...], calibration: Mapping[str, Any]) -> Answer:
        limits = calibration.get("thresholds") or [0.5] * len(labels)
        said = [n for n, (chance, limit) in enumerate(zip(chances, limits, strict=True)) if chance >= limit]
        sure = float(np.prod([c if n in said else 1 - c for n, c in enumerate(chances)]))
        told = {
            "probabilities": dict(zip(labels, chances, strict=True)),
            "thresholds": dict(zip(labels, limits, strict=True)),
        }
        return Answer([labels[n] for n in said], sure, told)

    def _place(self, labels: Sequence[str]) -> int | None:
        """The number of the label that means none, where the network has it."""
        return list(labels).index(self.out_of_scope) if self.out_of_scope in labels else None

    def _scoped(self, scaled: Tensor, labels: tuple[str, ...], scope: Mapping[str, Any]) -> Answer:
        """The best of the known labels, or the one that means none of them."""
        known = [number for number, label in enumerate(labels) if label != self.out_of_scope]
        out, chance, unlike = scope_of(scaled.numpy(), self._place(labels), scope)
        inner = (scaled[known].softmax(-1) * (1 - (chance or 0.0))).tolist()
        told = {labels[number]: p for number, p in zip(known, inner, strict=True)}
        best = max(told, key=told.__getitem__)
        if chance is None:  # how likely it is out of scope cannot be known without any example
            more = {"probabilities": told, "unlike": unlike, "unlike_limit": scope["limit"]}
            return Answer(self.out_of_scope, None, more) if out else Answer(best, told[best], more)
        told[self.out_of_scope] = chance
        said = self.out_of_scope if out else best
        more = {"probabilities": told, "out_of_scope_limit": scope["limit"]}
        return Answer(said, told[said], {**more, "threshold": scope["limit"]} if out else more)

    # figures

    def measure(self, answers: Sequence[Answer], examples: Sequence[Example], labels: tuple[str, ...]) -> Measured:
        if self.out_of_scope and self.out_of_scope not in labels:  # a label like the others where it is measured
            labels = (*labels, self.out_of_scope)
        place = {label: number for number, label in enumerate(labels)}
        if self.several == "yes":
            true = self._targets(examples, labels)
            said = np.zeros_like(true)
            for row, answer in zip(said, answers, strict=True):
                row[[place[label] for label in answer.answer or ()]] = 1
            both = zip(answers, examples, strict=True)
            right = np.array([a.answer is not None and set(a.answer) == set(e.truth) for a, e in both])
            quantities = (mean_of("accuracy", right), macro_f1(true, said))
            return Measured(quantities, right.astype(float), (by_label(labels, true, said),))
        numbers = np.array([place.get(example.truth[0], -1) for example in examples])
        guesses = np.array([-1 if answer.answer is None else place[answer.answer] for answer in answers])
        right = (numbers == guesses) & (guesses >= 0)
        true, said = one_hot(numbers, len(labels)), one_hot(guesses, len(labels))
        tables: list[Any] = [by_label(labels, true, said)]
        if len(labels) <= SHOWN:
            tables.append(confusion(labels, numbers, guesses))
        if (guesses < 0).any():
            answered = guesses >= 0
            share = [float(answered.mean()), float(right[answered].mean()) if answered.any() else 0.0]
            tables.append(("Answered", ["share", "accuracy of these"], [share]))
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

    def why(
        self,
        model: Model,
        example: Example,
        answer: Answer,
        *,
        method: str = "",
        part: int = 0,
        kept: Mapping[str, Tensor] | None = None,
        calibration: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        """What speaks for the answer.

        Where nothing was answered: for the likeliest label rather than the next. Of a text out of scope: for that
        rather than for the best of the known labels.
        """
        attribution = attribution_by(method)
        token, minus = self._asked(answer, model.config.labels, part)  # pyright: ignore[reportAttributeAccessIssue]
        parts = self._read(model, [example.given["text"]])[0]
        ids = parts[0] if len(parts) == 1 else max(parts, key=lambda ids: self._speaks(model, ids, token, minus))
        found = attribution(model, ids, token=token, minus=minus, grain="word")
        if not self.words or not kept:
            return found
        weights = (calibration or {}).get("weights") or [0.5, 0.5]
        return with_words(found, words_of(kept), model, token, minus, weights)

    def _speaks(self, model: Model, ids: list[int], token: str | None, minus: str | None) -> float:
        """How much a window speaks for a label, or for one rather than another."""
        logits, labels = model.logits(ids)[0], model.config.labels  # pyright: ignore[reportAttributeAccessIssue]
        said = logits.max() if token is None else logits[labels.index(token)]
        return float(said if minus is None else said - logits[labels.index(minus)])

    def _asked(self, answer: Answer, labels: Sequence[str], part: int) -> tuple[str | None, str | None]:
        """The label whose logit is explained, and the one that is subtracted."""
        parts = [answer.answer] if isinstance(answer.answer, str) else list(answer.answer or ())
        if part and not 0 <= part < len(parts):
            raise InputError(f"the answer has {many(len(parts), 'label')}, so none of them is number {part}")
        chances = {name: p for name, p in answer.more.get("probabilities", {}).items() if name in labels}
        ranked = sorted(chances, key=lambda name: -chances[name])
        if self.several == "yes":
            limits = answer.more.get("thresholds", {})
            if parts:
                return parts[part], None
            near = max(ranked, key=lambda label: chances[label] / max(1e-9, limits.get(label, 0.5)), default=None)
            return near, None
        if answer.answer is None or (answer.answer == self.out_of_scope and self.out_of_scope not in labels):
            return (ranked[0], ranked[1]) if len(ranked) > 1 else (None, None)
        if answer.answer == self.out_of_scope:
            return answer.answer, next((label for label in ranked if label != answer.answer), None)
        return answer.answer, None


def scaled_by(calibration: Mapping[str, Any], raw: Tensor) -> Tensor:
    """Logits (L,) float64 that probabilities are made of, from the network's (L,), or those of parts (P, L)."""
    if raw.ndim == 1:
        return raw.double() / calibration.get("temperature", 1.0)
    weights = calibration.get("weights") or [1 / len(raw)] * len(raw)
    return (raw.double() * torch.tensor(weights, dtype=torch.float64)[:, None]).sum(0)
