"""/v1/completions: a prompt, continued."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cutaway.serve.schema.base import Asked, Told, Usage

FinishReason = Literal["stop", "length"]


class CompletionRequest(Asked):
    """What is asked of /v1/completions."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    prompt: str
    max_tokens: Annotated[int, Field(ge=0, le=131_072)] = 16
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class CompletionChoice(Told):
    """One continuation."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: FinishReason


class Completion(Told):
    """The answer of /v1/completions."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
