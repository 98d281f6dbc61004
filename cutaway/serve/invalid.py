"""What is wrong with a request's body, as one sentence that names the parameter."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cutaway.serve.errors import ApiError
from cutaway.serve.schema.foreign import FOREIGN, HARMLESS

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
    "none_required": "null",
}
LONGEST_NAME = 64


def invalid(found: Sequence[Mapping[str, Any]], body: Any, known: Iterable[str] = ()) -> ApiError:
    """The error for what pydantic found.

    Args:
        found: its errors; the first one is told.
        body: what was sent.
        known: parameters of the route, for near matches.
    """
    first = found[0]
    names = _names(first, body)
    place, name = _path(names), names[-1] if names else ""
    if first["type"] == "extra_forbidden":
        return _unknown_parameter(place, str(name), known if len(names) == 1 else ())
    message = f"{place or 'the body'} {_expected(first, body)}"
    if str(name) in HARMLESS and first["type"] == "literal_error":
        message += f": {HARMLESS[str(name)]}"
    code = "missing_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, message, code=code, param=place or None)


def _names(error: Mapping[str, Any], body: Any) -> list[str | int]:
    """Where in the body it is, without the names of pydantic's alternatives."""
    names: list[str | int] = []
    value = body
    loc = [part for part in error["loc"] if part != "body"]
    for number, part in enumerate(loc):
        inside = isinstance(value, dict) and part in value
        if inside or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            names.append(part)
            value = value[part]
        elif number == len(loc) - 1 and error["type"] == "missing":
            names.append(part)
    return names


def _path(names: Sequence[str | int]) -> str:
    """As OpenAI writes it: messages[0].content."""
    path = "".join(f"[{name}]" if isinstance(name, int) else f".{_shown(name)}" for name in names)
    return path.removeprefix(".")


def _shown(name: str) -> str:
    plain = "".join(letter if letter.isprintable() else "?" for letter in name[:LONGEST_NAME])
    return plain if len(name) <= LONGEST_NAME else plain + "…"


def _unknown_parameter(place: str, name: str, known: Iterable[str]) -> ApiError:
    plain = name.removesuffix("[]")  # a list in a form
    if plain in FOREIGN:
        return ApiError(400, f"{place} is not taken: {FOREIGN[plain]}", code="unsupported_parameter", param=place)
    near = difflib.get_close_matches(name[:LONGEST_NAME], list(known), 1)
    hint = f"; did you mean {near[0]}?" if near else " (docs/parameters.md lists those that it does)"
    return ApiError(400, f"{place} is no parameter that this page knows{hint}", code="unknown_parameter", param=place)


def _expected(error: Mapping[str, Any], body: Any) -> str:
    """What it must be; of what was given only numbers are repeated."""
    kind, context = error["type"], error.get("ctx", {})
    given = error.get("input")
    but = ", but another was given"
    if isinstance(given, bool) or given is None:
        but = ", but null was given" if given is None else f", but {str(given).lower()} was given"
    elif isinstance(given, int | float) and abs(given) < 1e18:
        but = f", but {given:.12g} was given"
    elif isinstance(given, str | list | dict):
        but = f", but {'text' if isinstance(given, str) else KINDS[type(given).__name__]} was given"
    match kind:
        case "missing":
            return "is missing"
        case "json_invalid":
            return "is no JSON"
        case "union_tag_not_found":
            return f"must have a {context.get('discriminator', '').strip(chr(39))}"
        case "union_tag_invalid":
            field = context["discriminator"].strip("'")
            return f"must have as its {field} one of {context['expected_tags']}"
        case "literal_error":
            return f"must be {context['expected'].replace('False', 'false').replace('True', 'true')}" + (
                "" if isinstance(given, str) else but
            )
        case "greater_than_equal" | "greater_than":
            least = context.get("ge", context.get("gt"))
            return f"must be {'at least' if 'ge' in context else 'above'} {least:.12g}{but}"
        case "less_than_equal" | "less_than":
            most = context.get("le", context.get("lt"))
            return f"must be {'at most' if 'le' in context else 'below'} {most:.12g}{but}"
        case "finite_number":
            return "must be a finite number"
        case "too_short" | "string_too_short":
            return f"must have at least {context['min_length']} {'entry' if kind == 'too_short' else 'character'}"
        case "too_long" | "string_too_long":
            return f"may have at most {context['max_length']:,} {'entries' if kind == 'too_long' else 'characters'}"
        case "string_pattern_mismatch":
            what = "a name there" if error["loc"][-1] == "[key]" else "it"
            return f"is not as it must be: {what} must match {context['pattern']}"
        case "too_many" | "unsupported_part" | "wrong_kind":
            return str(error["msg"]) + (but if kind == "wrong_kind" else "")
    for beginning, expected in KINDS.items():
        if kind.startswith((f"{beginning}_", beginning)) and not kind.startswith("string_pattern"):
            return f"must be {expected}{but}"
    return f"is not what it must be: {error['msg'].removeprefix('Value error, ')}"
