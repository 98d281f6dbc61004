"""What analyses return: numbers with their names, which print as pictures, and become JSON or a page.

Shapes: T tokens, L layers, H heads, R rows, C columns, K tokens of a cell.
"""

from __future__ import annotations

import html
import math
from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from rich.console import Console, ConsoleOptions, RenderResult
from torch import Tensor

from cutaway.interp.receipt import Receipt, plain

if TYPE_CHECKING:
    from cutaway.interp.claims import Claims


@dataclass(frozen=True)
class Result(ABC):
    """The faces that every result has.

    Attributes:
        receipt: what it can be checked by.
        claims: of a view that is a correlation, what it suggests about causes, made when `check` asks for it.
    """

    picture: ClassVar[str]  # which picture of the terminal and of the page draws it
    receipt: Receipt = field(kw_only=True)
    claims: Callable[[], Claims] | None = field(kw_only=True, default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return plain(self)

    def data(self) -> dict[str, Any]:
        """Its fields by name, tensors as they are, and whether `check` can try out what it suggests."""
        made = {f.name: getattr(self, f.name) for f in fields(self) if f.repr or f.compare}
        return made | {"checkable": self.claims is not None}

    def page_data(self) -> dict[str, Any]:
        """What a saved page holds of it: its picture and `data`, smaller where that is large."""
        return {"picture": self.picture} | self.data()

    def to_html(self) -> str:
        """One page that holds everything and asks for nothing: no other file, no network."""
        from cutaway.interp.pictures.page import page  # it reads files

        return page([self.page_data()], self, title=self._title(), receipt=self.receipt)

    def _title(self) -> str:
        """Of the page's window."""
        title = getattr(self, "title", getattr(self, "what", ""))
        return title[:1].upper() + title[1:]

    def _repr_html_(self) -> str:
        """The page inside a notebook."""
        style = "width:100%;height:34em;border:1px solid #8884"
        return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{html.escape(self.to_html())}"></iframe>'

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from cutaway.interp.pictures.terminal import PICTURES  # it draws what this module defines

        yield from PICTURES[self.picture](self, options.max_width, console.color_system is not None)


@dataclass(frozen=True)
class TokenScores(Result):
    """One number per token.

    Attributes:
        what: what the number is.
        unit: of the numbers.
        tokens: to be read; of a coarser grain words or sentences.
        ids: in the vocabulary; of a coarser grain of their first tokens.
        scores: one per token; None where there is none.
        signed: whether the numbers stand on both sides of zero.
    """

    picture = "scores"
    what: str
    unit: str
    tokens: list[str]
    ids: list[int]
    scores: list[float | None]
    signed: bool = False

    @property
    def mean(self) -> float | None:
        """Of the scores there are; None where there are none."""
        known = [score for score in self.scores if score is not None]
        return math.fsum(known) / len(known) if known else None

    def to_json(self) -> dict[str, Any]:
        return plain(self) | {"mean": self.mean}

    def data(self) -> dict[str, Any]:
        return super().data() | {"mean": self.mean}


@dataclass(frozen=True)
class Attention(Result):
    """Where each head of each layer looks.

    Attributes:
        tokens: to be read; rows are queries.
        patterns: (L, H, T, S) float32, each row sums to 1.
        keys: what the columns are, of attention to a source; None: the tokens themselves.
        causal: whether each token sees only itself and what is before it.
        chosen: the (layer, head) to show large; None takes the sharpest.
        first: where the first of the tokens stands in its text, of which only the last may be here.
    """

    picture = "attention"
    tokens: list[str]
    patterns: Float[Tensor, "L H T S"]
    keys: list[str] | None = None
    causal: bool = True
    chosen: tuple[int, int] | None = None
    first: int = 0

    @property
    def shown(self) -> tuple[int, int]:
        """The (layer, head) to show large."""
        return self.chosen or self.sharpest()

    def sharpest(self) -> tuple[int, int]:
        """The (layer, head) that looks most pointedly; within one text at other tokens than the first and itself."""
        best = int(sharpness(self.patterns, own=self.keys is None).argmax())
        return best // self.patterns.shape[1], best % self.patterns.shape[1]

    def habits(self) -> list[list[tuple[str, float]]]:
        """Per layer and head, where it looks most on average: (place, share).

        The places are "previous" (the token before), "first", "itself" and "others", of attention to a source "first",
        "last" and "others". Of causal attention the first two rows are left out where there are more: in them the
        places coincide.
        """
        T, S = self.patterns.shape[2:]
        if self.keys is not None:
            named = ("first", "last", "others")
            places = torch.full((T, S), 2)
            places[:, -1], places[:, 0] = 1, 0
            weights = self.patterns.cpu()
        else:
            named = ("previous", "first", "itself", "others")
            rows = torch.arange(2 if T > 2 and self.causal else 0, T)
            places = torch.full((len(rows), T), 3)
            places[:, 0] = 1
            places[rows >= 1, (rows - 1)[rows >= 1]] = 0
            places[torch.arange(len(rows)), rows] = 2
            weights = self.patterns[:, :, rows.to(self.patterns.device)].cpu()  # (L, H, rows, T)
        shares = torch.stack([(weights * (places == k)).sum(-1).mean(-1) for k in range(len(named))], dim=-1)
        return [[(named[int(s.argmax())], float(s.max())) for s in layer] for layer in shares]

    def data(self) -> dict[str, Any]:
        return super().data() | {"shown": self.shown, "habits": self.habits()}

    def to_json(self) -> dict[str, Any]:
        made = {"tokens": self.tokens, "keys": self.keys, "shown": self.shown, "habits": self.habits()}
        return made | {"patterns": self.patterns.tolist(), "receipt": self.receipt.to_json()}

    def page_data(self) -> dict[str, Any]:
        from cutaway.interp.pictures.page import last

        patterns, left_out = last(self.patterns, causal=self.causal)
        keys = self.tokens if left_out and self.keys is None and not self.causal else self.keys
        held = {"tokens": self.tokens[left_out:], "keys": keys, "patterns": patterns, "first": self.first + left_out}
        return super().page_data() | held


def sharpness(patterns: Float[Tensor, "*heads T S"], *, own: bool) -> Float[Tensor, " *heads"]:
    """The mean of the largest weights of a pattern's rows: how pointedly a head looks.

    Args:
        patterns: of any heads.
        own: whether keys are the tokens themselves: then the first token, the token itself and the first two rows do
            not count, as they would be the largest of nearly every head.
    """
    T = patterns.shape[-2]
    if own and T < 3:
        return patterns.new_zeros(patterns.shape[:-2])
    if own:
        patterns = patterns[..., 2:, 1:].clone()
        patterns.masked_fill_(torch.eye(T, device=patterns.device)[2:, 1:].bool(), 0)
    return patterns.amax(-1).mean(-1)


@dataclass(frozen=True)
class LensCell:
    """What one layer would say after one token: the likeliest next tokens with their probabilities."""

    top: list[tuple[str, float]]
    entropy: float  # bits


@dataclass(frozen=True)
class Lens(Result):
    """A table of predictions, layer by layer. K tokens of each cell are named, the likeliest first.

    Attributes:
        tokens: to be read, columns.
        layers: names of the rows: the stream before the first layer, then after each.
        ids: (L, T, K) int32 of the likeliest tokens.
        logits: (L, T, K) float32.
        probabilities: (L, T, K) float32.
        entropies: (L, T) float32, in bits.
        words: the tokens that are named, to be read, by id.
        chosen: (T,) int32 a token of each column that every row is asked about: the one that was given, or that came
            next; at the end of the text, or in a gap, the one that the model says.
        ranks: (L, T) int32 its place among all tokens, 1 for the likeliest.
        chances: (L, T) float32 its probability.
    """

    picture = "lens"
    tokens: list[str]
    layers: list[str]
    ids: Int[Tensor, "L T K"]
    logits: Float[Tensor, "L T K"]
    probabilities: Float[Tensor, "L T K"]
    entropies: Float[Tensor, "L T"]
    words: dict[int, str]
    chosen: Int[Tensor, " T"]
    ranks: Int[Tensor, "L T"]
    chances: Float[Tensor, "L T"]

    @property
    def cells(self) -> list[list[LensCell]]:
        """By row, then by column."""
        columns = (self.ids.tolist(), self.probabilities.tolist(), self.entropies.tolist())
        return [
            [
                LensCell([(self.words[id_], p) for id_, p in zip(*cell[:2], strict=True)], cell[2])
                for cell in zip(*row, strict=True)
            ]
            for row in zip(*columns, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        made = {"tokens": self.tokens, "layers": self.layers, "cells": self.cells, "receipt": self.receipt}
        chosen = [self.words[id_] for id_ in self.chosen.tolist()]
        return plain(made | {"chosen": chosen, "ranks": self.ranks, "chances": self.chances})


@dataclass(frozen=True)
class Matrix(Result):
    """A number for each row and column.

    Attributes:
        what: what the numbers are.
        unit: of the numbers.
        rows: names of the rows, to be read, such as layers or tokens.
        columns: names of the columns.
        values: (R, C) float; a NaN is a place without a number.
        row_axis, column_axis: what rows and columns are: "layer", "head", "position" …
        signed: whether the numbers stand on both sides of zero.
    """

    picture = "matrix"
    what: str
    unit: str
    rows: list[str]
    columns: list[str]
    values: Float[Tensor, "R C"]
    row_axis: str = ""
    column_axis: str = ""
    signed: bool = True

    def top(self, count: int = 10) -> list[tuple[str, str, float]]:
        """The largest numbers by absolute value: (row, column, value)."""
        flat = self.values.flatten()
        size = flat.abs().masked_fill(flat.isnan(), -1.0)  # places without a number are not among them
        chosen = size.topk(min(count, int((size >= 0).sum()))).indices.tolist()
        width = self.values.shape[1]
        return [(self.rows[i // width], self.columns[i % width], float(flat[i])) for i in chosen]


@dataclass(frozen=True)
class Curve(Result):
    """Lines over a common axis.

    Attributes:
        what: what is shown.
        x, y: what the axes are, with units.
        at: where on the x axis.
        lines: name -> a number for each place; None where there is none.
    """

    picture = "curve"
    what: str
    x: str
    y: str
    at: list[float]
    lines: dict[str, list[float | None]]


Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Table(Result):
    """Rows of words and numbers.

    Attributes:
        what: what is shown.
        columns: their heads.
        rows: a cell for each column.
    """

    picture = "table"
    what: str
    columns: list[str]
    rows: list[list[Cell]]

    def column(self, name: str) -> list[Cell]:
        """The cells of one column."""
        return [row[self.columns.index(name)] for row in self.rows]


@dataclass(frozen=True)
class Node:
    """Of a graph: a name that is its own, a label to be read, how much it counts, and how deep it stands."""

    name: str
    label: str
    value: float
    depth: float = 0.0


@dataclass(frozen=True)
class Edge:
    """From one node to another, with a weight."""

    source: str
    target: str
    weight: float


@dataclass(frozen=True)
class Graph(Result):
    """Nodes and weighted edges.

    Attributes:
        what: what is shown.
        unit: of values and weights.
        nodes: of growing depth.
        edges: between them.
    """

    picture = "graph"
    what: str
    unit: str
    nodes: list[Node]
    edges: list[Edge]

    def strongest(self, count: int = 20) -> list[Edge]:
        """The edges of the largest weights by absolute value."""
        return sorted(self.edges, key=lambda edge: -abs(edge.weight))[:count]


@dataclass(frozen=True)
class Branch:
    """Of a tree: what it says, its share of its parent, its share of the whole, what follows, and which token it is."""

    label: str
    share: float
    total: float
    branches: tuple[Branch, ...] = ()
    id: int | None = None


@dataclass(frozen=True)
class Tree(Result):
    """A tree whose branches have shares.

    Attributes:
        what: what is shown.
        root: where it begins.
    """

    picture = "tree"
    what: str
    root: Branch


@dataclass(frozen=True)
class Panel(Result):
    """Several results that belong together.

    Attributes:
        title: of all.
        notes: sentences on what they show: the verdict, the control, the warning.
        parts: name -> result.
        figures: the numbers that matter, by name.
    """

    picture = "panel"
    title: str
    parts: dict[str, Result]
    notes: Sequence[str] = ()
    figures: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """One of the parts."""
        return self.parts[name]

    def to_json(self) -> dict[str, Any]:
        parts = {name: {"picture": part.picture} | part.to_json() for name, part in self.parts.items()}
        return {
            "title": self.title,
            "notes": list(self.notes),
            "figures": plain(self.figures),
            "parts": parts,
            "receipt": self.receipt.to_json(),
        }

    def page_data(self) -> dict[str, Any]:
        return super().page_data() | {"parts": {name: part.page_data() for name, part in self.parts.items()}}
