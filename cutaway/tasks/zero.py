"""Labels without training: by what a language model would write next, or by the nearest examples.

Both leave a folder like any other task's. Where there is validation data, their probabilities are calibrated on it.

Shapes: N texts, L labels, E channels of an embedding, K kept examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.evaluation.boundaries import Cut
from cutaway.evaluation.likelihood import likelihoods
from cutaway.generation.engine import Engine
from cutaway.models import Model
from cutaway.models.heads import Head
from cutaway.progress import OnProgress, Progress
from cutaway.tasks.attribution import attribution_by
from cutaway.tasks.classify import Classify
from cutaway.tasks.reading import framed, read_all
from cutaway.tasks.start import with_head
from cutaway.tasks.task import Answer, Example, Task
from cutaway.tokenizers.frame import beginning

EMPTY = ("N/A", "", "[MASK]")  # texts that say nothing (Zhao et al. 2021)
LEAST = 1e-6  # of all votes, what a label has that none of the neighbours voted for


@dataclass(frozen=True)
class Score(Classify):
    """Which label a causal language model finds likeliest after a text: no training, no examples needed.

    The log-probability of a label's words after the prompt as a share of that of all labels, less that after prompts
    with nothing in them, which takes out how common the words are (contextual calibration: Zhao et al. 2021).

    Raises:
        ConfigError: a prompt without "{text}".
    """

    several: Literal["auto", "yes", "no"] = "no"
    prompt: str = "{text}\n\nQuestion: what is this?\nAnswer:"  # what stands before a label's words
    choices: tuple[str, ...] = ()  # the labels; (): those of the examples
    spoken: dict[str, str] = field(default_factory=dict)  # label -> its words after the prompt, where not itself
    context_free: bool = True  # less what it says after prompts with nothing in them
    longest: int = 512  # tokens of a text that are read

    name: ClassVar[str] = "score"
    summary: ClassVar[str] = "which label a language model finds likeliest, without training"
    kinds: ClassVar[tuple[str, ...]] = ("decoder",)
    trained: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if "{text}" not in self.prompt:
            raise ConfigError('the prompt must say where the text stands, as "{text}"')
        if self.several == "yes":
            raise ConfigError("a language model is asked for one label of a text; leave several out")

    def settle(self, examples: Sequence[Example]) -> Task:
        return replace(self, several="no", choices=self.choices or super().labels(examples))

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return self.choices or super().labels(examples)

    def features(self, labels: tuple[str, ...]) -> dict[str, Any]:
        return {}

    def infer(self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None = None) -> list[Tensor]:
        model, words = engine.model, self._words(engine.model)
        texts = [*EMPTY * self.context_free, *(example.given["text"] for example in examples)]

        def cuts() -> Iterator[Cut]:
            for number, text in enumerate(texts):
                prompt = self._prompt(model, text)
                yield from (Cut([*prompt, *ids], len(prompt)) for ids in words)
                if progress:
                    progress(Progress("reading", number + 1, len(texts), "texts"))

        found = torch.tensor([one.logprob for one in likelihoods(engine, cuts())], dtype=torch.float64)
        shares = found.reshape(len(texts), len(words)).log_softmax(-1)
        if self.context_free:
            shares = shares[len(EMPTY) :] - shares[: len(EMPTY)].exp().mean(0).log()
        return list(shares.float())

    def _prompt(self, model: Model, text: str) -> list[int]:
        tokenizer = model.tokenizer
        before, after = self.prompt.split("{text}", 1)
        ids = tokenizer.encode(text)
        if len(ids) > self.longest:  # its two ends
            half = self.longest // 2
            text = tokenizer.decode([*ids[:half]]) + " … " + tokenizer.decode([*ids[-half:]])
        return [*beginning(tokenizer), *tokenizer.encode(before + text + after)]

    def _words(self, model: Model) -> list[list[int]]:
        """The tokens of each label's words."""
        made = [[*model.tokenizer.encode(" " + self.spoken.get(label, label).strip())] for label in self.choices]
        if not all(made):
            raise InputError(f"the label {self.choices[made.index([])]!r} has no words that this model knows")
        return made

    def why(self, model: Model, example: Example, answer: Answer, *, method: str = "", part: int = 0, **_: Any) -> Any:
        """What speaks for the first word of the label rather than for that of the next likely one."""
        attribution = attribution_by(method)
        told: Mapping[str, float] = answer.more["probabilities"]
        ranked = sorted(
            self.choices, key=lambda label: -told[label]
        )  # those that are spoken, "none of them" perhaps not
        said = answer.answer if answer.answer in ranked else ranked[0]
        firsts = {label: ids[0] for label, ids in zip(self.choices, self._words(model), strict=True)}
        other = next((firsts[label] for label in ranked if label != said and firsts[label] != firsts[said]), None)
        ids = self._prompt(model, example.given["text"])
        return attribution(model, ids, token=firsts[said], minus=other, grain="word")


@dataclass(frozen=True)
class Nearest(Classify):
    """Which label the nearest examples have, by an embedding model: from a few examples a label.

    The likeness of each neighbour is its vote, as softmax of cosines over a temperature; with neighbours=0 each label
    votes by the mean of its examples.

    Raises:
        ConfigError: as `Classify`; or a temperature that is not above 0.
    """

    several: Literal["auto", "yes", "no"] = "no"
    neighbours: int = 8  # examples that vote; 0: the labels' means do
    sharpness: float = 20.0  # what cosines are multiplied with before they become votes

    name: ClassVar[str] = "nearest"
    summary: ClassVar[str] = "which label the nearest examples have, without training"
    kinds: ClassVar[tuple[str, ...]] = ("encoder",)
    trained: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours < 0 or not self.sharpness > 0:
            raise ConfigError("neighbours must be at least 0 and sharpness above 0")
        if self.several == "yes" or self.words:
            name = "words" if self.words else "several"
            raise ConfigError(f"the nearest examples say one label; leave {name} out, or train the task classify")

    def settle(self, examples: Sequence[Example]) -> Task:
        return replace(self, several="no")

    def features(self, labels: tuple[str, ...]) -> dict[str, Any]:
        return {"head": "embedding", "pooling": "mean", "normalize": True}

    def keep(
        self, model: Model, examples: Sequence[Example], labels: tuple[str, ...], progress: OnProgress | None = None
    ) -> dict[str, Tensor]:
        vectors = torch.stack(self.infer(Engine(model), examples, progress)).float()
        targets = torch.from_numpy(self._targets(examples, labels)[:, 0])
        sums = torch.zeros(len(labels), vectors.shape[1]).index_add_(0, targets, vectors)
        texts = [" ".join(example.given["text"].split()) for example in examples]
        blob = torch.frombuffer(bytearray("\n".join(texts).encode()), dtype=torch.uint8)
        return {"vectors": vectors, "targets": targets, "means": F.normalize(sums, dim=-1), "texts": blob}

    def recall(self, raw: list[Any], examples: Sequence[Example], kept: Mapping[str, Tensor]) -> list[Any]:
        """The logarithm of each label's share of the votes, (L,)."""
        if not raw or not kept:
            return raw
        found, count = [], len(kept["means"])
        for some in torch.stack(raw).float().split(1024):
            if not self.neighbours:
                found += list((some @ kept["means"].T * self.sharpness).log_softmax(-1))
                continue
            near, places = (some @ kept["vectors"].T).topk(min(self.neighbours, len(kept["vectors"])))  # (N, K)
            votes = torch.zeros(len(some), count).scatter_add_(
                1, kept["targets"][places], (near * self.sharpness).softmax(-1)
            )
            found += list((votes + LEAST).log())
        return found

    def infer(self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None = None) -> list[Tensor]:
        return read_all(engine, framed(engine.model, [e.given["text"] for e in examples]), progress=progress)

    def why(
        self,
        model: Model,
        example: Example,
        answer: Answer,
        *,
        method: str = "",
        part: int = 0,
        kept: Mapping[str, Tensor] | None = None,
        labels: Sequence[str] = (),
        **_: Any,
    ) -> Any:
        """Which words bring the text near the label's nearest example rather than that of the next likely label."""
        attribution = attribution_by(method)
        if kept is None:
            raise ConfigError("without the examples that were kept nobody can say what the text is near to")
        told: Mapping[str, float] = answer.more["probabilities"]
        ranked = sorted(labels, key=lambda label: -told[label])  # those of examples, which "none of them" may lack
        if answer.answer in labels:
            ranked = [answer.answer, *(label for label in ranked if label != answer.answer)]
        vector = self.infer(Engine(model), [example])[0].float()
        texts = bytes(kept["texts"].numpy()).decode().split("\n")
        near = list[int]()
        for label in ranked[:2]:
            own = (kept["targets"] == labels.index(label)).nonzero()[:, 0]
            near.append(int(own[(kept["vectors"][own] @ vector).argmax()]))
        names = tuple(f"{label}: {texts[place]}" for label, place in zip(ranked[:2], near, strict=True))
        reader = with_head(model, {"head": "sequence_classification", "labels": names, "normalize": False})
        head = reader.network.head
        assert isinstance(head, Head)
        with torch.no_grad():  # how far the text points to each of the two examples
            head.out.weight.copy_(kept["vectors"][near])
            if head.out.bias is not None:
                head.out.bias.zero_()
        ids = framed(model, [example.given["text"]])[0]
        return attribution(reader, ids, token=names[0], minus=names[1], grain="word")
