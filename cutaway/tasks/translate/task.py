"""Texts of one language in another.

Shapes: N examples, T target tokens, S source tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Matrix
from cutaway.models import Model
from cutaway.progress import OnProgress
from cutaway.tasks.attribution import attribution_by
from cutaway.tasks.task import Answer, Example, Measured, Role, Task, text_of
from cutaway.tasks.translate import memory
from cutaway.tasks.translate.align import by_words, choose_row, erasure, rows_of
from cutaway.tasks.translate.bleu import bleu, chrf, chrf_of, signature, tokenizer_for
from cutaway.tasks.translate.decode import Draft, How, Part, longest_source, model_text, translate
from cutaway.tasks.translate.quality import curve_of, expected
from cutaway.tokenizers.frame import frame
from cutaway.training.objectives import Objective
from cutaway.training.objectives.seq2seq import SequenceToSequence
from cutaway.training.rows import Parts

if TYPE_CHECKING:
    from cutaway.generation import Engine

SOURCE = Role("source", "the source text", ("src", "source_text", "original", "原文"))
TARGET = Role("target", "its translation", ("tgt", "translation", "target_text", "reference", "译文"), answer=True)
CHOSEN = "attention"  # what is kept: the layer, and the row, that align best
SAMPLE = 24  # training examples by which they are chosen
WHYS = ("occlusion", "integrated_gradients", "gradient", "alignment", "erasure")


@dataclass(frozen=True)
class Translate(Task):
    """A text in another language, written by an encoder–decoder."""

    beams: int = 5  # hypotheses of the search; 0: as the checkpoint recommends
    length_penalty: float = 1.0  # above 0 favours long translations
    prefix: str = ""  # before every source, as T5 wants it: "translate English to German: "
    terms: dict[str, str] = field(default_factory=dict)  # source term -> what it must be called in the translation
    alignment: bool = True  # tell with each translation which source words its words were written from
    tokenize: str = "auto"  # sacrebleu's tokeniser; auto: zh for Chinese, else 13a

    name: ClassVar[str] = "translate"
    summary: ClassVar[str] = "a text in another language"
    roles: ClassVar[tuple[Role, ...]] = (SOURCE, TARGET)
    metric: ClassVar[str] = "bleu"
    best: ClassVar[str] = "accuracy"
    kinds: ClassVar[tuple[str, ...]] = ("seq2seq",)
    one_truth: ClassVar[bool] = False
    baseline_name: ClassVar[str] = memory.NAME

    def __post_init__(self) -> None:
        if not 0 <= self.beams <= 64:
            raise ConfigError(f"beams must lie in 0 … 64, but {self.beams} was given")
        if any(not source.strip() or not target.strip() for source, target in self.terms.items()):
            raise ConfigError("a term and its translation must not be empty")

    def example(self, source: str, values: Mapping[str, Any], *, answered: bool) -> Example:
        text = text_of(values, "source", "the source text")
        if "target" not in values or (not answered and not str(values.get("target") or "").strip()):
            return Example(source, {"source": text})
        return Example(source, {"source": text}, text_of(values, "target", "the translation").strip())

    def texts(self, example: Example) -> list[str]:
        return [example.given["source"]]

    def vocabulary(self, example: Example) -> list[str]:
        return [example.given["source"], example.truth]

    def settle(self, examples: Sequence[Example]) -> Task:
        if self.tokenize != "auto":
            return self
        return replace(self, tokenize=tokenizer_for([example.truth for example in examples]))

    def check(self, examples: Mapping[str, Sequence[Example]], labels: tuple[str, ...]) -> list[str]:
        train = examples["train"]
        same = sum(example.truth.strip() == example.given["source"].strip() for example in train)
        if same > len(train) / 2:
            raise InputError(
                f"{same:,} of {len(train):,} translations are their source; which columns hold the two languages? Say "
                "it with --column source=NAME --column target=NAME"
            )
        return [f"{same:,} translations are their source"] * bool(same)

    # training

    def advised(self, fresh: bool, size: int) -> dict[str, Any]:
        if not fresh:
            return {"lr": 3e-5, "label_smoothing": 0.1, "dropout": 0.1}
        width = 64 * size
        network = {"position": "learned", "gated": False, "activation": "relu", "mlp_width": 2 * width, "tied": True}
        network |= {"attention_scale": 0.0, "embed_scale": width**0.5}
        return {
            "network": network,
            **{"optimizer": "muon", "lr": 0.02, "batch": 128, "epochs": 20.0, "label_smoothing": 0.1, "dropout": 0.2},
        }

    def features(self, labels: tuple[str, ...]) -> dict[str, Any]:
        return {}

    def objective(self, examples: Sequence[Example], labels: tuple[str, ...]) -> Objective:
        return SequenceToSequence()

    def encode(self, model: Model, examples: Sequence[Example], context: int) -> tuple[Parts, list[int]]:
        tokenizer, target = model.tokenizer, model.tokenizer.target or model.tokenizer
        sources = tokenizer.encode_bulk([self.prefix + example.given["source"].strip() for example in examples])
        targets = target.encode_bulk([example.truth for example in examples])
        longest = min(context, longest_source(model))
        read = [np.array(frame(tokenizer, ids.tolist(), longest=longest)[0], np.int64) for ids in sources]
        end = np.array([target.end_of_text or 0])
        return {"source": read, "target": [np.concatenate((ids, end))[:context] for ids in targets]}, list(
            range(len(examples))
        )

    def keep(
        self, model: Model, examples: Sequence[Example], labels: tuple[str, ...], progress: OnProgress | None = None
    ) -> dict[str, Tensor]:
        parts = []
        for source, target in zip(*self._ids(model, examples[:SAMPLE]), strict=True):
            parts.append(Part("", source, target, [], True, ""))
        return {CHOSEN: torch.tensor(choose_row(model, parts))}

    def _ids(self, model: Model, examples: Sequence[Example]) -> tuple[list[list[int]], list[list[int]]]:
        made, _ = self.encode(model, examples, model.config.context)
        return [ids.tolist() for ids in made["source"]], [ids.tolist() for ids in made["target"]]

    # answers

    @property
    def how(self) -> How:
        """How translations are looked for."""
        penalty = self.length_penalty if self.beams else None
        return How(self.beams, penalty, self.prefix, self.terms, self.alignment)

    def infer(self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None = None) -> list[Any]:
        drafts = translate(engine, [example.given["source"] for example in examples], self.how, progress)
        return [(draft, _told(engine.model, draft)) for draft in drafts]

    def recall(self, raw: list[Any], examples: Sequence[Example], kept: Mapping[str, Tensor]) -> list[Any]:
        layer, shift = kept[CHOSEN].tolist() if CHOSEN in kept else (-1, 1)
        return [(draft, _aligned(draft, told, layer, shift)) for draft, told in raw]

    def calibrate(self, raw: Sequence[Any], examples: Sequence[Example], labels: tuple[str, ...]) -> dict[str, Any]:
        right = self._right([draft.text for draft, _ in raw], [example.truth for example in examples])
        return curve_of(np.array([draft.logprob for draft, _ in raw]), right)

    def answer(self, raw: Any, example: Example, labels: tuple[str, ...], calibration: Mapping[str, Any]) -> Answer:
        draft, told = raw
        more = {"logprob": draft.logprob, "finished": all(part.finished for part in draft.parts), **told}
        if draft.terms:
            more |= {"terms": list(draft.terms), "missing": draft.missing}
        return Answer(draft.text, expected(draft.logprob, calibration), more)

    # figures

    def measure(self, answers: Sequence[Answer], examples: Sequence[Example], labels: tuple[str, ...]) -> Measured:
        said = [answer.answer or "" for answer in answers]
        true = [example.truth for example in examples]
        tokenize = "13a" if self.tokenize == "auto" else self.tokenize
        quantities = (bleu(said, true, tokenize), chrf(said, true))
        lengths = quantities[0].columns[:, :2].sum(0)
        rows = [["signature", signature(tokenize)], ["length of the translations, by that of the references",
                 f"{lengths[0] / max(1, lengths[1]):.3f}"]]  # fmt: skip
        return Measured(quantities, self._right(said, true), (("How it was counted", ["", ""], rows),))

    def _right(self, said: Sequence[str], true: Sequence[str]) -> np.ndarray:
        """(N,) each sentence's chrF, in 0 … 1."""
        return chrf_of(chrf(said, true).columns) / 100

    def baseline(
        self, train: Sequence[Example], test: Sequence[Example], labels: tuple[str, ...], *, seed: int = 0
    ) -> list[Answer] | None:
        places, similar = memory.nearest(*([one.given["source"] for one in some] for some in (train, test)))
        both = zip(places.tolist(), similar.tolist(), strict=True)
        return [Answer(train[n].truth, None, {"similarity": s, "source": train[n].given["source"]}) for n, s in both]

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
        """Which source words the translation is owed to: all of it (alignment, erasure), or one word of it, `part`."""
        from cutaway.interp.attribution.spans import groups

        method = method or "occlusion"
        if method not in WHYS:
            raise ConfigError(f"why can be found by {', '.join(WHYS)}, but {method!r} was given")
        source = frame(model.tokenizer, model.tokenizer.encode(self.prefix + example.given["source"].strip()))[0]
        tokenizer = model.tokenizer.target or model.tokenizer
        target = tokenizer.encode(answer.answer)
        if len(source) > longest_source(model) or "\n" in example.given["source"].strip():
            source, target, part = self._sentence_of(model, example.given["source"], part)
        if method in ("alignment", "erasure"):
            row = kept[CHOSEN].tolist() if kept else choose_row(model, [Part("", source, target, [], True, "")])
            return _matrix(model, example.given["source"], source, target, method, row)
        words = groups(tokenizer, target, "word") if target else []
        if not words and not part:  # why there is nothing
            words, target = [("", [0])], [tokenizer.end_of_text or 0]
        if not 0 <= part < len(words):
            raise InputError(f"the translation has {len(words)} words; ask about one of 0 … {len(words) - 1}")
        first = words[part][1][0]
        before = [model.network.config.start_id, *target[:first]]  # pyright: ignore[reportAttributeAccessIssue]
        return attribution_by(method)(
            model, before, source=source, token=target[first], grain="word", quantity="logprob"
        )

    def _sentence_of(self, model: Model, text: str, part: int) -> tuple[list[int], list[int], int]:
        """Of a text that is translated in parts, the sentence in which a word was written: its ids, the word's number.

        Raises:
            InputError: there is no such word.
        """
        from cutaway.generation import Engine
        from cutaway.interp.attribution.spans import groups

        tokenizer = model.tokenizer.target or model.tokenizer
        special, left = set(tokenizer.special.values()), part
        (draft,) = translate(Engine(model), [text], replace(self.how, attention=False))
        for one in draft.parts:
            ids = [id for id in one.target if id not in special]
            count = len(groups(tokenizer, ids, "word")) if ids else 0
            if left < count:
                return one.source, ids, left
            left -= count
        raise InputError(f"the translation has {part - left} words; ask about one of 0 … {part - left - 1}")


def _told(model: Model, draft: Draft) -> dict[str, Any]:
    """The words of source and translation with the places of their tokens, where an alignment was asked for."""
    from cutaway.interp.attribution.spans import groups

    if not draft.parts or any(part.attention is None or not part.target for part in draft.parts):
        return {}
    tokenizer = model.tokenizer.target or model.tokenizer
    special = set(tokenizer.special.values())
    each = []
    for part in draft.parts:
        words = groups(tokenizer, part.target, "word")
        words = [(word, places) for word, places in words if part.target[places[0]] not in special]
        each.append((groups(model.tokenizer, part.source, "word"), words))
    return {"alignment": each}


def _aligned(draft: Draft, told: Mapping[str, Any], layer: int, shift: int) -> dict[str, Any]:
    """The alignments of a draft's parts, words by words."""
    made = []
    for part, (sources, targets) in zip(draft.parts, told.get("alignment", ()), strict=False):
        if not targets:
            continue
        matrix = by_words(rows_of(part, layer, shift), [p for _, p in sources], [p for _, p in targets])
        weights = [[round(float(value), 4) for value in row] for row in matrix]
        made.append(
            {"source": [w.strip() for w, _ in sources], "target": [w.strip() for w, _ in targets], "weights": weights}
        )
    return {"alignment": made} if made else {}


def _matrix(model: Model, text: str, source: list[int], target: list[int], method: str, row: Sequence[int]) -> Matrix:
    """The alignment of a translation as a picture: source words down, target words across."""
    from cutaway.interp.attribution.spans import groups
    from cutaway.tasks.translate.align import attention

    tokenizer = model.tokenizer.target or model.tokenizer
    clock = Clock(model, "")
    part = Part("", source, target, [], True, model_text(model, target))
    if method == "erasure":
        matrix, unit = erasure(model, source, target), "nats"
    else:
        matrix, unit = rows_of(attention(model, [part])[0], row[0], row[1]), "share of attention"
    sources, targets = groups(model.tokenizer, source, "word"), groups(tokenizer, target, "word")
    values = by_words(matrix, [places for _, places in sources], [places for _, places in targets])
    what = "what each target word loses without a source word" if method == "erasure" else "attention to the source"
    rows, columns = ([word for word, _ in some] for some in (sources, targets))
    made = torch.from_numpy(np.ascontiguousarray(values)).float()
    asked = f"open_task({model.source!r}).why({text!r}, method={method!r})"
    code = f"from cutaway.tasks import open_task\n\nresult = {asked}\n"
    receipt = replace(clock.receipt(), code=code)
    return Matrix(what, unit, rows, columns, made, "source", "target", signed=method == "erasure", receipt=receipt)
