"""/v1/completions: a prompt, continued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.generation import Request, Token
from cutaway.generation.generate import make_request
from cutaway.models import Seq2Seq
from cutaway.serve.answer import Answer
from cutaway.serve.body import JsonRoute
from cutaway.serve.bridge import Stream
from cutaway.serve.events import Events, Template, event
from cutaway.serve.options import check_count, check_room, context_of, options, refuse
from cutaway.serve.schema.base import STREAMED, errors
from cutaway.serve.schema.completions import Completion, CompletionRequest
from cutaway.serve.server import Work, server_of
from cutaway.serve.telling import FINISH, Logprobs, texts_of

router = APIRouter(prefix="/v1", route_class=JsonRoute)
LENGTH = 16  # tokens, where nobody says how many
Given = str | list[int]


@router.post("/completions", response_model=Completion, responses={**errors(404, 413, 501, 504), **STREAMED})
async def completions(asked: CompletionRequest, http: HttpRequest) -> Response:
    """Continue a prompt, or several."""
    work = await server_of(http).begin(http, asked.model)
    try:
        answer = await work.attended(_begin(asked, work))
        if asked.stream:
            return Events(work, answer.events())
        body = await work.attended(answer.whole())
    except BaseException:
        work.close()
        raise
    work.close()
    return Response(body, media_type="application/json")


async def _begin(asked: CompletionRequest, work: Work) -> Answer:
    """Check what is asked, read the prompts and hand them to the engine."""
    given = _prompts(asked, work)
    drawn = _drawn(asked, work)
    answer = Answer(asked, work, ("text_completion", "text_completion"), "cmpl", drawn)
    how = options(asked, work.server.settings, work.loaded.model)
    how |= {"n": drawn, "tenant": work.caller.tenant, "logprobs": asked.logprobs or 0}
    if asked.echo and asked.logprobs is not None:
        how["prompt_logprobs"] = asked.logprobs
    form = None if asked.structured_outputs is None else "structured_outputs"

    def requests() -> list[tuple[list[int], Request | None]]:
        return [_request(one, asked, work, how) for one in given]

    made = await answer.checked(work.server.bridge.aside(requests), "prompt", form)
    await answer.submit([request for _, request in made if request is not None], "prompt", form)
    streams = answer.streams or [None] * len(made)
    for number, ((ids, _), one, stream) in enumerate(zip(made, given, streams, strict=True)):
        work.prompt_tokens += len(ids)
        answer.choices += [Choice(answer, number * drawn + i, one, ids, stream) for i in range(drawn)]
    return answer
