"""docs/parameters.md, made from the schema: every parameter of every route, and what is refused by name.

python -m cutaway.serve.parameters docs/parameters.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from cutaway.serve.routes import ROUTERS
from cutaway.serve.schema.foreign import FOREIGN, HARMLESS

BEGINNING = """# Parameters of the server

What each route of `cutaway serve` takes. Every parameter is honoured, or refused: the answer has status 400, the
parameter's name in `param`, and a sentence that says what to do. None is ignored in silence. A parameter that is `null`
counts as left out. Numbers are taken as numbers only (`"3"` and `true` are none), a name that stands twice in an object
is an error, and so are NaN, infinities, invalid UTF-8 and half characters (lone surrogates).

**Coming from OpenAI**: the names, shapes and errors are the same. Different: what is left out is as the model's makers
recommend (their `generation_config.json`), not 1; the same `seed` gives the same answer, token for token, whatever else
the server does; `logprobs` of completions go up to 20, not 5, and are told for the prompt too (`echo`); tools and
`response_format` hold the answer to its schema always, as if `strict` were true; of the parts of a message
only text is read.

**Coming from vLLM**: `top_k`, `min_p`, `repetition_penalty`, `structured_outputs` and `return_token_ids` mean what they
mean there. Prompts' log-probabilities come with `echo` and `logprobs`. Nothing about templates is taken from a request.

**Coming from llama.cpp**: ask `/v1/completions` or `/v1/chat/completions` rather than `/completion`; `n_predict` is
`max_tokens`, `repeat_penalty` is `repetition_penalty`, and a grammar is written in Lark's syntax, not in GBNF.

This page is made from the code (`python -m cutaway.serve.parameters docs/parameters.md`); a test holds it to that.
"""


def page() -> str:
    """The page, as Markdown."""
    app = FastAPI()
    for router in ROUTERS:
        app.include_router(router)
    described = app.openapi()
    parts = [BEGINNING]
    shown: set[str] = set()
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            rows = list(_rows(route, described))
            if rows:
                parts.append(f"## {method.upper()} {path}\n\n{route.get('description', '').strip()}\n")
                parts += _tables(rows, described, shown)
    parts.append(
        "## Refused by name\n\nParameters that other servers know. Here they are answered with status 400 and with "
        "what to do instead.\n"
    )
    parts.append(
        _table([(f"`{name}`", _sentence(why)) for name, why in FOREIGN.items()], ("parameter", "why, and what to do"))
    )
    return "\n".join(parts)


def _rows(route: Mapping[str, Any], described: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Name, schema and whether it must be given, of each parameter of a route."""
    for one in route.get("parameters", ()):
        schema = {**one["schema"], **({"description": one["description"]} if "description" in one else {})}
        yield one["name"], schema, one.get("required", False)
    for content in route.get("requestBody", {}).get("content", {}).values():
        models = _models(content["schema"], described)
        for model in models:
            for name, schema in model.get("properties", {}).items():  # one of two kinds of body may lack what is asked
                yield name, schema, all(name in other.get("required", ()) for other in models)


def _models(schema: Mapping[str, Any], described: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The objects that a schema allows."""
    if "$ref" in schema:
        return _models(_named(schema, described), described)
    options = [one for key in ("anyOf", "oneOf", "allOf") for one in schema.get(key, ())]
    return [found for one in options for found in _models(one, described)] if options else [schema]


def _named(schema: Mapping[str, Any], described: Mapping[str, Any]) -> Mapping[str, Any]:
    return described["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]


def _tables(
    rows: list[tuple[str, Mapping[str, Any], bool]], described: Mapping[str, Any], shown: set[str]
) -> Iterator[str]:
    """A table of parameters, and one of each object in them that no table has shown."""
    told, inner, seen = [], dict[str, None](), set[str]()
    for name, schema, required in sorted(rows, key=lambda row: not row[2]):
        if name in seen:  # of two kinds of body both have it
            continue
        seen.add(name)
        kinds = list(dict.fromkeys(_kinds(schema, inner)))
        words = " or ".join(kinds) or ("`null`" if schema.get("type") == "null" else "anything")
        options = [schema, *schema.get("anyOf", ())]
        does = next((_sentence(one["description"]) for one in options if "description" in one), "")
        if name in HARMLESS:
            does = f"Anything else is refused: {HARMLESS[name]}."
        default = schema.get("default")
        if required:
            does = f"**Required.** {does}"
        elif default not in (None, []) and "Default" not in does:
            does += f" Default: {_json(default)}."
        told.append((f"`{name}`", words, does.strip()))
    yield _table(told, ("parameter", "is", "does"))
    for name in inner:
        if name not in shown:
            shown.add(name)
            model = described["components"]["schemas"][name]
            yield f"### {name}\n\n{model.get('description', '').strip()}\n"
            required = model.get("required", ())
            yield from _tables(
                [(n, s, n in required) for n, s in model.get("properties", {}).items()], described, shown
            )


def _kinds(schema: Mapping[str, Any], inner: dict[str, None]) -> Iterator[str]:
    """What a schema allows, in words; `inner` collects the objects that it names."""
    for key in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(key, ()):
            yield from _kinds(one, inner)
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        inner[name] = None
        yield f"[{name}](#{name.lower()})"
    elif "const" in schema:
        yield f"`{_json(schema['const'])}`"
    elif "enum" in schema:
        yield ", ".join(f"`{_json(value)}`" for value in schema["enum"])
    elif (kind := schema.get("type")) == "array":
        items = " or ".join(dict.fromkeys(_kinds(schema.get("items", {}), inner))) or "anything"
        bounds = _bounds(schema, "minItems", "maxItems", "entries").removeprefix(",").strip()
        yield f"a list of {items}" + (f" ({bounds})" if bounds else "")
    elif kind == "object":
        values = schema.get("additionalProperties")
        words = " or ".join(_kinds(values, inner)) if isinstance(values, dict) else ""
        yield ("an object" + (f" of {words}" if words else "")) + _bounds(schema, "", "maxProperties", "entries")
    elif kind == "string":
        shape = f" like `{schema['pattern']}`" if "pattern" in schema else ""
        yield "text" + shape + _bounds(schema, "minLength", "maxLength", "characters")
    elif kind in ("integer", "number"):
        yield ("a whole number" if kind == "integer" else "a number") + _range(schema)
    elif kind == "boolean":
        yield "true or false"


def _bounds(schema: Mapping[str, Any], least: str, most: str, of: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if high is None:
        return ", not empty" if low else ""
    return f", {low} … {high:,} {of}" if low else f", at most {high:,} {of}"


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f", {_number(low)} … {_number(high)}"
    words = [
        f"{word} {_number(value)}"
        for word, value in (("from", low), ("above", above), ("to", high), ("below", below))
        if value is not None
    ]
    return f", {' '.join(words)}" if words else ""


def _number(value: float) -> str:
    for power in (31, 63):
        if abs(value) in (2**power, 2**power - 1):
            return f"{'-' if value < 0 else ''}2^{power}" + (" - 1" if value == 2**power - 1 else "")
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _json(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return (text[:1].upper() + text[1:].rstrip(".") + ".") if text else ""


def _table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
