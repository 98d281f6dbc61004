"""A short text that says what a long one says: its own best sentences, or one that a model writes.

Shapes: N examples, S sentences, C channels.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from cutaway.errors import ConfigError, InputError
from cutaway.models import Model, Seq2Seq, Seq2SeqConfig
from cutaway.progress import OnProgress, Progress
from cutaway.tasks.figures import mean_of
from cutaway.tasks.reading import arrays, framed, read_all
from cutaway.tasks.summarise import extract, written
from cutaway.tasks.summarise.marked import Window, windows
from cutaway.tasks.summarise.rouge import KINDS, gains, rouge
from cutaway.tasks.summarise.support import Supports
from cutaway.tasks.task import Answer, Example, Measured, Role, Task, cell_of, text_of
from cutaway.text.sentences import sentence_spans
from cutaway.training.objectives import Choice, Completion, Objective
from cutaway.training.rows import Parts

if TYPE_CHECKING:
    from cutaway.generation import Engine

TEXTS = ("document", "source", "article", "body", "content", "abstract", "dialogue", "passage", "正文", "文章", "内容")
SUMMARIES = ("targets", "summaries", "target", "tldr", "highlights", "headline", "摘要", "总结")
TITLES = ("heading", "subject", "标题")
TEXT, SUMMARY = Role("text", "the document", TEXTS), Role("summary", "its summary", SUMMARIES, answer=True)
TITLE = Role("title", "its title", TITLES, needed=False)
BOTTOM, TOP, STEPS = 0.05, 20.0, 60  # of temperatures
INSTRUCTION = "Summarize the text below in one or two sentences. Answer with the summary alone."


@dataclass(frozen=True)
class Extracted:
    """What was made of a text whose own sentences are its summary.

    Attributes:
        spans: where its sentences begin and end.
        scores: (S,) how good each is.
        vectors: (S, C) of the sentences, by which they are compared; None: by their words.
    """

    spans: list[tuple[int, int]]
    scores: np.ndarray
    vectors: np.ndarray | None = None


@dataclass(frozen=True)
class Summarise(Task):
    """A summary of a document: its best sentences, or a text that a model writes."""

    way: Literal["scored", "written", "textrank", "centroid", "lead"] = "scored"  # scored, written: learned
    sentences: int = 0  # of a summary; 0: as many as those of the training data have, or one
    redundancy: float = 0.3  # 0 … 1, how much saying the same as another chosen sentence counts against one
    position: float = 0.5  # textrank: how much more often the reader begins at the beginning; 0: anywhere alike
    sharpness: float = 20.0  # scored: how much better the best sentence is taken to be than the next, while it learns
    instruction: str = INSTRUCTION  # written: what a model that speaks in turns is told
    max_new_tokens: int = 96  # written: of a summary
    beams: int = 1  # written: hypotheses of the search

    name: ClassVar[str] = "summarise"
    summary: ClassVar[str] = "a short text that says what a long one says"
    roles: ClassVar[tuple[Role, ...]] = (TEXT, SUMMARY, TITLE)
    metric: ClassVar[str] = "rouge1"
    kinds: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "seq2seq")
    one_truth: ClassVar[bool] = False
    baseline_name: ClassVar[str] = "the first sentence"

    def __post_init__(self) -> None:
        if self.sentences < 0 or self.max_new_tokens < 2 or self.beams < 1:
            raise ConfigError(
                "sentences must be at least 0, max_new_tokens at least 2 and beams at least 1, but "
                f"{self.sentences}, {self.max_new_tokens} and {self.beams} were given"
            )
        if not 0 <= self.redundancy <= 1 or self.position < 0:
            raise ConfigError(
                f"redundancy must lie in 0 … 1 and position be at least 0, but {self.redundancy:g} and "
                f"{self.position:g} were given"
            )

    # the user's data

    def example(self, source: str, values: Mapping[str, Any], *, answered: bool) -> Example:
        text = text_of(values, "text", "the document")
        title = values.get("title")
        given = {"text": text, "title": title.strip() if isinstance(title, str) else ""}
        known = _several(values.get("summary"))
        if answered and not known:
            raise InputError("the summary is missing")
        return Example(source, given, known or None)

    def settle(self, examples: Sequence[Example]) -> Task:
        if self.sentences:
            return self
        counts = [len(sentence_spans(summary)) for example in examples for summary in example.truth]
        return replace(self, sentences=max(1, round(statistics.median(counts))))

    def texts(self, example: Example) -> list[str]:
        return [example.given["text"]]

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return ("summary",) if self.way == "scored" else ()

    def check(self, examples: Mapping[str, Sequence[Example]], labels: tuple[str, ...]) -> list[str]:
        if self.way not in ("scored", "written"):
            raise InputError(
                f"the way {self.way!r} has nothing to learn; use it with: cutaway task summarise FILE --way {self.way}"
            )
        train = examples["train"]
        lengths = [len(sentence_spans(example.given["text"])) for example in train[:1000]]
        words = "its best sentences, scored" if self.way == "scored" else "written by the model"
        count = f"{self.sentences} sentence{'s' * (self.sentences != 1)}"
        notes = [f"a summary is {count if self.way == 'scored' else ''}{', ' * (self.way == 'scored')}{words}"]
        if self.way == "scored" and statistics.median(lengths) <= self.sentences:
            notes.append(
                f"half of the documents have {statistics.median(lengths):g} sentences or fewer: choosing "
                f"{self.sentences} of them leaves little to learn"
            )
        return notes

    # training

    def features(self, labels: tuple[str, ...]) -> dict[str, Any]:
        if self.way == "scored":
            return {"head": "token_classification", "labels": ("summary",), "head_activation": "none"}
        return {}

    def objective(self, examples: Sequence[Example], labels: tuple[str, ...]) -> Objective:
        return Choice(self.sharpness, self.metric) if self.way == "scored" else Completion()

    def encode(self, model: Model, examples: Sequence[Example], context: int) -> tuple[Parts, list[int]]:
        if self.way == "scored":
            return self._encode_scored(model, examples, context)
        if not self._writes(model):
            raise ConfigError(f"the way 'written' needs a network that writes, but {model.source} is another")
        prompt = self.prompt(model, context)
        pairs = [(number, summary) for number, example in enumerate(examples) for summary in example.truth]
        documents = [self.document(examples[number]) for number, _ in pairs]
        made = written.rows(prompt, documents, [summary for _, summary in pairs])
        owners = [number for number, _ in pairs]
        if isinstance(model.network, Seq2Seq):
            source, ids = arrays([asked for asked, _ in made]), arrays([target for _, target in made])
            return {"ids": ids, "begins": [np.zeros(1, np.int64)] * len(made), "source": source}, owners
        ids, begins = arrays([[*asked, *target] for asked, target in made]), [np.array([len(one)]) for one, _ in made]
        return {"ids": ids, "begins": begins}, owners

    def _encode_scored(self, model: Model, examples: Sequence[Example], context: int) -> tuple[Parts, list[int]]:
        ids, starts, ends, gain, owners = [], [], [], [], []
        for number, example in enumerate(examples):
            spans, found = self.windows(model, example, context)
            text = example.given["text"]
            known = gains(example.truth, [text[start:end] for start, end in spans])
            for window in found:
                ids.append(window.ids)
                starts.append([start for start, _ in window.places])
                ends.append([end for _, end in window.places])
                gain.append(known[window.numbers])
                owners.append(number)
        return {"ids": arrays(ids), "starts": arrays(starts), "ends": arrays(ends), "gain": gain}, owners

    def windows(self, model: Model, example: Example, context: int = 0) -> tuple[list[tuple[int, int]], list[Window]]:
        """Where the sentences of a document are, and the windows in which they are read to be scored."""
        text = example.given["text"]
        spans = sentence_spans(text)
        return spans, windows(model, example.given["title"], [text[start:end] for start, end in spans], context)

    def prompt(self, model: Model, context: int = 0) -> written.Prompt:
        """How a document is put to a model that writes."""
        sees = model.config.source_context if isinstance(model.config, Seq2SeqConfig) else model.config.context
        longest = min(context or sees, sees)
        return written.Prompt(model, self.instruction, longest, self.max_new_tokens)

    def document(self, example: Example) -> str:
        """What is put to a model that writes: the title, where there is one, and the text."""
        title = example.given["title"]
        return f"{title}\n\n{example.given['text']}" if title else example.given["text"]

    @staticmethod
    def _writes(model: Model) -> bool:
        return isinstance(model.network, Seq2Seq) or getattr(model.config, "head", "") == "causal_lm"

    # answers

    def infer(self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None = None) -> list[Any]:
        if self.way == "written":
            documents = [self.document(example) for example in examples]
            return written.write(engine, self.prompt(engine.model), documents, beams=self.beams, progress=progress)
        if self.way == "scored":
            return self._scored(engine, examples, progress)
        found = []
        for number, example in enumerate(examples):
            text = example.given["text"]
            spans = sentence_spans(text)
            quotes = [text[start:end] for start, end in spans]
            found.append(self.extracted(quotes, spans, self._vectors(engine, quotes)))
            if progress and number % 64 == 63:
                progress(Progress("reading", number + 1, len(examples), "documents"))
        return found

    def _scored(self, engine: Engine, examples: Sequence[Example], progress: OnProgress | None) -> list[Extracted]:
        made = [self.windows(engine.model, example) for example in examples]
        rows = read_all(engine, [window.ids for _, found in made for window in found], progress=progress)
        left, answers = iter(rows), []
        for spans, found in made:
            scores = np.zeros(len(spans))
            for window in found:
                said = next(left)[:, 0].double().numpy()
                scores[window.numbers] = [said[start:end].mean() for start, end in window.places]
            answers.append(Extracted(spans, scores))
        return answers

    def _vectors(self, engine: Engine, quotes: Sequence[str]) -> np.ndarray | None:
        """(S, C) of sentences, where the engine's model makes some."""
        if getattr(engine.model.config, "head", "") != "embedding":
            return None
        longest = getattr(engine.model.config, "longest", 0)
        rows = read_all(engine, framed(engine.model, quotes, longest))
        return np.stack([row.numpy() for row in rows])

    def extracted(self, quotes: Sequence[str], spans: list[tuple[int, int]], vectors: np.ndarray | None) -> Extracted:
        """Sentences scored without training.

        Args:
            quotes: the sentences.
            spans: where they stand.
            vectors: (S, C) of them; None: their words are compared.
        """
        start = extract.prior(len(quotes), self.position)
        scores = -np.arange(len(quotes), dtype=np.float64)
        for first, last in extract.parts(len(quotes)) if self.way != "lead" else ():
            own = extract.word_vectors(quotes[first:last]) if vectors is None else vectors[first:last]
            expected = start[first:last]
            if self.way == "centroid":
                scores[first:last] = extract.centroid(own)
            else:  # as shares of the whole text, so that parts can be compared
                scores[first:last] = extract.textrank(own, expected / expected.sum()) * (last - first) / len(quotes)
        return Extracted(spans, scores, vectors)

    def calibrate(self, raw: Sequence[Any], examples: Sequence[Example], labels: tuple[str, ...]) -> dict[str, Any]:
        if self.way != "scored":
            return {}
        pairs = []
        for one, example in zip(raw, examples, strict=True):
            text = example.given["text"]
            known = gains(example.truth, [text[start:end] for start, end in one.spans])
            pairs.append((one.scores, int(known.argmax())))
        choices = np.geomspace(BOTTOM, TOP, STEPS)
        losses = [float(sum(-np.log(_softmax(scores / t)[best] + 1e-12) for scores, best in pairs)) for t in choices]
        return {"temperature": float(choices[int(np.argmin(losses))])}

    def answer(self, raw: Any, example: Example, labels: tuple[str, ...], calibration: Mapping[str, Any]) -> Answer:
        text = example.given["text"]
        if isinstance(raw, written.Written):
            return self._answer_written(raw, text)

        def vectors_of(some: list[int]) -> np.ndarray:
            if raw.vectors is not None:
                return raw.vectors[some]
            return extract.word_vectors([text[slice(*raw.spans[number])] for number in some])

        if self.way == "lead":
            chosen = list(range(min(self.sentences or 1, len(raw.spans))))
        else:
            chosen = extract.choose(raw.scores, vectors_of, self.sentences or 1, self.redundancy)
        chances = _softmax(raw.scores / calibration.get("temperature", 1.0)) if self.way == "scored" else None
        told = []
        for number in chosen:
            start, end = raw.spans[number]
            quote = text[start:end]
            support = {"sentence": number, "start": start, "end": end, "quote": quote, "overlap": 1.0}
            one: dict[str, Any] = {"text": quote, "supported": True, "covered": 1.0, "support": [support]}
            one["score"] = round(float(raw.scores[number]), 6)
            if chances is not None:
                one["probability"] = round(float(chances[number]), 6)
            told.append(one)
        sure = float(chances[chosen].max()) if chances is not None and len(chosen) == 1 else None
        return Answer(join([one["text"] for one in told]), sure, {"way": self.way, "sentences": told})

    def _answer_written(self, raw: written.Written, text: str) -> Answer:
        supports = Supports(text)
        said = [raw.text[start:end] for start, end in sentence_spans(raw.text)]
        told = [supports.of(sentence) for sentence in said]
        total = float(sum(raw.logprobs))
        more: dict[str, Any] = {"way": self.way, "sentences": told, "finished": raw.finished}
        more |= {"log_probability": total, "log_probability_per_token": total / max(1, len(raw.logprobs))}
        if raw.parts:
            more["parts"] = [{"start": start, "end": end, "summary": one} for start, end, one in raw.parts]
        return Answer(raw.text, None, more)

    # figures

    def measure(self, answers: Sequence[Answer], examples: Sequence[Example], labels: tuple[str, ...]) -> Measured:
        both = zip(answers, examples, strict=True)
        made = np.array([rouge(example.truth, str(answer.answer or "")) for answer, example in both])  # (N, 3)
        quantities = tuple(mean_of(kind, made[:, number]) for number, kind in enumerate(KINDS))
        told = [one for answer in answers for one in answer.more.get("sentences", ())]
        if told and self.way == "written":
            share = [
                float(np.mean([one["supported"] for one in answer.more.get("sentences", ())] or [0.0]))
                for answer in answers
            ]
            quantities += (mean_of("supported", np.array(share)),)
        return Measured(quantities, made[:, 0])

    def baseline(
        self, train: Sequence[Example], test: Sequence[Example], labels: tuple[str, ...], *, seed: int = 0
    ) -> list[Answer] | None:
        first = []
        for example in test:
            text = example.given["text"]
            spans = sentence_spans(text)[: self.sentences or 1]
            first.append(Answer(join([text[start:end] for start, end in spans]), None, {"way": "lead"}))
        return first

    # why

    def why(self, model: Model, example: Example, answer: Answer, *, method: str = "", part: int = 0) -> Any:
        from cutaway.tasks.summarise import why

        return why.why(self, model, example, answer, method=method, part=part)


def join(sentences: Sequence[str]) -> str:
    """Sentences as one text: with spaces between them, but not behind a Chinese stop."""
    made = ""
    for sentence in sentences:
        made += ("" if not made or made[-1] in "。！？”」』）…" else " ") + " ".join(sentence.split())
    return made


def _several(value: Any) -> tuple[str, ...]:
    """One summary or several, as a table holds them."""
    value = cell_of(value)
    found = value if isinstance(value, list | tuple) else [value]
    return tuple(str(one).strip() for one in found if one is not None and str(one).strip())


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()
