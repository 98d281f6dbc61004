"""/v1/completions: a prompt, continued."""

from __future__ import annotations

import time
import uuid

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest

from cutaway.generation import Token
from cutaway.generation.generate import make_request
from cutaway.serve.schema.base import Usage, errors
from cutaway.serve.schema.completions import Completion, CompletionChoice, CompletionRequest
from cutaway.serve.server import server_of

router = APIRouter(prefix="/v1")


@router.post("/completions", responses=errors(404, 413, 504))
async def completions(asked: CompletionRequest, http: HttpRequest) -> Completion:
    """Continue a prompt."""
    with await server_of(http).begin(http, asked.model) as work:
        request = make_request(
            asked.prompt,
            max_new_tokens=asked.max_tokens,
            temperature=asked.temperature,
            seed=asked.seed,
            tenant=work.caller.tenant,
        )
        stream = await work.submit(request)

        async def read() -> list[Token]:
            return [token async for tokens in stream for token in tokens]

        tokens = await work.attended(read())
        read_, written = stream.ticket.prompt_tokens, len(tokens)
        text = "".join(token.text for token in tokens)
        finish = "length" if tokens[-1].finish_reason == "length" else "stop"
        return Completion(
            id=f"cmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=asked.model,
            choices=[CompletionChoice(index=0, text=text, finish_reason=finish)],
            usage=Usage(prompt_tokens=read_, completion_tokens=written, total_tokens=read_ + written),
        )
