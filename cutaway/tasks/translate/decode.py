"""From sources to translations: parts that fit, a beam search for each, all of them in batches.

Shapes: L layers, T target tokens, S source tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.generation.phrases import UNSPACED, is_inside
from cutaway.generation.request import Request
from cutaway.models import Model, Seq2Seq
from cutaway.progress import OnProgress, Progress
from cutaway.tasks.translate.align import attention
from cutaway.tasks.translate.terms import wanted
from cutaway.text.sentences import sentence_spans
from cutaway.tokenizers.frame import frame

if TYPE_CHECKING:
    from cutaway.generation import Engine

AT_ONCE = 256  # hypotheses in a step: what is written together
CROWD = 4  # parts, from which on they are written in batches
SPARE = 10  # tokens that a translation may be longer than twice its source
LETTERS = 4  # characters of a token, of a sentence that is too long and has to be cut


@dataclass(frozen=True)
class How:
    """How translations are looked for.

    Attributes:
        beams: hypotheses; 0: as the checkpoint recommends.
        length_penalty: of the search; None: as the checkpoint recommends.
        prefix: before every source, such as T5's "translate English to German: ".
        terms: source term -> what it has to be called.
        attention: whether to tell what each token was written from.
    """

    beams: int = 5
    length_penalty: float | None = 1.0
    prefix: str = ""
    terms: Mapping[str, str] = field(default_factory=dict)
    attention: bool = True


@dataclass(frozen=True)
class Part:
    """What was read and written at once: a sentence or a few.

    Attributes:
        before: white space between the source of the part before and this one's.
        source: ids as the network read them.
        target: ids that were written, without the first token.
        logprobs: of each of them.
        finished: whether the model ended it, and not the limit of tokens.
        text: what was written.
        attention: (L, T, S) of the attention to the source, the mean of the heads; None where nobody asked.
    """

    before: str
    source: list[int]
    target: list[int]
    logprobs: list[float]
    finished: bool
    text: str
    attention: Tensor | None = None


@dataclass(frozen=True)
class Draft:
    """A translation.

    Attributes:
        text: all of it.
        parts: what it was made from.
        terms: what had to be in it.
    """

    text: str
    parts: tuple[Part, ...]
    terms: tuple[str, ...] = ()

    @property
    def logprob(self) -> float:
        """The mean of the log-probabilities of its tokens, in nats."""
        every = [value for part in self.parts for value in part.logprobs]
        return sum(every) / max(1, len(every))

    @property
    def missing(self) -> list[str]:
        """The terms that there was no room for."""
        return [term for term in self.terms if not is_inside(term, self.text)]


def translate(engine: Engine, texts: Sequence[str], how: How, progress: OnProgress | None = None) -> list[Draft]:
    """A translation of each text.

    Args:
        engine: with an encoder–decoder.
        texts: none of them empty.
        how: translations are looked for.
        progress: told now and then.
    """
    model = engine.model
    pieces = [_pieces(model, text, how.prefix) for text in texts]
    flat = [(number, gap, ids, text) for number, some in enumerate(pieces) for gap, ids, text in some]
    order = sorted(range(len(flat)), key=lambda place: len(flat[place][2]))  # alike in length beside each other
    if len(flat) >= CROWD:
        engine = _crowd(engine, how.beams)
    written: list[Part | None] = [None] * len(flat)
    tickets = []
    try:
        for place in order:
            _, _, ids, text = flat[place]
            tickets.append(engine.submit(_request(model, ids, wanted(text, how.terms), how)))
        for done, (place, ticket) in enumerate(zip(order, tickets, strict=True)):
            made, (_, gap, ids, _) = ticket.results()[0], flat[place]
            text = " ".join(model_text(model, made.ids).split("\n")).strip()
            written[place] = Part(gap, ids, made.ids, made.logprobs, made.finish_reason == "end", text)
            if progress and done % 64 == 0:
                progress(Progress("translating", done, len(flat), "sentences"))
    finally:
        for ticket in tickets:
            ticket.cancel()
    parts = [part for part in written if part is not None]
    if how.attention:
        parts = attention(model, parts)
    each: list[list[Part]] = [[] for _ in texts]
    for (number, *_), part in zip(flat, parts, strict=True):
        each[number].append(part)
    return [
        Draft(_joined(some), tuple(some), tuple(wanted(text, how.terms)))
        for text, some in zip(texts, each, strict=True)
    ]


def model_text(model: Model, ids: Sequence[int]) -> str:
    """Written ids as text, without special tokens."""
    return (model.tokenizer.target or model.tokenizer).decode(ids, skip_special=True)


def _crowd(engine: Engine, beams: int) -> Engine:
    """An engine that writes many targets in one batch: their numbers are rounded otherwise than one by one.

    One that waits for another's steps (a server's) stays, as nothing else may compute there.
    """
    from cutaway.generation import Engine

    return Engine(engine.model, together=True, max_batch=max(AT_ONCE, beams)) if isinstance(engine, Engine) else engine


def _request(model: Model, ids: list[int], terms: Sequence[str], how: How) -> Request:
    count = 2 * len(ids) + SPARE + 4 * sum(len(term) for term in terms)
    return Request(
        torch.tensor(ids),
        sampling={"temperature": 0.0},
        max_new_tokens=min(count, model.config.context - 1),
        beams=how.beams or None,
        length_penalty=how.length_penalty,
        phrases=terms,
    )


def longest_source(model: Model) -> int:
    """How many tokens of a source are read at once."""
    assert isinstance(model.network, Seq2Seq)
    return model.network.config.source_context


def _pieces(model: Model, text: str, prefix: str) -> list[tuple[str, list[int], str]]:
    """What of a text is read at once: the white space before it, its ids, and its text."""
    longest = longest_source(model)
    ids = _framed(model, prefix + text.strip())
    if len(ids) <= longest and "\n" not in text.strip():
        return [("", ids, text.strip())]
    made, end = [], 0
    # a target may be longer than its source, and has no more room
    room = max(8, (longest - len(_framed(model, prefix))) * 3 // 4)
    for start, stop in _cut(model, text, sentence_spans(text), room):
        gap = text[end:start] if made else ""
        made.append((gap, _framed(model, prefix + text[start:stop])[:longest], text[start:stop]))
        end = stop
    return made


def _cut(model: Model, text: str, spans: Sequence[tuple[int, int]], room: int) -> list[tuple[int, int]]:
    """The sentences, those that alone are too long in pieces."""
    made: list[tuple[int, int]] = []
    for start, end in spans:
        count = len(model.tokenizer.encode(text[start:end]))
        if count <= room:
            made.append((start, end))
            continue
        most = max(1, (end - start) * room // count - 1)
        pieces = sentence_spans(text[start:end], longest=most)
        if len(pieces) == 1:  # not to be cut smaller by characters
            made.append((start, end))
            continue
        made += _cut(model, text, [(start + first, start + last) for first, last in pieces], room)
    return made


def _framed(model: Model, text: str) -> list[int]:
    return frame(model.tokenizer, model.tokenizer.encode(text))[0]


def _joined(parts: Sequence[Part]) -> str:
    """The translations of a text's parts with the space between that their sources had, or that their words need."""
    text = ""
    for part in parts:
        apart = " " if part.text[:1].isalnum() and part.text[:1] < UNSPACED else ""
        text += ((part.before or apart) if text else "") + part.text
    return text
