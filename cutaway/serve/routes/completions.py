"""/v1/completions: a prompt, continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.generation import Request, Token
from cutaway.generation.generate import make_request
from cutaway.generation.request import Score
from cutaway.models import Seq2Seq
from cutaway.serve.answer import Answer, answered
from cutaway.serve.body import JsonRoute
from cutaway.serve.bridge import Stream
from cutaway.serve.events import Template, event
from cutaway.serve.options import check_count, check_n, check_room, context_of, options, refuse
from cutaway.serve.schema.base import STREAMED, errors
from cutaway.serve.schema.completions import Completion, CompletionRequest
from cutaway.serve.server import Work, server_of
from cutaway.serve.settings import Settings
from cutaway.serve.telling import FINISH, Logprobs, texts_of

router = APIRouter(prefix="/v1", route_class=JsonRoute)
LENGTH = 16  # tokens, where nobody says how many
Given = str | list[int]


@router.post("/completions", response_model=Completion, responses={**errors(404, 413, 501, 504), **STREAMED})
async def completions(asked: CompletionRequest, http: HttpRequest) -> Response:
    """Continue a prompt, or several."""
    drawn = _drawn(asked, server_of(http).settings)
    given = _prompts(asked, drawn, server_of(http).settings)
    work = await server_of(http).begin(http, asked.model, weight=len(given) * drawn)
    return await answered(work, _begin(asked, work, given, drawn))


async def _begin(asked: CompletionRequest, work: Work, given: list[Given], drawn: int) -> Answer:
    """Read the prompts and hand them to the engine."""
    if asked.echo and isinstance(work.loaded.model.network, Seq2Seq):
        raise refuse("echo", "is for models that continue a text; this one writes a text of its own to another")
    answer = Answer(asked, work, ("text_completion", "text_completion"), "cmpl", drawn)
    how = options(asked, work.server.settings, work.loaded.model)
    how |= {"n": drawn, "tenant": work.caller.tenant, "logprobs": asked.logprobs or 0}
    if (asked.echo and asked.logprobs is not None) or asked.max_tokens == 0:
        how["prompt_logprobs"] = asked.logprobs or 0
    form = None if asked.structured_outputs is None else "structured_outputs"
    await answer.submit(lambda: [_request(one, asked, work, how) for one in given], "prompt", form)
    for number, (one, stream) in enumerate(zip(given, answer.streams, strict=True)):
        answer.choices += [Choice(answer, asked, number * drawn + i, one, stream) for i in range(drawn)]
    return answer


def _prompts(asked: CompletionRequest, drawn: int, settings: Settings) -> list[Given]:
    """The prompts, as they were given."""
    prompt = asked.prompt
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    given = cast(list[Given], prompt if several else ["" if prompt is None else prompt])
    if len(given) > settings.max_inputs:
        raise refuse("prompt", f"may hold {settings.max_inputs:,} prompts here, but {len(given):,} were given")
    if (longest := max(map(len, given))) > settings.max_prompt:
        raise refuse("prompt", f"may be {settings.max_prompt:,} characters long here, but {longest:,} were given")
    if asked.logprobs is not None and asked.logprobs > settings.max_logprobs:
        raise refuse("logprobs", f"may be at most {settings.max_logprobs} here, but {asked.logprobs} was given")
    count = LENGTH if asked.max_tokens is None else asked.max_tokens
    check_count(len(given) * drawn * count, settings, "max_tokens")
    return given


def _drawn(asked: CompletionRequest, settings: Settings) -> int:
    """How many continuations are drawn of each prompt."""
    n, most = check_n(asked, settings), settings.max_n
    drawn = n if asked.best_of is None else asked.best_of
    if not n <= drawn <= most:
        raise refuse("best_of", f"must lie in n … {most} here, {n} … {most}, but {drawn} was given")
    if asked.stream and drawn > n:
        raise refuse("best_of", "cannot be above n in a stream: which ones are the best is known at the end")
    return drawn


def _request(prompt: Given, asked: CompletionRequest, work: Work, how: Mapping[str, Any]) -> tuple[int, Request]:
    """How many tokens a prompt has, and the engine's request for it."""
    model = work.loaded.model
    count = LENGTH if asked.max_tokens is None else asked.max_tokens
    if isinstance(model.network, Seq2Seq):
        return model.source_ids(prompt).shape[1], make_request(prompt, max_new_tokens=count, **how)
    model.speaker("generating")
    ids = model.ids(prompt)[0].tolist() if len(prompt) else []
    context = context_of(model)
    if asked.max_tokens is None and context is not None:
        count = min(count, max(1, context - len(ids)))
    check_room(model, len(ids), count, "prompt")
    return max(1, len(ids)), make_request(ids or "", max_new_tokens=count, **how)


class Choice:
    """One continuation.

    Args:
        answer: what it belongs to.
        asked: the request.
        index: of it.
        prompt: as it was given.
        stream: of its tokens.
    """

    def __init__(self, answer: Answer, asked: CompletionRequest, index: int, prompt: Given, stream: Stream) -> None:
        self.ended = False
        self._answer, self._asked, self._index = answer, asked, index
        self._prompt, self._ticket = prompt, stream.ticket
        self._tokenizer = answer.work.loaded.model.tokenizer
        self._tokenizer = self._tokenizer.target or self._tokenizer
        self._begun = not (asked.echo or asked.return_token_ids)  # nothing comes before the first token
        self._logprobs = None if asked.logprobs is None else Logprobs(self._tokenizer, asked.logprobs)
        plain = self._logprobs is None and not asked.return_token_ids
        gap = {"index": index, "text": Template.gap, "logprobs": None, "finish_reason": None}
        self._template = Template(answer.chunk(gap)) if plain and asked.stream else None

    def whole(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """All of it, as a choice of an answer."""
        return self._piece(tokens, True)

    def events(self, tokens: Sequence[Token], last: bool) -> bytes:
        """More of it, as an event; none where nothing is told yet."""
        self.ended = last
        if self._template is not None and self._begun and not last:
            text = "".join([token.text for token in tokens])
            return self._template.fill(text) if text else b""
        return event(self._answer.chunk({"index": self._index, **self._piece(tokens, last)}))

    def _piece(self, tokens: Sequence[Token], last: bool) -> dict[str, Any]:
        prompt = not self._begun
        self._begun = True
        finish = tokens[-1].finish_reason if tokens else None
        piece: dict[str, Any] = {
            "text": self._echo() if prompt and self._asked.echo else "",
            "logprobs": None,
            "finish_reason": FINISH[finish or "length"] if last else None,
        }
        if self._logprobs is not None:
            told = [(token.id, token.text, (token.logprob, token.top)) for token in tokens]
            before = self._read(piece["text"]) if prompt and self._asked.echo else []
            piece["logprobs"] = self._logprobs.of([*before, *told])
        piece["text"] += "".join([token.text for token in tokens])
        if self._asked.return_token_ids:
            piece["token_ids"] = [token.id for token in tokens]
            piece["prompt_token_ids"] = list(self._ticket.prompt_ids) if prompt else None
        return piece

    def _echo(self) -> str:
        """The prompt's text."""
        return self._prompt if isinstance(self._prompt, str) else self._tokenizer.decode(self._prompt)

    def _read(self, text: str) -> list[tuple[int, str, Score | None]]:
        """The prompt's tokens, what each adds to its text, and how likely they were."""
        ids, scores = self._ticket.prompt_ids, self._ticket.prompt_logprobs
        return list(zip(ids, texts_of(self._tokenizer, ids, text), scores, strict=True))
