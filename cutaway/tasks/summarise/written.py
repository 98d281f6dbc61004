"""Summaries that a model writes: the prompt, long documents by parts, and how likely the model held what it wrote.

A document that does not fit beside its summary into what the model sees is cut into parts between sentences. Each part
is summarised, then the summaries together, until one is left; nothing of the document is left out.

Shapes: T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cutaway.errors import InputError
from cutaway.generation.request import Generation, Request
from cutaway.models import Model, Seq2Seq
from cutaway.progress import OnProgress, Progress
from cutaway.text.sentences import sentence_spans
from cutaway.tokenizers.chat import chat_ids
from cutaway.tokenizers.frame import beginning, frame

if TYPE_CHECKING:
    from cutaway.generation import Engine

LEAST = 16  # tokens of a document that must fit beside the prompt and the summary
PLAIN = "\n\nTL;DR:"  # before the summary, of a model without a chat template


@dataclass(frozen=True)
class Written:
    """What a model wrote of a document.

    Attributes:
        text: the summary.
        logprobs: natural log of the probability of each of its tokens.
        finished: whether the model ended it, and not the limit of tokens.
        parts: of a document that was summarised by parts: (start, end, summary) of each part.
    """

    text: str
    logprobs: list[float]
    finished: bool
    parts: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Prompt:
    """How a document is put to a model.

    Attributes:
        model: that writes.
        instruction: before the document, where the model speaks in turns.
        longest: tokens of prompt and summary together.
        new: of these, tokens for the summary.
    """

    model: Model
    instruction: str
    longest: int
    new: int

    def ids(self, text: str) -> list[int]:
        """The prompt of a text."""
        model = self.model
        if isinstance(model.network, Seq2Seq):
            return frame(model.tokenizer, model.tokenizer.encode(text))[0]
        if model.tokenizer.chat_template is not None:
            return chat_ids(model, [{"role": "user", "content": f"{self.instruction}\n\n{text}"}])
        return [*beginning(model.tokenizer), *model.tokenizer.encode(text + PLAIN)]

    def target(self, summary: str) -> list[int]:
        """The ids of a summary behind the prompt, without what ends it."""
        tokenizer = self.model.tokenizer.target or self.model.tokenizer
        plain = self.model.tokenizer.chat_template is None and not isinstance(self.model.network, Seq2Seq)
        return tokenizer.encode(f" {summary.strip()}" if plain else summary.strip())

    def ends(self) -> int:
        """The id that ends a summary."""
        tokenizer = self.model.tokenizer.target or self.model.tokenizer
        return tokenizer.end_of_text or 0

    @property
    def room(self) -> int:
        """Tokens of a document that fit.

        Raises:
            InputError: hardly any do.
        """
        room = self.longest - len(self.ids("a")) + 1
        room -= 0 if isinstance(self.model.network, Seq2Seq) else self.new
        if room < LEAST:
            raise InputError(
                f"{self.longest} tokens leave {max(0, room)} for the document beside the prompt and a summary of "
                f"{self.new}; give a larger context or a smaller max_new_tokens"
            )
        return room

    def parts(self, text: str) -> list[tuple[int, int]]:
        """Where to cut a text between sentences, so that each part fits; sentences that do not fit are cut."""
        room = self.room
        if len(self.model.tokenizer.encode(text)) <= room:
            return [(0, len(text))]
        spans = sentence_spans(text)
        counts = [len(ids) + 1 for ids in self.model.tokenizer.encode_bulk([text[a:b] for a, b in spans])]
        parts: list[tuple[int, int]] = []
        used = 0
        for (start, end), count in zip(spans, counts, strict=True):
            between = len(text[parts[-1][1] : start].encode()) if parts else 0  # of white space; not all is one token
            if parts and used + between + count <= room:
                parts[-1], used = (parts[-1][0], end), used + between + count
            elif count <= room:
                parts.append((start, end))
                used = count
            else:
                parts += self._cut(text, start, end, room)
                used = room
        return parts

    def _cut(self, text: str, start: int, end: int, room: int) -> list[tuple[int, int]]:
        """A sentence that alone is too long, in parts of characters."""
        cuts, length = [], end - start
        while start < end:
            length = min(length, end - start)
            while length > 1 and len(self.model.tokenizer.encode(text[start : start + length])) > room:
                length = max(1, length * 3 // 4)
            cuts.append((start, start + length))
            start += length
        return cuts


def rows(prompt: Prompt, documents: Sequence[str], summaries: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """Prompts and the targets that follow them, to learn from; of a document that does not fit, its first
    part; a summary longer than `new` tokens is cut, and then not ended."""
    made = []
    for document, summary in zip(documents, summaries, strict=True):
        start, end = prompt.parts(document)[0]
        made.append((prompt.ids(document[start:end]), [*prompt.target(summary), prompt.ends()][: prompt.new]))
    return made


def write(
    engine: Engine,
    prompt: Prompt,
    documents: Sequence[str],
    *,
    beams: int = 1,
    at_once: int = 32,
    progress: OnProgress | None = None,
) -> list[Written]:
    """The summary of each document.

    Args:
        engine: that writes.
        prompt: how documents are put.
        documents: of any length.
        beams: above 1, a search with so many hypotheses.
        at_once: documents that are submitted together.
        progress: told after each group.
    """
    made: list[Written] = []
    for first in range(0, len(documents), at_once):
        made += _write(engine, prompt, documents[first : first + at_once], beams)
        if progress:
            progress(Progress("writing", len(made), len(documents), "summaries"))
    return made


def _write(engine: Engine, prompt: Prompt, documents: Sequence[str], beams: int) -> list[Written]:
    parts = [prompt.parts(text) for text in documents]
    texts = [text[start:end] for text, cuts in zip(documents, parts, strict=True) for start, end in cuts]
    written = iter(_generate(engine, prompt, texts, beams))
    found: list[Written] = []
    for cuts in parts:
        own = [next(written) for _ in cuts]
        if len(own) == 1:
            found.append(_told(own[0], []))
            continue
        told = [(start, end, one.text.strip()) for (start, end), one in zip(cuts, own, strict=True)]
        joined = "\n".join(summary for _, _, summary in told if summary)
        shorter = len(joined) < sum(end - start for start, end, _ in told)
        if joined and shorter:
            (last,) = _write(engine, prompt, [joined], beams)
            found.append(Written(last.text, last.logprobs, last.finished, told))
        else:  # a model that only repeats would go on without end: what it said of each part is the summary
            logprobs = [value for one in own for value in one.logprobs]
            found.append(Written(joined, logprobs, False, told))
    return found


def _generate(engine: Engine, prompt: Prompt, texts: Sequence[str], beams: int) -> list[Generation]:
    how: dict[str, Any] = {"beams": beams} if beams > 1 else {"sampling": {"temperature": 0.0}}
    asked = [Request(prompt.ids(text), max_new_tokens=prompt.new, **how) for text in texts]
    tickets = [engine.submit(request) for request in asked]
    return [ticket.result() for ticket in tickets]


def _told(one: Generation, parts: list[tuple[int, int, str]]) -> Written:
    return Written(one.text.strip(), list(one.logprobs), one.finish_reason != "length", parts)
