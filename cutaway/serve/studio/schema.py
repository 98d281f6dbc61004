"""What the studio is asked, and the shapes of what it tells (pages' types are made from these).

Results are dataclasses of `interp`; their schemas are made of their fields, so that nothing is written twice.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field
from torch import Tensor

import cutaway.tasks.search.reasons  # noqa: F401  # results of its own, known before somebody has searched
from cutaway.interp.about import About
from cutaway.interp.receipt import Receipt
from cutaway.interp.results import Result
from cutaway.interp.text.tokens import Wrote
from cutaway.serve.schema.base import Asked, ModelName

PACKED = "application/vnd.cutaway.packed"
KINDS = {"f4", "f8", "i4", "u1"}
TENSOR: dict[str, Any] = {
    "type": "object",
    "description": "Numbers that stand behind the head of an answer (cutaway/interp/pictures/wire.py).",
    "required": ["$tensor"],
    "properties": {
        "$tensor": {
            "type": "object",
            "required": ["dtype", "shape", "at"],
            "properties": {
                "dtype": {"enum": sorted(KINDS)},
                "shape": {"type": "array", "items": {"type": "integer"}},
                "at": {"type": ["integer", "null"]},
            },
        }
    },
}
PAIR: dict[str, Any] = {
    "type": "array",
    "prefixItems": [{"type": "string"}, {"type": "number"}],
    "minItems": 2,
    "maxItems": 2,
}
OF_HEADS: dict[str, Any] = {"type": "array", "items": {"type": "array", "items": PAIR}}
HEAD: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}
# what results tell beside their fields
MORE: dict[str, dict[str, Any]] = {
    "TokenScores": {"mean": {"type": ["number", "null"]}},
    "Attention": {"shown": HEAD, "habits": OF_HEADS},
    "AttentionOverview": {"shown": HEAD, "kinds": OF_HEADS},
    "Tokens": {"mean": {"type": ["number", "null"]}},
    "Ledger": {"error": {"type": "number"}},
}

StudioText = Annotated[
    str, Field(max_length=200_000, description="What the model reads; of an encoder–decoder the target.")
]
StudioSource = Annotated[str, Field(max_length=200_000)] | None
StudioIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=100_000)] | None
Option = str | int | float | bool | None | list[str | int | float | bool | list[int | str | None]]
Options = Annotated[
    dict[str, Option], Field(default_factory=dict, max_length=32, description="Keyword arguments of the function.")
]
Id = Annotated[str, Field(max_length=40, description="Of a result that is open.")]


class OfText(Asked):
    """A text before a model; `ids` are read in its place, where a text would not be cut into just these tokens."""

    model: ModelName
    text: StudioText
    source: StudioSource = None
    ids: StudioIds = None

    @property
    def read(self) -> str | tuple[int, ...]:
        """What the model reads."""
        return self.text if self.ids is None else tuple(self.ids)


class AnalyseRequest(OfText):
    """Run an analysis by its name (`cutaway.interp.analyses`)."""

    analysis: Annotated[str, Field(max_length=64)]
    options: Options


class LedgerRequest(OfText):
    """Open a number of the run (`cutaway.interp.ledger`); `options` say which, as there."""

    options: Options


class ExpandRequest(Asked):
    """Open a term of a ledger that is open: the names on the way to it from the number."""

    id: Id
    path: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=64)]


class ResultRequest(Asked):
    """Something about a result that is open."""

    id: Id


class RedrawRequest(Asked):
    """Chances that are open, under other options of drawing the next token; null is off."""

    id: Id
    shown: Annotated[int, Field(ge=1, le=500)] = 20
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_k: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None


class TextRequest(Asked):
    """The text of tokens, without what stands for no text."""

    model: ModelName
    ids: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=100_000)]


class WriteRequest(OfText):
    """Go on with a text; of an encoder–decoder with its target. Null is off, whatever the checkpoint recommends."""

    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 40
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    likely: Annotated[int, Field(ge=0, le=20, description="Of the likeliest to be told beside each.")] = 5
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_k: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None


Cells = Annotated[int, Field(ge=1, le=4096)]
Window = (
    Annotated[
        list[Annotated[int, Field(ge=0)]],
        Field(min_length=4, max_length=4, description="First row, behind the last, first column, behind the last."),
    ]
    | None
)


class TileRequest(Asked):
    """One matrix of a tensor of a result, shrunk to what a picture has room for."""

    id: Id
    field: Annotated[str, Field(max_length=64)]
    index: Annotated[list[int], Field(max_length=4)]
    rows: Cells
    columns: Cells
    window: Window = None


class HeadRequest(Asked):
    """One head of an overview of attention (`AttentionOverview.head`), shrunk to what a picture has room for."""

    id: Id
    layer: Annotated[int, Field(ge=0)]
    head: Annotated[int, Field(ge=0)]
    by: Literal["weight", "output", "value", "score"] = "weight"
    rows: Cells
    columns: Cells
    window: Window = None


class HeadRowRequest(Asked):
    """The numbers of one query in a head (`AttentionOverview.row`)."""

    id: Id
    layer: Annotated[int, Field(ge=0)]
    head: Annotated[int, Field(ge=0)]
    query: Annotated[int, Field(ge=0)]


class HeadLinesRequest(Asked):
    """Where every query looks most (`AttentionOverview.strongest`); without a head in every head of the layer."""

    id: Id
    layer: Annotated[int, Field(ge=0)]
    head: Annotated[int, Field(ge=0)] | None = None
    each: Annotated[int, Field(ge=1, le=16)] = 4


def result_schemas() -> dict[str, Any]:
    """JSON schemas of all results and what they are made of, by name, for the components of OpenAPI."""
    import cutaway.tasks.report.rows  # noqa: F401  # the one kind of result that interp does not define

    made: dict[str, Any] = {"Tensor": TENSOR}
    for kind in _kinds(Result):
        _add(kind, made)
    for kind in (Receipt, About, Wrote):
        _add(kind, made)
    names = sorted(kind.__name__ for kind in _kinds(Result))
    made["AnyResult"] = {"oneOf": [{"$ref": f"#/components/schemas/{name}Result"} for name in names]}
    made["Open"] = {
        "type": "object",
        "required": ["id", "result"],
        "properties": {"id": {"type": "string"}, "result": {"$ref": "#/components/schemas/AnyResult"}},
    }
    tensor = {"$ref": "#/components/schemas/Tensor"}
    for name, parts in (
        ("Tile", ["tile"]),
        ("HeadRow", ["weight", "output", "score"]),
        ("HeadLines", ["key", "weight"]),
    ):
        made[name] = {"type": "object", "required": parts, "properties": dict.fromkeys(parts, tensor)}
    ledgers = {"type": "array", "items": {"$ref": "#/components/schemas/LedgerResult"}}
    made["Traced"] = {
        "type": "object",
        "description": "A path down a ledger, and the levels that it opened, from the first on.",
        "required": ["id", "path", "levels"],
        "properties": {
            "id": {"type": "string"},
            "path": {"type": "array", "items": {"type": "string"}},
            "levels": ledgers,
        },
    }
    return made


def _kinds(base: type) -> list[type]:
    found = []
    for kind in base.__subclasses__():
        found += [kind, *_kinds(kind)]
    return [kind for kind in found if kind.__module__.startswith("cutaway.")]


def _named(kind: type) -> str:
    return f"{kind.__name__}Result" if issubclass(kind, Result) else kind.__name__


def _add(kind: type, made: dict[str, Any]) -> None:
    name, of = _named(kind), f"{kind.__module__}.{kind.__qualname__}"
    if name in made:
        assert made[name].get("x-python", of) == of, f"two kinds are called {name}: {made[name]['x-python']} and {of}"
        return
    made[name] = {"x-python": of}
    hints = get_type_hints(kind, localns={"Claims": object})
    shown = [f for f in fields(kind) if (f.repr or f.compare)]
    properties = {f.name: _of(hints[f.name], made) for f in shown}
    if issubclass(kind, Result):
        properties = {"picture": {"const": kind.picture}, **properties, "checkable": {"type": "boolean"}}
        for base in kind.__mro__:
            properties |= MORE.get(base.__name__, {})
    about = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    made[name] |= {"type": "object", "description": about, "required": list(properties), "properties": properties}


def _of(hint: Any, made: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return {"anyOf": [_of(part, made) for part in parts]}
    if origin is Literal:
        return {"enum": list(parts)}
    if origin is ClassVar or hint is Any or hint is object:
        return {}
    if origin is tuple and not (len(parts) == 2 and parts[1] is Ellipsis):
        n = len(parts)
        return {"type": "array", "prefixItems": [_of(p, made) for p in parts], "minItems": n, "maxItems": n}
    if origin in (list, tuple, Sequence):
        return {"type": "array", "items": _of(parts[0], made)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _of(parts[1], made)}
    if isinstance(hint, type) and (issubclass(hint, Tensor) or hasattr(hint, "array_type")):
        return {"$ref": "#/components/schemas/Tensor"}
    if isinstance(hint, type) and is_dataclass(hint):
        if hint is Result:
            return {"$ref": "#/components/schemas/AnyResult"}
        _add(hint, made)
        return {"$ref": f"#/components/schemas/{_named(hint)}"}
    plain = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return {"type": plain[hint]}
