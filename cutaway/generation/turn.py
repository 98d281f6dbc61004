"""One turn of a conversation: what the model is given of it.

Messages are plain data as OpenAI's API has them: a role, a content, and of an assistant that called tools its calls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.models import Model
from cutaway.tokenizers.chat import chat_ids

FORMATS = ("template", "plain")
PLAIN = {"system": "", "developer": "", "user": "User: ", "assistant": "Assistant: "}
PLAIN_STOP = "\nUser:"


def check_format(model: Model, format: str) -> None:
    """Refuse a format that a model cannot be spoken to in.

    Args:
        model: what will answer.
        format: "template", the tokenizer's own; or "plain", for a model that has none: every message in a paragraph of
            its own, behind "User: " or "Assistant: ".

    Raises:
        ConfigError: an unknown format, a network that continues no text, or one without a chat template.
    """
    if format not in FORMATS:
        raise ConfigError(unknown("format", str(format), FORMATS))
    model.speaker("a conversation")
    if format == "template" and not model.tokenizer.chat_template:
        raise ConfigError(
            f"{model.source or 'this model'} has no chat template: it continues texts, and was not taught to "
            "answer; let it continue one (cutaway generate), or ask for the plain format, which writes User: and "
            "Assistant: before what is said"
        )


def turn_ids(
    model: Model,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    format: str = "template",
    add_generation_prompt: bool = True,
) -> list[int]:
    """The ids of a conversation, up to where the model's answer begins.

    Args:
        model: what will answer.
        messages: {"role": "user", "content": "…"} and the like, in their order.
        tools: descriptions of tools, as JSON Schemas.
        format: one of FORMATS. A plain answer ends before PLAIN_STOP, which is the caller's to ask for.
        add_generation_prompt: end with what begins the answer.

    Raises:
        ConfigError: an unknown format, a model without a chat template, a template that refuses the messages, or tools
            in the plain format.
        InputError: messages that are no messages, or calls whose arguments are not JSON of an object.
    """
    check_format(model, format)
    if format == "template":
        messages = _as_templates_read(model, messages)
        return chat_ids(model, messages, tools=tools, add_generation_prompt=add_generation_prompt)
    if tools:
        raise ConfigError("the plain format has no words for tools; ask a model whose chat template knows them")
    parts = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in PLAIN or not isinstance(content, str):
            raise InputError(f"a message of the plain format is text of {', '.join(PLAIN)}, but {role!r:.40} was given")
        parts.append(PLAIN[role] + content.strip())
    begins = [PLAIN["assistant"].strip()] if add_generation_prompt else []
    return model.ids("\n\n".join([*parts, *begins]))[0].tolist()


def _as_templates_read(model: Model, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as templates expect them: arguments as data, a content that is text, and no role newer than they are."""
    template = model.tokenizer.chat_template
    words = "\n".join(template.values()) if isinstance(template, Mapping) else template or ""
    made = []
    for given in messages:
        message = dict(given)
        if message.get("role") == "developer" and "developer" not in words:
            message["role"] = "system"
        if message.get("tool_calls"):
            message["tool_calls"] = [_as_data(call) for call in message["tool_calls"]]
            message["content"] = message.get("content") or ""
        made.append(message)
    return made


def _as_data(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call whose arguments are data, where they are JSON's text."""
    inner = dict(call.get("function", {}))
    if isinstance(inner.get("arguments"), str):
        try:
            inner["arguments"] = json.loads(inner["arguments"] or "{}")
        except (ValueError, RecursionError):
            inner["arguments"] = None
        if not isinstance(inner["arguments"], dict):
            raise InputError("the arguments of a tool call must be the JSON of an object, as the model wrote them")
    return {**call, "function": inner}
