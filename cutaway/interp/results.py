"""What analyses return: numbers with their names, which print as pictures, and become JSON or a page.

Shapes: T tokens, L layers, H heads.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from rich.console import Console, ConsoleOptions, RenderResult
from torch import Tensor


@dataclass(frozen=True)
class Receipt:
    """What a result can be checked by.

    Attributes:
        difference: largest difference of the logits from a plain run; 0.0 where nothing was replaced, which the
            contract tests hold every network to.
        milliseconds: of the recorded run.
        bytes: of what was recorded.
        dtype: of the computation.
        source: the model.
        seed: of what was drawn; None where nothing is.
    """

    difference: float
    milliseconds: float
    bytes: int
    dtype: str
    source: str
    seed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Result(ABC):
    """The faces that every result has."""

    picture: ClassVar[str]  # which picture of the terminal and of the page draws it

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """As plain data."""

    def page_data(self) -> dict[str, Any]:
        """What the page's script draws; as `to_json`, smaller where that is large."""
        return self.to_json()

    def to_html(self) -> str:
        """One page that holds everything and asks for nothing: no other file, no network."""
        from cutaway.interp.pictures.page import page  # it needs to know nothing of results, but reads files

        return page({self.picture: self.page_data()})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from cutaway.interp.pictures.terminal import PICTURES  # it draws what this module defines

        yield from PICTURES[self.picture](self, options.max_width, console.color_system is not None)


@dataclass(frozen=True)
class TokenScores(Result):
    """One number per token.

    Attributes:
        what: what the number is.
        unit: of the numbers.
        tokens: to be read.
        ids: in the vocabulary.
        scores: one per token; None where there is none.
    """

    picture = "scores"
    what: str
    unit: str
    tokens: list[str]
    ids: list[int]
    scores: list[float | None]

    @property
    def mean(self) -> float | None:
        """Of the scores there are; None where there are none."""
        known = [score for score in self.scores if score is not None]
        return math.fsum(known) / len(known) if known else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"mean": self.mean}


@dataclass(frozen=True)
class Attention(Result):
    """Where each head of each layer looks.

    Attributes:
        tokens: to be read; rows are queries, columns are keys.
        patterns: (L, H, T, T) float32, each row sums to 1.
        chosen: the (layer, head) to show large; None takes the sharpest.
    """

    picture = "attention"
    tokens: list[str]
    patterns: Float[Tensor, "L H T T"]
    chosen: tuple[int, int] | None = None

    @property
    def shown(self) -> tuple[int, int]:
        """The (layer, head) to show large."""
        return self.chosen or self.sharpest()

    def sharpest(self) -> tuple[int, int]:
        """The (layer, head) that looks most pointedly at other tokens than the first and itself."""
        T = len(self.tokens)
        if T < 3:
            return 0, 0
        weights = self.patterns[:, :, 2:, 1:].clone()
        weights.masked_fill_(torch.eye(T, device=weights.device)[2:, 1:].bool(), 0)
        best = int(weights.amax(-1).mean(-1).argmax())
        return best // self.patterns.shape[1], best % self.patterns.shape[1]

    def habits(self) -> list[list[tuple[str, float]]]:
        """Per layer and head, where it looks most on average: (place, share).

        The places are "previous" (the token before), "first", "itself" and "others". The first two rows are left out
        where there are more: in them the places coincide.
        """
        T = len(self.tokens)
        rows = torch.arange(2 if T > 2 else 0, T)
        places = torch.full((len(rows), T), 3)
        places[:, 0] = 1
        places[rows >= 1, (rows - 1)[rows >= 1]] = 0
        places[torch.arange(len(rows)), rows] = 2
        named = ("previous", "first", "itself", "others")
        weights = self.patterns[:, :, rows.to(self.patterns.device)].cpu()  # (L, H, rows, T)
        shares = torch.stack([(weights * (places == k)).sum(-1).mean(-1) for k in range(4)], dim=-1)  # (L, H, 4)
        return [[(named[int(s.argmax())], float(s.max())) for s in layer] for layer in shares]

    def to_json(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "shown": self.shown, "habits": self.habits(), "patterns": self.patterns.tolist()}

    def page_data(self) -> dict[str, Any]:
        from cutaway.interp.pictures.page import packed

        made: dict[str, Any] = {"tokens": self.tokens, "shown": self.shown, "habits": self.habits()}
        return made | packed(self.patterns)


@dataclass(frozen=True)
class LensCell:
    """What one layer would say after one token: the likeliest next tokens with their probabilities."""

    top: list[tuple[str, float]]
    entropy: float  # bits


@dataclass(frozen=True)
class Lens(Result):
    """A table of predictions, layer by layer.

    Attributes:
        tokens: to be read, columns.
        layers: names of the rows: the stream before the first layer, then after each.
        cells: by row, then by column.
    """

    picture = "lens"
    tokens: list[str]
    layers: list[str]
    cells: list[list[LensCell]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
