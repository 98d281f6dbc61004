"""/v1/tag: the labels of a text's tokens, such as the names in it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from torch import Tensor

from cutaway.models.heads import probabilities
from cutaway.serve.body import JsonRoute
from cutaway.serve.schema.base import ReadUsage, errors
from cutaway.serve.schema.tag import Span, Tagged, TaggedToken, Tagging, TagRequest
from cutaway.serve.server import server_of
from cutaway.serve.tasking import answers
from cutaway.serve.texts import as_list, framed, needs, told, usage

if TYPE_CHECKING:
    from cutaway.tasks import Answer

router = APIRouter(prefix="/v1", route_class=JsonRoute)
NOTHING = "O"  # the label of what is in no span


@router.post("/tag", response_model=Tagging, responses=errors(404, 413, 504))
async def tag(asked: TagRequest, http: HttpRequest) -> Response:
    """What each token of a text is, and the spans that they make."""
    with await server_of(http).begin(http, asked.model) as work:
        model = work.loaded.model
        config = needs(model, "token_classification", "tagging texts")
        texts = as_list(asked.input)
        if work.loaded.task is not None:
            data = [_of_task(number, one) for number, one in enumerate(await answers(work, texts, "tag"))]
            return told(_tagging(asked.model, list(work.loaded.task.labels), data, usage(work)))
        read = await framed(work, texts, "input")
        made = [probabilities(logits, config) for logits in await work.read(read.ids)]

        def tell() -> list[Tagged]:
            found = []
            for number, (text, ids, rows) in enumerate(zip(texts, read.ids, made, strict=True)):
                encoding, _ = model.tokenizer.cut(text)
                begin = _place(encoding.ids, ids)
                tokens = _tokens(encoding.offsets, rows[begin : begin + len(encoding.ids)], config.labels)
                found.append(Tagged(index=number, tokens=tokens, spans=spans(text, tokens)))
            return found

        data = await work.server.bridge.aside(tell)
        return told(_tagging(asked.model, list(config.labels), data, usage(work)))


def _tagging(model: str, labels: list[str], data: list[Tagged], used: ReadUsage) -> Tagging:
    created = int(time.time())
    return Tagging(id=f"tag-{uuid.uuid4().hex}", created=created, model=model, labels=labels, data=data, usage=used)


def _of_task(number: int, made: Answer) -> Tagged:
    """What a task's model answers: spans of a text of any length, with calibrated probabilities."""
    found = [
        Span(start=one["start"], end=one["end"], text=one["text"], label=one["label"], score=one["probability"])
        for one in made.answer
    ]
    return Tagged(index=number, tokens=[], spans=found)


def _place(inner: Sequence[int], framed: Sequence[int]) -> int:
    """Where a text's own tokens begin among those that a network reads."""
    return next(i for i in range(len(framed) - len(inner) + 1) if framed[i : i + len(inner)] == [*inner])


def _tokens(offsets: Sequence[tuple[int, int]], rows: Tensor, labels: tuple[str, ...]) -> list[TaggedToken]:
    scores, best = rows.max(-1)
    return [
        TaggedToken(start=start, end=end, label=labels[which], score=score)
        for (start, end), which, score in zip(offsets, best.tolist(), scores.tolist(), strict=True)
    ]


def spans(text: str, tokens: Sequence[TaggedToken]) -> list[Span]:
    """Tokens in a row with the same label; B- begins another span, even of the label before it.

    Args:
        text: which the tokens are of.
        tokens: in their order.
    """
    groups: list[tuple[str, list[TaggedToken]]] = []
    before = NOTHING
    for token in tokens:
        begins = token.label.startswith("B-")
        label = token.label[2:] if token.label[:2] in ("B-", "I-") else token.label
        if label != NOTHING:
            if label == before and not begins:
                groups[-1][1].append(token)
            else:
                groups.append((label, [token]))
        before = label
    return [
        Span(
            start=group[0].start,
            end=group[-1].end,
            text=text[group[0].start : group[-1].end],
            label=label,
            score=sum(token.score for token in group) / len(group),
        )
        for label, group in groups
    ]
