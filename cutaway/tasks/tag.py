"""Which stretches of a text are names of something, and of what: diseases, persons, addresses …

Shapes: N examples, W words, L tags, S spans.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError, many
from cutaway.models import Model
from cutaway.progress import OnProgress
from cutaway.tasks import tag_baseline
from cutaway.tasks.attribution import attribution_by
from cutaway.tasks.calibrate import sureness, sureness_of, temperature_of
from cutaway.tasks.decode import best_tags, chances_of
from cutaway.tasks.figures import mean_of, micro_f1
from cutaway.tasks.pieces import Words, read_words, words_in
from cutaway.tasks.reading import arrays
from cutaway.tasks.task import Answer, Example, Measured, Quantity, Role, Task, cell_of, text_of
from cutaway.text.tags import Span, read_tags, tag_names, tags_of, words_of
from cutaway.tokenizers.writer import sort_labels
from cutaway.training.losses import IGNORE
from cutaway.training.objectives import Objective, Tagging
from cutaway.training.rows import Parts

if TYPE_CHECKING:
    from cutaway.generation import Engine

TEXTS = ("tokens", "words", "sentence", "content", "document", "body", "full_text", "文本", "内容", "句子")
TAGS = ("spans", "ner_tags", "labels", "entities", "label", "bio", "annotations", "标签", "实体")
TEXT = Role("text", "the text, or its words", TEXTS)
TRUTH = Role("tags", "the tags of its words, or its spans", TAGS, answer=True)
LABEL_KEYS = ("label", "type", "entity", "entity_type", "entity_group")


@dataclass(frozen=True)
class Tag(Task):
    """Which stretches of a text are names of something, and of what."""

    overlap: float = 0.25  # the share of a window that the next one reads too, where a text is longer than the context
    redact: bool = False  # answers also give the text with [TYPE] in place of each span

    name: ClassVar[str] = "tag"
    summary: ClassVar[str] = "which stretches of a text are names of something, and of what"
    roles: ClassVar[tuple[Role, ...]] = (TEXT, TRUTH)
    metric: ClassVar[str] = "f1"
    kinds: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    baseline_name: ClassVar[str] = tag_baseline.NAME

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 0.5:
            raise ConfigError(f"overlap is a share from 0 to 0.5 of a window, but {self.overlap} was given")

    def example(self, source: str, values: Mapping[str, Any], *, answered: bool) -> Example:
        text, tokens = _text_and_tokens(values)
        given: dict[str, Any] = {"text": text} if tokens is None else {"text": text, "tokens": tokens}
        known = values.get("tags")
        if known in (None, "") and (answered or "tags" not in values):
            if answered:
                raise InputError("the tags are missing; give [] where there are none")
            return Example(source, given)
        truth = _parsed(known)
        if len({type(one) is str for one in truth}) > 1:
            raise InputError("give tags or spans, not both in one row")
        if wrong := next((repr(one) for one in truth if isinstance(one, float | int | None)), ""):
            raise InputError(f"tags must be names such as B-PERSON, but {wrong} was given")
        if truth and not isinstance(truth[0], str):
            if tokens is not None:
                raise InputError("spans are places in a text, but the text was given as tokens; give one tag a token")
            return Example(source, given, _checked([_span(one, text) for one in truth], text))
        if tokens is None and not truth:
            return Example(source, given, ())
        if tokens is None:  # words with spaces between them
            tokens = _bounds(text.split())
            given = {"text": " ".join(text.split()), "tokens": tokens}
        if len(truth) != len(tokens):
            both = f"{many(len(truth), 'tag')} for {many(len(tokens), 'token')}"
            raise InputError(f"there must be one tag for each token ({both})")
        spans, scheme = read_tags(truth)
        whole = tuple(Span(tokens[first][0], tokens[last - 1][1], label) for first, last, label in spans)
        return Example(source, given, whole, {} if scheme == "BIO" else {"scheme of tags": scheme})

    def texts(self, example: Example) -> list[str]:
        return [example.given["text"]]

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return tuple(sort_labels({label for example in examples for _, _, label in example.truth}))

    def stratum(self, example: Example) -> str:
        return "with spans" if example.truth else ""

    def check(self, examples: Mapping[str, Sequence[Example]], labels: tuple[str, ...]) -> list[str]:
        if not labels:
            raise InputError("no example has a span, so there is nothing to learn")
        counts = Counter(label for example in examples["train"] for _, _, label in example.truth)
        shown = ", ".join(f"{label} {count:,}" for label, count in counts.most_common(6))
        more = f" and {len(labels) - 6} more" if len(labels) > 6 else ""
        notes = [f"{len(labels)} types of spans: {shown}{more}"]
        for name, some in examples.items():
            strange = Counter(label for example in some for _, _, label in example.truth if label not in labels)
            if strange:
                notes.append(
                    f"{name} has {many(sum(strange.values()), 'span')} of types that are not learned, such as "
                    f"{strange.most_common(1)[0][0]!r}; they will be missed"
                )
            schemes = Counter(example.more.get("scheme of tags") for example in some if example.truth)
            for scheme in sorted(scheme for scheme in schemes if scheme):
                first = next(one.source for one in some if one.more.get("scheme of tags") == scheme)
                notes.append(f"{name} has {many(schemes[scheme], 'row')} tagged by {SCHEMES[scheme]}, as {first}")
            inside = [one.source for one in some if _inside_words(one)]
            if inside:
                notes.append(
                    f"{len(inside):,} rows of {name} have spans that begin or end inside a word, as {inside[0]}; "
                    "whole words are learned"
                )
        return notes

    # training

    def features(self, labels: tuple[str, ...]) -> dict[str, Any]:
        return {"head": "token_classification", "labels": tag_names(labels), "head_activation": "none"}

    def objective(self, examples: Sequence[Example], labels: tuple[str, ...]) -> Objective:
        return Tagging()

    def encode(self, model: Model, examples: Sequence[Example], context: int) -> tuple[Parts, list[int]]:
        types = types_of(model)
        ids: list[list[int]] = []
        targets: list[np.ndarray] = []
        owners: list[int] = []
        for number, (one, example) in enumerate(zip(self._words(model, examples, context), examples, strict=True)):
            tags = _tags(one.bounds, example.truth, types)
            for window in one.windows:
                row = np.full(len(window.ids), IGNORE, np.int64)
                row[window.places] = tags[window.words.start : window.words.stop]
                ids.append(window.ids)
                targets.append(row)
                owners.append(number)
        return {"ids": arrays(ids), "target": targets}, owners

    def _words(self, model: Model, examples: Sequence[Example], context: int = 0) -> list[Words]:
        return words_in(model, [example.given["text"] for example in examples], context, self.overlap)

    # answers

    def infer(
        self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None = None
    ) -> list[tuple[list[tuple[int, int]], Tensor]]:
        """Of each text where its words are, and logits of their tags (W, L)."""
        words = self._words(engine.model, examples)
        made = read_words(engine, words, progress)
        return [(one.bounds, logits) for one, logits in zip(words, made, strict=True)]

    def calibrate(self, raw: Sequence[Any], examples: Sequence[Example], labels: tuple[str, ...]) -> dict[str, Any]:
        true = [_tags(bounds, example.truth, labels) for (bounds, _), example in zip(raw, examples, strict=True)]
        logits, tags = torch.cat([logits for _, logits in raw]), torch.from_numpy(np.concatenate(true))
        if not len(tags):
            return {}
        found: dict[str, Any] = {"temperature": temperature_of(logits, tags)}
        answers = [self.answer(one, example, labels, found) for one, example in zip(raw, examples, strict=True)]
        of_spans: list[tuple[float, bool]] = []
        of_texts: list[tuple[float, bool]] = []
        for answer, example in zip(answers, examples, strict=True):
            truth, said = _spans(example.truth), [_key(span) for span in answer.answer]
            of_spans += [(span["probability"], key in truth) for span, key in zip(answer.answer, said, strict=True)]
            of_texts.append((answer.probability or 0.0, set(said) == truth))
        return {**found, "spans": sureness_of(of_spans), "texts": sureness_of(of_texts)}

    def answer(self, raw: Any, example: Example, labels: tuple[str, ...], calibration: Mapping[str, Any]) -> Answer:
        bounds, logits = raw
        text, tokens = example.given["text"], example.given.get("tokens")
        scores = logits.double().numpy() / calibration.get("temperature", 1.0)
        tags = best_tags(scores) if len(scores) else np.zeros(0, np.int64)
        found, chances, whole = chances_of(scores, tags)
        spans = []
        for (first, last, kind), chance in zip(found.tolist(), chances.tolist(), strict=True):
            start, end = bounds[first][0], bounds[last - 1][1]
            if tokens is not None:
                start, end = _whole_tokens(tokens, start, end)
                if spans and start < spans[-1]["end"]:  # another span has this token already
                    continue
            told = {"start": start, "end": end, "text": text[start:end], "label": labels[kind]}
            spans.append({**told, "probability": sureness(chance, calibration.get("spans"))})
        more: dict[str, Any] = {"redacted": redacted(text, spans)} if self.redact else {}
        if tokens is not None:
            places = [Span(span["start"], span["end"], span["label"]) for span in spans]
            more["tags"] = [tag_names(labels)[tag] for tag in _tags(tokens, places, labels)]
        return Answer(spans, sureness(whole, calibration.get("texts")), more)

    # figures

    def measure(self, answers: Sequence[Answer], examples: Sequence[Example], labels: tuple[str, ...]) -> Measured:
        both = [({_key(s) for s in a.answer or ()}, _spans(e.truth)) for a, e in zip(answers, examples, strict=True)]
        there, guessed = (np.array([len(pair[side]) for pair in both], float) for side in (1, 0))
        hits = np.array([len(said & true) for said, true in both], float)
        right = np.array([said == true for said, true in both], float)
        quantities = (
            micro_f1(there, guessed, hits),
            _share("precision", hits, guessed),
            _share("recall", hits, there),
            mean_of("exact", right),
        )
        return Measured(quantities, right, (_by_type(both, labels), _mistakes(both)))

    def baseline(
        self, train: Sequence[Example], test: Sequence[Example], labels: tuple[str, ...], *, seed: int = 0
    ) -> list[Answer] | None:
        bounds = [[words_of(example.given["text"]) for example in some] for some in (train, test)]
        words = [
            [[example.given["text"][slice(*one)] for one in own] for example, own in zip(some, its, strict=True)]
            for some, its in zip((train, test), bounds, strict=True)
        ]
        tags = [_tags(own, example.truth, labels) for own, example in zip(bounds[0], train, strict=True)]
        said = tag_baseline.linear_tags(words[0], tags, words[1], seed=seed)
        sure = np.where(np.arange(1 + 2 * len(labels)) == np.arange(1 + 2 * len(labels))[:, None], 50.0, 0.0)
        return [
            self.answer((own, torch.from_numpy(sure[row])), example, labels, {})
            for own, row, example in zip(bounds[1], said, test, strict=True)
        ]

    # why

    def why(self, model: Model, example: Example, answer: Answer, *, method: str = "", part: int = 0) -> Any:
        """Which words a span is owed to: its type's B- at its first word; without spans, the word that came nearest."""
        attribution = attribution_by(method)
        (words,) = self._words(model, [example])
        if not words.bounds:
            raise InputError("the text has no word that this model knows, so there is nothing to explain")
        if answer.answer:
            if not 0 <= part < len(answer.answer):
                raise InputError(f"the answer has {many(len(answer.answer), 'span')}, so none of them is number {part}")
            span = answer.answer[part]
            word = next(number for number, (_, end) in enumerate(words.bounds) if end > span["start"])
            asked = {"token": f"B-{span['label']}"}
        else:
            word, asked = self._nearest(model, example)
        window = next(window for window in words.windows if word in window.words)
        place = int(window.places[word - window.words.start])
        return attribution(model, window.ids, **asked, position=place, grain="word")

    def _nearest(self, model: Model, example: Example) -> tuple[int, dict[str, str]]:
        """The word that was least surely outside, and what is asked of it."""
        from cutaway.generation import Engine

        ((_, logits),) = self.infer(Engine(model), [example])
        begins = logits[:, 1::2]
        word = int((begins.max(1).values - logits[:, 0]).argmax())
        names = model.config.labels  # pyright: ignore[reportAttributeAccessIssue]
        return word, {"token": "O", "minus": names[1 + 2 * int(begins[word].argmax())]}


SCHEMES = {
    "IOB1": "IOB1 (spans begin with I-), read as conlleval reads them",
    "IO": "bare types (IO): spans of one type beside each other are one",
    **dict.fromkeys(("BIOES", "BILOU", "BMES"), "their ends too (BIOES and its like)"),
}


def types_of(model: Model) -> tuple[str, ...]:
    """The types of spans that a model's tags tell apart."""
    return tuple(name[2:] for name in model.config.labels[1::2])  # pyright: ignore[reportAttributeAccessIssue]


def redacted(text: str, spans: Sequence[Mapping[str, Any]]) -> str:
    """The text with [TYPE] in place of each span; spans are in order."""
    pieces, end = [], 0
    for span in spans:
        pieces += [text[end : span["start"]], f"[{span['label']}]"]
        end = span["end"]
    return "".join(pieces) + text[end:]


def _text_and_tokens(values: Mapping[str, Any]) -> tuple[str, tuple[tuple[int, int], ...] | None]:
    """The text, and where its tokens are where it was given as some."""
    value = values.get("text")
    parsed = cell_of(value)
    if isinstance(parsed, list) and parsed and all(isinstance(one, str) for one in parsed):
        value = parsed
    if not isinstance(value, list):
        return text_of(values, "text", "the text"), None
    for number, token in enumerate(value):
        if not isinstance(token, str) or not token.strip():
            raise InputError(f"token {number} must be text that is not empty, but it is {token!r}")
    return text_of({"text": " ".join(value)}, "text", "the text"), _bounds(value)


def _bounds(tokens: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Where tokens are when one space is between them."""
    ends = np.cumsum([len(token) + 1 for token in tokens]).tolist()
    return tuple((end - 1 - len(token), end - 1) for token, end in zip(tokens, ends, strict=True))


def _parsed(value: Any) -> list[Any]:
    """Tags or spans as a list."""
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return value.split()
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the tags look like JSON but are none ({error})") from error
    if not isinstance(value, list):
        raise InputError(f"the tags must be a list of tags or spans, but {type(value).__name__} was given")
    return value


def _span(value: Any, text: str) -> Span:
    """A span as given: [start, end, type], or a record of these."""
    if isinstance(value, Mapping):
        label = next((value[key] for key in LABEL_KEYS if key in value), None)
        value = [value.get("start"), value.get("end"), label]
    fits = isinstance(value, list | tuple) and len(value) == 3
    if not fits or not all(type(one) is int for one in value[:2]) or not isinstance(value[2], str) or not value[2]:
        raise InputError(f"a span must be [start, end, type], places in characters, but {value!r} was given")
    start, end, label = value
    if not 0 <= start < end <= len(text):
        raise InputError(f"the span {list(value)} is not inside the text, which has {len(text)} characters")
    return Span(start, end, label)


def _checked(spans: list[Span], text: str) -> tuple[Span, ...]:
    spans.sort()
    for first, second in pairwise(spans):
        if second.start < first.end:
            raise InputError(f"the spans {list(first)} and {list(second)} overlap, but a word can be in one span only")
    return tuple(spans)


def _tags(bounds: Sequence[tuple[int, int]], spans: Sequence[Any], types: Sequence[str]) -> np.ndarray:
    """The tags of words at these places: each span's are the words that it touches."""
    if not spans:
        return np.zeros(len(bounds), np.int64)
    starts, ends = np.array([start for start, _ in bounds]), np.array([end for _, end in bounds])
    of_words = [
        Span(int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(starts, end)), label)
        for start, end, label in spans
    ]
    return tags_of(of_words, len(bounds), types)


def _whole_tokens(tokens: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """From the first token that a stretch touches to the end of the last one."""
    first = bisect_right(tokens, start, key=lambda token: token[1])
    last = bisect_left(tokens, end, key=lambda token: token[0]) - 1
    return tokens[first][0], tokens[last][1]


def _inside_words(example: Example) -> bool:
    """Whether a span begins or ends within a word."""
    if not example.truth or "tokens" in example.given:
        return False
    words = words_of(example.given["text"])
    starts, ends = {start for start, _ in words}, {end for _, end in words}
    return any(start not in starts or end not in ends for start, end, _ in example.truth)


def _spans(truth: Sequence[Any]) -> set[tuple[int, int, str]]:
    return {(int(start), int(end), str(label)) for start, end, label in truth}


def _key(span: Mapping[str, Any]) -> tuple[int, int, str]:
    return span["start"], span["end"], span["label"]


def _share(name: str, hits: np.ndarray, of: np.ndarray) -> Quantity:
    return Quantity(name, np.stack([hits, of], axis=1), lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1))


def _by_type(
    both: Sequence[tuple[set[Any], set[Any]]], labels: Sequence[str]
) -> tuple[str, list[str], list[list[Any]]]:
    rows: list[list[Any]] = []
    for label in sort_labels({*labels, *(span[2] for _, true in both for span in true)}):
        said, true, hits = (
            sum(span[2] == label for pair in both for span in some(*pair))
            for some in (lambda s, _: s, lambda _, t: t, lambda s, t: s & t)
        )
        rates = [hits / said if said else 0.0, hits / true if true else 0.0, 2 * hits / max(1, said + true)]
        rows.append([label, *rates, true])
    return "By type", ["type", "precision", "recall", "F1", "spans"], rows


def _mistakes(both: Sequence[tuple[set[Any], set[Any]]]) -> tuple[str, list[str], list[list[Any]]]:
    """What kind of mistake each wrong span is."""
    counts = dict.fromkeys(("other border", "other type", "other type and border", "found where there is none"), 0)
    missed = 0
    for said, true in both:
        for start, end, label in said - true:
            over = [other for other in true if other[0] < end and start < other[1]]
            if any(other[:2] == (start, end) for other in over):
                counts["other type"] += 1
            elif any(other[2] == label for other in over):
                counts["other border"] += 1
            else:
                counts["other type and border" if over else "found where there is none"] += 1
        missed += sum(not any(a < end and start < b for a, b, _ in said) for start, end, _ in true)
    return "Mistakes", ["kind", "spans"], [*([kind, count] for kind, count in counts.items()), ["missed", missed]]
