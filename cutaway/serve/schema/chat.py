"""/v1/chat/completions: a conversation, answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from cutaway.serve.schema.base import Asked, Off, Told, Usage
from cutaway.serve.schema.generating import TEXT_OR_LIST, Generating, Label, TokenIds, at_most

FinishReason = Literal["stop", "length", "tool_calls"]
Speaker = Annotated[str, Field(max_length=512, description="Who speaks; a chat template may show it.")] | None
ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class TextPart(Asked):
    """Text, as a part of a message."""

    type: Literal["text"]
    text: str


def _only_text(value: Any) -> Any:
    """Say of pictures and sounds what is the matter, before types are compared."""
    for part in value if isinstance(value, list) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in ("image_url", "input_audio", "file", "video_url", "refusal"):
            raise PydanticCustomError(
                "unsupported_part", "may hold text alone: models here read no {kind}", {"kind": kind}
            )
    return value


Content = Annotated[
    Annotated[str, Tag("one")]
    | Annotated[list[TextPart], Field(fail_fast=True, min_length=1, max_length=4096), Tag("several")],
    TEXT_OR_LIST,
    BeforeValidator(_only_text),
    at_most(4096),  # before the one above
]


class SystemMessage(Asked):
    """What the model is told first."""

    role: Literal["system"]
    content: Content
    name: Speaker = None


class DeveloperMessage(Asked):
    """The system's, by its newer name."""

    role: Literal["developer"]
    content: Content
    name: Speaker = None


class UserMessage(Asked):
    """What was said to the model."""

    role: Literal["user"]
    content: Content
    name: Speaker = None


class CalledFunction(Asked):
    """What was called."""

    name: ToolName
    arguments: Annotated[str, Field(description="JSON of an object.")]


class Call(Asked):
    """A call that the model wanted."""

    id: Label
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(Asked):
    """What the model said."""

    role: Literal["assistant"]
    content: Content | None = None
    name: Speaker = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_calls: Annotated[list[Call], Field(fail_fast=True, max_length=128)] | None = None


class ToolMessage(Asked):
    """What a call gave."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Label
    name: Speaker = None


Message = Annotated[
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(Asked):
    """A tool that may be called."""

    name: ToolName
    description: Annotated[str, Field(max_length=65_536)] | None = None
    parameters: dict[str, Any] | None = Field(None, description="A JSON Schema of an object.")
    strict: bool | None = Field(None, description="Calls are always held to their schemas.")


class Tool(Asked):
    """A tool."""

    type: Literal["function"]
    function: Function


class NamedFunction(Asked):
    """A tool's name."""

    name: ToolName


class NamedTool(Asked):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Asked):
    """Tools of which the model may (auto) or must (required) call some."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(fail_fast=True, min_length=1, max_length=128)]


class AllowedChoice(Asked):
    """Some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _word_or_object(value: Any) -> str | None:
    return "word" if isinstance(value, str) else "object" if isinstance(value, dict) else None


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("word")]
    | Annotated[Annotated[NamedTool | AllowedChoice, Field(discriminator="type")], Tag("object")],
    Discriminator(
        _word_or_object,
        custom_error_type="wrong_kind",
        custom_error_message="must be none, auto, required, or an object that names tools",
    ),
]


class JsonSchema(Asked):
    """A JSON Schema and its name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[str, Field(max_length=65_536)] | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = Field(None, description="Answers are always held to the schema.")


class TextFormat(Asked):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Asked):
    """JSON of an object."""

    type: Literal["json_object"]


class SchemaFormat(Asked):
    """JSON that a schema allows."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class ChatRequest(Generating):
    """What is asked of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=4096), at_most(4096)] = Field(
        description="The conversation: system (or developer), user, assistant and tool messages; content is text or "
        "parts of text. At most `max_prompt` (2,000,000) characters together."
    )
    max_completion_tokens: Annotated[int, Field(ge=1, le=131_072)] | None = Field(
        None,
        description="Tokens to write at the most. Default: as the checkpoint recommends, or what the context leaves.",
    )
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] | None = Field(
        None, description="The older name of `max_completion_tokens`; if both are given they must be equal."
    )
    logprobs: bool | None = Field(None, description="Tell the log-probability of each token. Default: false.")
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        None, description="Tell so many of the likeliest tokens in the place of each. Only with `logprobs`. Default: 0."
    )
    response_format: ResponseFormat | None = Field(
        None,
        description="`text`, `json_object`, or `json_schema`, to which the answer is held. Not together with tools.",
    )
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=128)] | None = Field(
        None, description="Functions that may be called, where the model's chat template knows tools."
    )
    tool_choice: ToolChoice | None = Field(
        None,
        description="Which tools may be called: none, auto, required, one tool by name, or "
        "`allowed_tools`. Default: auto if there are tools.",
    )
    parallel_tool_calls: bool | None = Field(
        None, description="Whether an answer may call more than once. Default: true."
    )
    metadata: Annotated[dict[Annotated[str, Field(max_length=64)], Label], Field(max_length=16), at_most(16)] | None = (
        Field(None, description="Told back in the answer; not kept.")
    )
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    store: Off | None = None
    service_tier: Literal["auto", "default"] | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    prompt_cache_key: Label | None = Field(
        None, description="A hint; beginnings of prompts are found again without it, and it changes nothing."
    )
    prompt_cache_retention: Literal["in_memory"] | None = None
    safety_identifier: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="As `user`: a label of yours, which is not kept and changes nothing."
    )


class TopLogprob(Told):
    """One of the likeliest tokens."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A token that was written."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Told):
    """Of every token that was written, but for the one that ends the answer."""

    content: list[TokenLogprob] | None
    refusal: None = None


class ToldFunction(Told):
    """What is called; its arguments are JSON."""

    name: str
    arguments: str


class ToldCall(Told):
    """A call that the model wants."""

    id: str
    type: Literal["function"]
    function: ToldFunction


class ToldMessage(Told):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[ToldCall] | None = None


class ChatChoice(TokenIds):
    """One answer."""

    index: int
    message: ToldMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Told):
    """The answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    service_tier: Literal["default"] | None = None
    metadata: dict[str, str] | None = None
    choices: list[ChatChoice]
    usage: Usage


class DeltaCall(ToldCall):
    """A call, whole."""

    index: int


class Delta(Told):
    """What is new of a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    tool_calls: list[DeltaCall] | None = None


class ChatPiece(TokenIds):
    """More of one answer."""

    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(Told):
    """An event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    service_tier: Literal["default"] | None = None
    choices: list[ChatPiece]
    usage: Usage | None = None
