"""A decision about a text that a person can appeal against: what was decided, from which probability on that is done,
which words decided, and by exactly which model.

A record holds nothing of the moment at which it was made: the same model and text give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import torch
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from cutaway import __version__
from cutaway.errors import ConfigError, unknown
from cutaway.tasks.classify import Classify
from cutaway.tasks.decide import limit_of
from cutaway.tasks.task import Answer, task_to_dict
from cutaway.tasks.trained import TaskModel

VERSION = 1
MOST_WORDS, LEAST_SHARE = 5, 0.05
SENTENCES = {  # per language: decided, not decided, from which probability on, the words, one word, between words
    "en": (
        "Your text was marked as “{category}”: the model holds this to be {probability} likely",
        "Your text was not marked; the nearest category is “{category}”, held to be {probability} likely",
        ", and a text is marked from {threshold} on",
        ". The words that spoke for it most are {words}",
        "“{word}” ({share} of what spoke for it)",
        ", ",
        ".",
    ),
    "zh": (
        "您的文本被标记为“{category}”：模型认为其可能性为 {probability}",
        "您的文本未被标记；最接近的类别是“{category}”，模型认为其可能性为 {probability}",
        "，达到 {threshold} 即予以标记",
        "。最支持这一判断的词语是：{words}",
        "“{word}”（占支持部分的 {share}）",
        "、",
        "。",
    ),
}


@dataclass(frozen=True)
class Ground:
    """A category and what speaks for it.

    Attributes:
        category: its name.
        probability: that it holds, calibrated on validation data; None where that cannot be known.
        threshold: from which probability on it is said; None: the likeliest is said, whatever its probability.
        said: whether it was.
        words: (word, share) of those that spoke for it most: the share of all that spoke for it.
    """

    category: str
    probability: float | None
    threshold: float | None
    said: bool
    words: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Decision:
    """A decision and its reasons.

    Attributes:
        text: what was decided about.
        answer: the categories that were said; or the one; None where the model abstained.
        grounds: of each that was said; where none was, of the one that came nearest.
        task: name and settings.
        model: SHA-256 of all that decides: weights, tokenizer, labels, thresholds.
        cutaway: its version.
    """

    text: str
    answer: Any
    grounds: tuple[Ground, ...]
    task: Mapping[str, Any]
    model: str
    cutaway: str = __version__

    def to_json(self) -> dict[str, Any]:
        """The record."""
        return {"version": VERSION, **asdict(self), "sentence": self.sentence()}

    def sentence(self, language: str = "en") -> str:
        """What a person can be sent.

        Args:
            language: "en" or "zh".

        Raises:
            ConfigError: another language.
        """
        if language not in SENTENCES:
            raise ConfigError(unknown("language", language, SENTENCES))
        said, near, limit, words, one, between, end = SENTENCES[language]
        made = []
        for ground in self.grounds:
            told = (said if ground.said else near).format(
                category=ground.category, probability=_percent(ground.probability)
            )
            if ground.threshold is not None:
                told += limit.format(threshold=_percent(ground.threshold))
            if ground.words:
                shown = [one.format(word=word, share=_percent(share)) for word, share in ground.words]
                told += words.format(words=between.join(shown))
            made.append(told + end)
        return ("" if language == "zh" else " ").join(made)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table("category", "probability", "from", "said", "what spoke for it", title="Decision")
        for ground in self.grounds:
            words = ", ".join(f"{word} {_percent(share)}" for word, share in ground.words)
            limit = "" if ground.threshold is None else _percent(ground.threshold)
            said = "yes" if ground.said else "no"
            table.add_row(Text(ground.category), _percent(ground.probability), limit, said, Text(words))
        yield table
        yield Text(self.sentence())
        yield Text(f"model {self.model}, Cutaway {self.cutaway}", style="dim")


def decide(made: TaskModel, text: str, *, model: str = "") -> Decision:
    """Decide about a text, and say why.

    Args:
        made: a model of the task "classify".
        text: to decide about.
        model: its `fingerprint`, where it is known already, as reading all weights takes a moment.

    Raises:
        ConfigError: a model of another task.
        InputError: no text.
    """
    task = made.task
    if not isinstance(task, Classify):
        raise ConfigError(f"decisions are about labels, but this is a model of the task {task.name}")
    example = made.example(text)
    (answer,) = made.predict([example])
    told = answer.more["probabilities"]
    limits: Mapping[str, float] = answer.more.get("thresholds", {})
    said = answer.answer if isinstance(answer.answer, list) else [answer.answer] * (answer.answer is not None)
    if said:
        asked = said
    elif limits:
        asked = [max(told, key=lambda label: told[label] / max(1e-9, limits[label]))]
    else:
        asked = [answer.more.get("instead_of") or max(told, key=told.__getitem__)]
    grounds = []
    for label in asked:
        form = [label] if isinstance(answer.answer, list) else (label if said else None)
        found = made.why(example, answer=Answer(form, answer.probability, answer.more))
        floor = None if task.several == "yes" else task.abstain or made.calibration.get("abstain")
        limit = max(filter(None, (limit_of(answer, label), floor)), default=None)
        special = set(made.model.tokenizer.special.values())
        scores = [
            (word.strip(), score)
            for word, score, number in zip(found.tokens, found.scores, found.ids, strict=True)
            if score is not None and score > 0 and number not in special and word.strip()
        ]
        whole = sum(score for _, score in scores)
        scores = sorted(((word, score / whole) for word, score in scores), key=lambda pair: -pair[1])[:MOST_WORDS]
        words = tuple((word, round(share, 4)) for word, share in scores if share >= LEAST_SHARE)
        grounds.append(Ground(label, told.get(label), limit, label in said, words))
    return Decision(
        example.given["text"], answer.answer, tuple(grounds), task_to_dict(task), model or fingerprint(made)
    )


def fingerprint(made: TaskModel) -> str:
    """SHA-256 of all that decides: weights, tokenizer, the task's settings, labels and calibration."""
    whole = sha256(made.model.tokenizer.fingerprint.encode())
    decides = {"task": task_to_dict(made.task), "labels": made.labels, "calibration": made.calibration}
    whole.update(json.dumps(decides, sort_keys=True).encode())
    for name, tensor in sorted({**made.model.network.state_dict(), **made.kept}.items()):
        whole.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.0f} %"
