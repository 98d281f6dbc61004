"""/v1/chat/completions: a conversation, answered."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.generation import Request, Token
from cutaway.generation.conversation import LONGEST_ANSWER
from cutaway.generation.generate import make_request
from cutaway.generation.tools import CallReader, Style, ToolCall, tool_grammar, tool_style
from cutaway.generation.turn import PLAIN_STOP, turn_ids
from cutaway.models import Model
from cutaway.serve.answer import Answer, answered
from cutaway.serve.body import JsonRoute
from cutaway.serve.bridge import Stream
from cutaway.serve.events import Template, event
from cutaway.serve.options import check_count, check_n, check_room, context_of, options, refuse
from cutaway.serve.schema.base import STREAMED, errors
from cutaway.serve.schema.chat import (
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    Message,
    NamedTool,
    ObjectFormat,
    SchemaFormat,
)
from cutaway.serve.server import Work, server_of
from cutaway.serve.settings import Settings
from cutaway.serve.telling import FINISH, chat_logprobs

router = APIRouter(prefix="/v1", route_class=JsonRoute)


@router.post("/chat/completions", response_model=ChatCompletion, responses={**errors(404, 413, 501, 504), **STREAMED})
async def chat_completions(asked: ChatRequest, http: HttpRequest) -> Response:
    """Answer a conversation."""
    settings = server_of(http).settings
    _check(asked, settings)
    work = await server_of(http).begin(http, asked.model, weight=check_n(asked, settings))
    return await answered(work, _begin(asked, work))


async def _begin(asked: ChatRequest, work: Work) -> Answer:
    """Check what is asked, write the conversation as the model's template does and hand it to the engine."""
    extra: dict[str, Any] = {}
    if asked.service_tier is not None:
        extra["service_tier"] = "default"
    if asked.metadata is not None and not asked.stream:
        extra["metadata"] = asked.metadata
    kinds = ("chat.completion", "chat.completion.chunk")
    answer = Answer(asked, work, kinds, "chatcmpl", asked.n or 1, extra)
    how = options(asked, work.server.settings, work.loaded.model)
    how |= {"tenant": work.caller.tenant, "logprobs": asked.top_logprobs or 0}
    form = _form(asked)
    made: list[Style | None] = []

    def request() -> list[tuple[int, Request]]:
        style = _calling(asked, work.loaded.model)
        made.append(style)
        return [_request(asked, work, how, style)]

    await answer.submit(request, "messages", form)
    answer.choices += [Choice(answer, asked, i, answer.streams[0], made[0]) for i in range(answer.n)]
    return answer


def _check(asked: ChatRequest, settings: Settings) -> None:
    """What a schema cannot say."""
    if asked.top_logprobs is not None and not asked.logprobs:
        raise refuse("top_logprobs", "is told beside logprobs; give logprobs: true too, or leave it out")
    if (asked.top_logprobs or 0) > settings.max_logprobs:
        raise refuse("top_logprobs", f"may be at most {settings.max_logprobs} here, but {asked.top_logprobs} was given")
    older, newer = asked.max_tokens, asked.max_completion_tokens
    if older is not None and newer is not None and older != newer:
        raise refuse("max_tokens", f"is {older}, but max_completion_tokens, which means the same, is {newer}; give one")
    length = sum(map(_length, asked.messages))
    if length > settings.max_prompt:
        raise refuse("messages", f"may have {settings.max_prompt:,} characters together here, but have {length:,}")
    if asked.tool_choice not in (None, "none") and not asked.tools:
        raise refuse("tool_choice", "says which tools may be called, but no tools are given")
    shaped = asked.response_format is not None and asked.response_format.type != "text"
    if shaped and asked.structured_outputs is not None:
        raise refuse(
            "structured_outputs", "says what the answer must be, and so does response_format; give one of them"
        )
    if _uses_tools(asked) and (shaped or asked.structured_outputs is not None):
        name = "response_format" if shaped else "structured_outputs"
        raise refuse(name, "says what the answer must be, and so do tools; give one of them, or tool_choice: none")


def _length(message: Message) -> int:
    """Characters of a message."""
    calls = message.tool_calls if isinstance(message, AssistantMessage) else None
    content = message.content or ""
    written = len(content) if isinstance(content, str) else sum(len(part.text) for part in content)
    return written + sum(len(call.function.arguments) for call in calls or ())


def _uses_tools(asked: ChatRequest) -> bool:
    return bool(asked.tools) and asked.tool_choice != "none"


def _form(asked: ChatRequest) -> str | None:
    """The parameter that says what the answer must be."""
    if _uses_tools(asked):
        return "tools"
    given = ("response_format", asked.response_format), ("structured_outputs", asked.structured_outputs)
    return next((name for name, value in given if value is not None), None)


def _calling(asked: ChatRequest, model: Model) -> Style | None:
    """The form in which the model writes calls; None: it may make none."""
    return tool_style(model.tokenizer) if _uses_tools(asked) else None


def as_data(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as plain data, their parts joined to one text."""
    made = [message.model_dump(exclude_none=True) for message in messages]
    for message in made:
        if isinstance(content := message.get("content"), list):
            message["content"] = "".join(part["text"] for part in content)
    return made


def format_of(model: Model, settings: Settings) -> str:
    """How conversations with a model are written: by its template, or as the settings say where it has none."""
    return "template" if model.tokenizer.chat_template else settings.chat_format


def _request(asked: ChatRequest, work: Work, how: dict[str, Any], style: Style | None) -> tuple[int, Request]:
    """How many tokens the conversation has, and the engine's request for it."""
    model, settings = work.loaded.model, work.server.settings
    tools = [tool.model_dump(exclude_none=True) for tool in asked.tools or ()] if style else None
    if style:
        how = {**how, "grammar": _grammar(asked, tools or [], model, style)}
    elif isinstance(asked.response_format, ObjectFormat):
        how = {**how, "schema": {"type": "object"}}
    elif isinstance(asked.response_format, SchemaFormat):
        schema = asked.response_format.json_schema.schema_
        how = {**how, "schema": {"type": "object"} if schema is None else schema}
    format = format_of(model, settings)
    if format == "plain":
        how = {**how, "stop": [*how.get("stop", ()), PLAIN_STOP]}
    ids = turn_ids(model, as_data(asked.messages), tools=tools, format=format)
    count = asked.max_completion_tokens or asked.max_tokens
    n, context = asked.n or 1, context_of(model)
    if count is None:
        room = LONGEST_ANSWER if context is None else context - len(ids)
        count = max(1, min(model.generation.max_new_tokens or room, room, settings.max_tokens // n))
    check_room(model, len(ids), count, "messages")
    check_count(n * count, settings, "max_completion_tokens" if asked.max_completion_tokens else "max_tokens")
    return len(ids), make_request(ids, max_new_tokens=count, **how)


def _grammar(asked: ChatRequest, tools: Sequence[dict[str, Any]], model: Model, style: Style) -> str:
    """What an answer with calls must be."""
    choice = asked.tool_choice
    parallel = asked.parallel_tool_calls is not False
    if choice is None or isinstance(choice, str):
        return tool_grammar(tools, model.tokenizer, choice or "auto", style, parallel=parallel)
    names = [tool["function"]["name"] for tool in tools]
    wanted = [choice] if isinstance(choice, NamedTool) else choice.allowed_tools.tools
    for one in wanted:
        if one.function.name not in names:
            raise refuse("tool_choice", f"names {one.function.name}, but the tools are {', '.join(names)}")
    if isinstance(choice, NamedTool):
        return tool_grammar(tools, model.tokenizer, choice.function.name, style)
    allowed = {one.function.name for one in wanted}
    tools = [tool for tool in tools if tool["function"]["name"] in allowed]
    return tool_grammar(tools, model.tokenizer, choice.allowed_tools.mode, style, parallel=parallel)


class Choice:
    """One answer.

    Args:
        answer: what it belongs to.
        asked: the request.
        index: of it.
        stream: of its tokens.
        style: the form of calls; None: it makes none.
    """

    def __init__(self, answer: Answer, asked: ChatRequest, index: int, stream: Stream, style: Style | None) -> None:
        self.ended = False
        self._answer, self._asked, self._index, self._ticket = answer, asked, index, stream.ticket
        model = answer.work.loaded.model
        self._tokenizer = model.tokenizer
        self._ends = {*(model.generation.eos_token_id or (model.tokenizer.end_of_text,))}
        self._reader = None if style is None else CallReader(style)
        self._style: Style | None = style
        self._begun, self._calls = False, 0
        plain = style is None and not asked.logprobs and not asked.return_token_ids
        gap = {"index": index, "delta": {"content": Template.gap}, "logprobs": None, "finish_reason": None}
        self._template = Template(answer.chunk(gap)) if plain and asked.stream else None

    def whole(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """All of it, as a choice of an answer."""
        text, calls = self._read(tokens, True)
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        return {"message": message, **self._beside(tokens), "finish_reason": self._finish(tokens)}

    def events(self, tokens: Sequence[Token], last: bool) -> bytes:
        """More of it, as events: the role, what is said, calls, and why it ends."""
        self.ended = last
        if self._template is not None and self._begun and not last:
            text = "".join([token.text for token in tokens])
            return self._template.fill(text) if text else b""
        made: list[bytes] = []
        if not self._begun:
            made.append(self._event({"role": "assistant", "content": "", "refusal": None}, (), first=True))
        self._begun = True
        text, calls = self._read(tokens, last)
        if calls:
            numbered = [{"index": self._calls - len(calls) + i, **call} for i, call in enumerate(calls)]
            made.append(self._event({**({"content": text} if text else {}), "tool_calls": numbered}, tokens))
        elif text or (tokens and (self._asked.logprobs or self._asked.return_token_ids)):
            made.append(self._event({"content": text}, tokens))
        if last:
            made.append(self._event({}, (), finish=self._finish(tokens)))
        return b"".join(made)

    def _event(
        self, delta: dict[str, Any], tokens: Sequence[Token], *, first: bool = False, finish: str | None = None
    ) -> bytes:
        piece = {"index": self._index, "delta": delta, **self._beside(tokens, first=first), "finish_reason": finish}
        return event(self._answer.chunk(piece))

    def _beside(self, tokens: Sequence[Token], *, first: bool | None = None) -> dict[str, Any]:
        """Log-probabilities and ids, where they are asked for. `first`: of an event, whether it is the first one."""
        told: dict[str, Any] = {"logprobs": None}
        if self._asked.logprobs and (tokens or first is None):
            shown = [token for token in tokens if token.id not in self._ends]
            told["logprobs"] = {"content": chat_logprobs(self._tokenizer, shown), "refusal": None}
        if self._asked.return_token_ids:
            told["token_ids"] = [token.id for token in tokens]
            told["prompt_token_ids"] = list(self._ticket.prompt_ids) if first is not False else None
        return told

    def _read(self, tokens: Sequence[Token], last: bool) -> tuple[str, list[dict[str, Any]]]:
        """What is said, and the calls that are whole."""
        text = "".join([token.text for token in tokens])
        if self._reader is None:
            return text, []
        found = self._reader.add(text)
        said, calls = found.text, list(found.calls)
        if last:
            rest = self._reader.finish()
            said, calls = said + rest.text, [*calls, *rest.calls]
        self._calls += len(calls)
        return said, [_told(call, self._style) for call in calls]

    def _finish(self, tokens: Sequence[Token]) -> str:
        finish = FINISH[(tokens[-1].finish_reason if tokens else None) or "length"]
        return "tool_calls" if self._calls and finish == "stop" else finish


def _told(call: ToolCall, style: Style | None) -> dict[str, Any]:
    """A call, as OpenAI's API has it; Mistral's templates take ids of nine letters and digits alone."""
    id = secrets.token_hex(12)[:9] if style == "mistral" else f"call_{secrets.token_hex(12)}"
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
