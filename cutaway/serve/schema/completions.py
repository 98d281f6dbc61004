"""/v1/completions: a prompt, continued."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from cutaway.serve.schema.base import Told, Usage
from cutaway.serve.schema.generating import Generating, TokenIds

FinishReason = Literal["stop", "length"]
Id = Annotated[int, Field(ge=0, lt=2**31)]
Ids = Annotated[list[Id], Field(fail_fast=True, min_length=1, max_length=1_048_576)]


def _kind(value: Any) -> str | None:
    """Which of the four kinds of prompt this is; its first entry tells."""
    if isinstance(value, list):
        first = value[0] if value else ""
        return "lists of ids" if isinstance(first, list) else "texts" if isinstance(first, str) else "ids"
    return "text" if isinstance(value, str) else None


Prompt = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=65_536), Tag("texts")]
    | Annotated[Ids, Tag("ids")]
    | Annotated[list[Ids], Field(fail_fast=True, min_length=1, max_length=65_536), Tag("lists of ids")],
    Discriminator(
        _kind,
        custom_error_type="wrong_kind",
        custom_error_message="must be text, a list of texts, a list of token ids, or a list of such lists",
    ),
]


class CompletionRequest(Generating):
    """What is asked of /v1/completions."""

    prompt: Prompt | None = Field(
        None,
        description="Text, texts, token ids, or lists of them, at most `max_inputs` (2048) of `max_prompt` (2,000,000) "
        "characters each. Default: the beginning of a new text.",
    )
    max_tokens: Annotated[int, Field(ge=0, le=131_072)] | None = Field(
        None, description="Tokens to write at the most; 0 only reads the prompt (with `echo`). Default: 16."
    )
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        None, description="Tell the log-probability of each token, and of so many likeliest ones. Default: none."
    )
    echo: bool | None = Field(
        None,
        description="Tell the prompt before what continues it, with `logprobs` its log-probabilities too. "
        "Default: false.",
    )
    best_of: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="Write so many continuations and tell the `n` of the highest log-probability per token. "
        "Default: n. Not with `stream`. At most `max_n` (16).",
    )


class CompletionLogprobs(Told):
    """Of each token: where its text begins in the choice's text, its spelling, its log-probability, alternatives."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None] | None


class CompletionChoice(TokenIds):
    """One continuation."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason


class Completion(Told):
    """The answer of /v1/completions."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


class CompletionPiece(TokenIds):
    """More of one continuation."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None


class CompletionChunk(Told):
    """An event of a stream. The last ones of each choice say why it ends."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionPiece]
    usage: Usage | None = None
