"""Steps of a head that compares two texts which were read apart: both pooled, then `models.heads.compared`.

Shapes: T tokens of a text, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.reading import Held, Run, Sum
from cutaway.interp.ledger.steps import Given, Pool, Read, Step
from cutaway.models.heads import compared


@dataclass(frozen=True)
class PoolApart(Pool):
    """The vectors of two texts behind each other, (2·C), each pooled of its own tokens, which are the parts."""

    @property
    def sums(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """There are always several parts."""
        return True

    def value(self, run: Run) -> Tensor:
        """(2·C) what is pooled."""
        return torch.cat([(states * weights).sum(0) for _, states, weights in self._texts(run)])

    def _texts(self, run: Run) -> list[tuple[list[int], Tensor, Tensor]]:
        """Of each text its places, its states (T, C) and what each of their numbers counts (T, C)."""
        assert run.inputs.token_types is not None  # or nothing could have been recorded
        real, states = self._real(run), self.vectors(run)
        texts = run.inputs.token_types[run.row].cpu()[real]
        found = []
        for number in (0, 1):
            places = real[texts == number]
            own = states[places]
            if self.how == "mean":
                weights = torch.full_like(own, 1 / len(places))
            elif self.how == "max":
                weights = F.one_hot(own.argmax(0), len(places)).T.double()
            else:
                weights = torch.zeros_like(own)
                weights[0 if self.how == "cls" else -1] = 1
            found.append((places.tolist(), own, weights))
        return found

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read | None:
        held = (*held, "largest at its actual token") if self.how == "max" else held
        for own, (places, states, weights) in zip(reader.chunk(2, dim=-1), self._texts(run), strict=True):

            def opener(i: int, own: Tensor = own, states: Tensor = states, weights: Tensor = weights,
                       places: list[int] = places) -> Ledger:  # fmt: skip
                return self.opened(run, places[i], own * weights[i], float((own * weights[i]) @ states[i]))

            names, labels = [f"token.{place}" for place in places], [run.token(place) for place in places]
            parts.add(names, states * weights, own, held, labels, opener)
        return None


@dataclass(frozen=True)
class Compared(Step):
    """Both vectors at one length, their distance and their product.

    Held are their lengths, the signs of their differences, and half of each product with either of them as it was.
    """

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        return compared(*x.chunk(2, dim=-1))

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read:
        both = given().chunk(2, dim=-1)
        scales = [x.shape[-1] ** 0.5 / x.norm().clamp(min=1e-12) for x in both]
        u, v = (x * scale for x, scale in zip(both, scales, strict=True))
        first, second, apart, product = reader.chunk(4, dim=-1)
        sign = torch.sign(u - v)
        parts.scale += float((apart * (u.abs() + v.abs())).abs().sum())  # what nearly cancels is rounded as its parts
        read = (
            (first + apart * sign + product * v / 2) * scales[0],
            (second - apart * sign + product * u / 2) * scales[1],
        )
        said = (*held, "length at its actual value", "sign of a difference at its actual value",
                "product with the other text's number at its actual value")  # fmt: skip
        return torch.cat(read, dim=-1), said, position
