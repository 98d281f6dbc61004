"""How tensors lie in published checkpoints: turned, joined, or in parts. Each layout goes both ways.

Shapes: H heads, D head dim, C channels, E experts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Layout:
    """As it is: one of theirs is one of ours."""

    def into(self, theirs: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        """Ours out of theirs."""
        return theirs

    def back(self, ours: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        """Theirs out of ours."""
        return ours


class Turned(Layout):
    """A matrix stored the other way round, (in, out)."""

    def into(self, theirs: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        return [tensor.T.contiguous() for tensor in theirs]

    def back(self, ours: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        return [tensor.T.contiguous() for tensor in ours]


@dataclass(frozen=True)
class Joined(Layout):
    """Several of ours in one, below each other (or beside each other, if turned).

    Attributes:
        rows: how many rows each of ours has.
        turned: stored the other way round.
    """

    rows: Callable[[Any], Sequence[int]]
    turned: bool = False

    def into(self, theirs: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        (whole,) = theirs
        if self.turned:
            return [part.T.contiguous() for part in whole.split(list(self.rows(config)), dim=-1)]
        return whole.split(list(self.rows(config)))

    def back(self, ours: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        if self.turned:
            return [torch.cat([part.T for part in ours], dim=-1)]
        return [torch.cat(list(ours))]


class JoinedByHead(Layout):
    """Queries, keys and values in one, those of each head together: (H · 3 · D, C) or (H · 3 · D)."""

    def into(self, theirs: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        (whole,) = theirs
        parts = whole.unflatten(0, (config.heads, 3, config.head_dim))
        return [part.flatten(0, 1) for part in parts.unbind(1)]

    def back(self, ours: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        parts = [part.unflatten(0, (config.heads, config.head_dim)) for part in ours]
        return [torch.stack(parts, dim=1).flatten(0, 2)]


class Experts(Layout):
    """A tensor of each expert, stacked in ours: (E, …)."""

    def into(self, theirs: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        return [torch.stack(list(theirs))]

    def back(self, ours: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        return [tensor.contiguous() for tensor in ours[0].unbind()]


class Row(Layout):
    """A vector stored as the one row of a matrix, (1, C)."""

    def into(self, theirs: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        return [tensor.squeeze(0) for tensor in theirs]

    def back(self, ours: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        return [tensor[None] for tensor in ours]


SAME, TURNED, BY_HEAD, EXPERTS, ROW = Layout(), Turned(), JoinedByHead(), Experts(), Row()
