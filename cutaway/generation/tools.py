"""Tool calls: what a model says when it wants a function called, in the form of its chat template.

Descriptions of tools go to the model with `chat_ids(model, messages, tools=tools)`. Its answer is text; where it calls,
a template has it written in one of three forms, which follow from the template's own words:

    hermes     <tool_call>{"name": …, "arguments": {…}}</tool_call>, any number of them (Hermes, Qwen)
    llama      {"name": …, "parameters": {…}}, maybe after <|python_tag|> (Llama 3.1 and later)
    mistral    [TOOL_CALLS] [{"name": …, "arguments": {…}}, …]

What a model writes is never trusted: it is read by `json` alone, in time that grows with its length, and a call that is
not one stays text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cutaway.errors import ConfigError, unknown
from cutaway.generation.constrain import BLANKS, schema_text
from cutaway.tokenizers import Tokenizer

Style = Literal["hermes", "llama", "mistral"]
STYLES: tuple[Style, ...] = ("hermes", "llama", "mistral")
MARKS: dict[Style, str] = {"hermes": "<tool_call>", "llama": "<|python_tag|>", "mistral": "[TOOL_CALLS]"}
END = "</tool_call>"
ARGUMENTS = {"hermes": "arguments", "llama": "parameters", "mistral": "arguments"}
MOST_TOOLS = 128
DEEPEST = 64  # levels of a call's arguments


@dataclass(frozen=True)
class ToolCall:
    """A call that a model wants.

    Attributes:
        name: of the tool.
        arguments: plain data, as JSON has it. They are the model's words: check them as any stranger's.
    """

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: what is no call.
        calls: in their order.
    """

    text: str
    calls: list[ToolCall]


def tool_style(tokenizer: Tokenizer) -> Style:
    """The form in which a tokenizer's chat template has calls written.

    Raises:
        ConfigError: its template knows none of them.
    """
    template = tokenizer.chat_template
    text = "\n".join(template.values()) if isinstance(template, Mapping) else template or ""
    for style in ("hermes", "mistral"):
        if MARKS[style] in text:
            return style
    if MARKS["llama"] in text or ('"parameters"' in text and "ipython" in text):
        return "llama"
    raise ConfigError(
        f"this model's chat template says nothing of tool calls in a form known here ({', '.join(STYLES)}); leave the "
        "tools out, or ask a model that was taught to call them"
    )


def read_calls(text: str, style: Style) -> Answer:
    """The calls in what a model wrote.

    Args:
        text: of the answer, with special tokens as their names.
        style: the form of calls.

    Raises:
        ConfigError: another style.
    """
    if style not in STYLES:
        raise ConfigError(unknown("form of tool calls", str(style), STYLES))
    if style == "hermes":
        return _read_hermes(text)
    before, mark, rest = text.partition(MARKS[style])
    if style == "mistral":
        calls = _calls(rest, style) if mark else None
    else:
        before, rest = (before, rest) if mark else ("", text)
        calls = _calls_in_a_row(rest, style)
    return Answer(text, []) if calls is None else Answer(before.strip(), calls)


class CallReader:
    """Reads the calls out of an answer that still comes, so that its text can be shown and each call made at once.

    Blanks beside calls are no text. What is told is the same however the answer is cut into pieces.

    Args:
        style: the form of calls.

    Raises:
        ConfigError: another style.
    """

    def __init__(self, style: Style) -> None:
        if style not in STYLES:
            raise ConfigError(unknown("form of tool calls", str(style), STYLES))
        self.style: Style = style
        self._held = ""  # not told yet
        self._blanks = ""  # before what is held
        self._mark: str | None = None  # with which the call began that is held
        self._looked = 0  # of what is held, how much was searched
        self._begun = False  # some text or call was told
        self._spoken = self._called = False  # some text was told; a call was, and no text since

    def add(self, piece: str) -> Answer:
        """More of the answer; what is now known of it: text that is none of a call, and calls that are whole."""
        self._held += piece
        return self._read(last=False)

    def finish(self) -> Answer:
        """The answer is over; the rest of it."""
        return self._read(last=True)

    def _read(self, last: bool) -> Answer:
        said: list[str] = []
        calls: list[ToolCall] = []
        while self._inside(said, calls, last) if self._mark is not None else self._outside(said, last):
            pass
        if last:
            said.append("" if self._called else self._blanks)
            self._blanks = ""
        return Answer("".join(said), calls)

    def _outside(self, said: list[str], last: bool) -> bool:
        """Tell text; True: a call begins behind it."""
        mark = MARKS[self.style]
        if self.style == "llama" and not self._begun and self._held.lstrip()[:1] == "{":
            self._blanks, self._held, self._mark, self._looked = "", self._blanks + self._held, "", 0
            return True
        place = self._held.find(mark)
        if place >= 0:
            text, self._held = self._held[:place], self._held[place + len(mark) :]
            self._mark, self._looked = mark, 0
        else:
            most = 0 if last else min(len(mark) - 1, len(self._held))
            kept = next((n for n in range(most, 0, -1) if self._held.endswith(mark[:n])), 0)
            text, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        if shown := text.rstrip():
            first = self._called and not self._spoken  # of an answer that began with a call
            said.append((self._blanks + shown).lstrip() if first else self._blanks + shown)
            self._begun, self._spoken, self._called, self._blanks = True, True, False, text[len(shown) :]
        else:
            self._blanks += text
        return place >= 0

    def _inside(self, said: list[str], calls: list[ToolCall], last: bool) -> bool:
        """Tell a call; True: there is more to read behind it."""
        end = self._held.find(END, self._looked) if self.style == "hermes" else -1
        if end < 0 and not last:
            self._looked = max(0, len(self._held) - len(END) + 1)
            return False
        text, mark = self._held if end < 0 else self._held[:end], self._mark or ""
        self._held = "" if end < 0 else self._held[end + len(END) :]
        self._mark, self._begun = None, True
        found = _calls_in_a_row(text, self.style) if self.style == "llama" else _calls(text, self.style)
        if found is None:
            said.append(self._blanks + mark + text + (END if end >= 0 else ""))
        self._spoken, self._called = self._spoken or found is None, found is not None
        calls += found or []
        self._blanks = ""
        return True


def _read_hermes(text: str) -> Answer:
    pieces, calls, place = [], [], 0
    while (start := text.find(MARKS["hermes"], place)) >= 0:
        inside = start + len(MARKS["hermes"])
        end = text.find(END, inside)
        found = _calls(text[inside : len(text) if end < 0 else end], "hermes")
        after = len(text) if end < 0 else end + len(END)
        pieces.append(text[place : start if found else after])
        calls += found or []
        place = after
    pieces.append(text[place:])
    return Answer("".join(pieces).strip() if calls else text, calls)


def _calls(text: str, style: Style) -> list[ToolCall] | None:
    """JSON of one call or a list of them; None: it is something else."""
    try:
        said = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    calls = [_call(one, style) for one in (said if isinstance(said, list) else [said])]
    return [call for call in calls if call] if calls and all(calls) else None


def _calls_in_a_row(text: str, style: Style) -> list[ToolCall] | None:
    """One call behind the other, with ; or blanks between."""
    calls: list[ToolCall] = []
    decoder, place = json.JSONDecoder(parse_constant=_refused), 0
    while True:
        while place < len(text) and text[place] in " \t\r\n;":
            place += 1
        if place == len(text):
            return calls or None
        try:
            said, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return None
        call = _call(said, style)
        if call is None:
            return None
        calls.append(call)


def _call(said: Any, style: Style) -> ToolCall | None:
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        return None
    arguments = said.get(ARGUMENTS[style], said.get("arguments", {}))
    if not isinstance(arguments, dict) or _deep(arguments):
        return None
    return ToolCall(said["name"], arguments)


def _deep(value: Any) -> bool:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            return True
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for several in inner for one in several if isinstance(one, dict | list)]
    return False


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def tool_grammar(
    tools: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    choice: Literal["auto", "required"] | str = "auto",
    style: Style | None = None,
    *,
    parallel: bool = True,
) -> str:
    """A grammar whose texts are answers with calls of these tools only, their arguments of the tools' schemas.

    Give it to a request as `grammar`.

    Args:
        tools: descriptions as `chat_ids` takes them: {"type": "function", "function": {"name", "parameters", …}}, or
            the inner part alone.
        tokenizer: of the model.
        choice: "auto": text, or calls as soon as it begins one; "required": one call or more; or the name of the one
            tool that must be called, once.
        style: the form of calls; None: that of the chat template.
        parallel: whether an answer may call more than once.

    Raises:
        ConfigError: a tool that is no description, a name that is not among them, or a form that is not known.
    """
    style = tool_style(tokenizer) if style is None else style
    if style not in STYLES:
        raise ConfigError(unknown("form of tool calls", str(style), STYLES))
    schemas = _schemas(tools)
    if choice not in ("auto", "required"):
        if choice not in schemas:
            raise ConfigError(unknown("tool", str(choice), [*schemas, "auto", "required"]))
        schemas = {choice: schemas[choice]}
    calls = [_call_schema(name, schema, ARGUMENTS[style]) for name, schema in schemas.items()]
    once = choice not in ("auto", "required") or not parallel
    special = tokenizer.special.get(MARKS[style])
    mark = json.dumps(MARKS[style]) if special is None else f"<[{special}]>"
    rules = [f"call: {' | '.join(f'%json {_json(call)}' for call in calls)}", r"TEXT: /(.|\n)*/"]
    if style == "hermes":
        behind, more = f'"\\n" call "\\n" {json.dumps(END)}', '"\\n"'
    elif style == "llama":
        behind, more = "call", '"; "'
    else:
        behind, more = '" "? "[" call "]"' if once else '" "? "[" call (", " call)* "]"', ""
    if choice == "auto" and style != "llama":
        # the mark may come anywhere in a text, and what follows it is a call
        before = "before" if special is None else f"TEXT {mark}"
        start = "start: called | TEXT" if once else "start: called* TEXT"
        rules += [start, f"called: {before} {behind}", f"before[lazy]: TEXT {mark}"]
        rules = rules if special is None else rules[:-1]
    elif style == "llama":
        mark = "" if special is None else f"{mark}?"
        rules += [f"calls: {mark} {behind}" if once else f"calls: {mark} {behind} ({more} {behind})*"]
        rules += [r"text: /[^{](.|\n)*/", "start: calls | text"] if choice == "auto" else ["start: calls"]
    else:
        rules += [f"one: {mark} {behind}", f"start: one ({more} one)*" if more and not once else "start: one"]
    return "\n".join(rules) + "\n"


def _schemas(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Name -> schema of the arguments."""
    if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence) or not 0 < len(tools) <= MOST_TOOLS:
        raise ConfigError(f"tools must be 1 … {MOST_TOOLS} descriptions in a list")
    found: dict[str, Any] = {}
    for number, tool in enumerate(tools):
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(name, str) or not name:
            raise ConfigError(
                f'tool {number} must have a "name" (and "parameters", a JSON Schema), as chat_ids takes it'
            )
        schema = inner.get("parameters", {"type": "object", "properties": {}, "additionalProperties": False})
        if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
            raise ConfigError(f'the "parameters" of tool {name!r} must be a JSON Schema of an object')
        schema_text(schema)  # for its errors
        found[name] = {"type": "object", **schema}
    return found


def _call_schema(name: str, schema: Mapping[str, Any], arguments: str) -> dict[str, Any]:
    """The schema of a whole call; what its references name stands at its root."""
    named = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    return {
        "type": "object",
        "properties": {"name": {"const": name}, arguments: {k: v for k, v in schema.items() if k not in named}},
        "required": ["name", arguments],
        "additionalProperties": False,
        "x-guidance": {"whitespace_pattern": BLANKS},
        **named,
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
