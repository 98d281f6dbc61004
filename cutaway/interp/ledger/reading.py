"""What a reading is made of: the run that is read, and the sum of what was found.

To read a vector is to take its product with another one, the reader. Everything between a number and what it comes from
is linear once it is held at what it was, so a reader of the number becomes, step by step, a reader of ever earlier
vectors. Readers may also come several at once, as a matrix: then every value is a vector.

All is computed in float64 from what was recorded.

Shapes: T tokens, C channels, H heads, D head dim, R readers (no dimension for a single one), P parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from cutaway.interp.ledger.ledger import Ledger, Term
from cutaway.interp.record import Recording
from cutaway.models import Decoder, Model, Seq2Seq
from cutaway.models.layers import RMSNorm
from cutaway.models.quantised import QuantisedLinear

Held = tuple[str, ...]  # what was held between a vector and the number, such as ("norm at its actual scale", …)
NORM, PATTERN = "norm at its actual scale", "pattern at its actual weights"
POSITIONS = 8  # whose written vectors a run keeps
Written = tuple[list[str], Tensor]  # names, and what each wrote, (P, C)
Opener = Callable[[int], Ledger]  # the ledger of the part of this number


def said(held: Held) -> str:
    """What was held, to be read: "2 norms at their actual scales; gate at its actual value"."""
    parts = []
    for what, times in Counter(held).items():
        thing, _, how = what.partition(" at its ")
        parts.append(what if times == 1 else f"{times} {thing}s at their {how if how.endswith('s') else how + 's'}")
    return "; ".join(parts)


class Run:
    """One row of a recording, with what has to be asked of its model.

    Args:
        recording: of all that is read.
        row: which of its texts.
        unit: of the number that is opened.
    """

    def __init__(self, recording: Recording, row: int = 0, unit: str = "logits") -> None:
        self.recording, self.row, self.unit = recording, row, unit
        self.model: Model = recording.model
        self.network, self.inputs, self.receipt = recording.model.network, recording.inputs, recording.receipt
        self._written: dict[tuple[int, bool], dict[str, Written]] = {}

    def written(self, name: str, position: int, source: bool, compute: Callable[[], Written]) -> Written:
        """What a part wrote at a position, computed once for as long as the position is among the last few read."""
        found = self._written.pop((position, source), {})
        self._written[position, source] = found  # the last one
        if len(self._written) > POSITIONS:
            del self._written[next(iter(self._written))]
        if name not in found:
            found[name] = compute()
        return found[name]

    def edited(self, name: str) -> bool:
        """Whether an activation was replaced."""
        return name in self.recording.edits

    def at(self, name: str, position: int | None = None) -> Float64[Tensor, " C"]:
        """An activation (C,) at a position; None where there is one for the whole text."""
        value = self.recording[name][self.row]
        value = value if position is None else value[position]
        return value.double().reshape(-1)  # a head with one number has no dimension for it

    def heads(self, name: str) -> Tensor:
        """An activation by head: (H, T, D) or (H, T, S), in its own dtype."""
        return self.recording[name][self.row]

    def ids(self, source: bool) -> Tensor:
        """(T,) int64 of the text, or of the source."""
        read = self.inputs.source if source else self.inputs.ids
        assert read is not None
        return read[self.row]

    def mask(self, source: bool) -> Tensor | None:
        """(B, T) bool, which tokens are real."""
        return self.inputs.source_mask if source else self.inputs.mask

    def token(self, position: int, source: bool = False) -> str:
        """A token to be read; of sound its frame."""
        if source and self.recording.source is not None and self.recording.source.ndim == 3:
            return f"frame {position}"
        writes = isinstance(self.network, Seq2Seq) and not source
        tokenizer = (self.model.tokenizer.target if writes else None) or self.model.tokenizer
        return tokenizer.token(int(self.ids(source)[position]))

    @property
    def causal(self) -> bool:
        """Whether the network's own stream reads backwards only."""
        return isinstance(self.network, Decoder | Seq2Seq)


class Sum:
    """Parts of a number, found last first; or of several numbers at once, where the reader is a matrix."""

    def __init__(self) -> None:
        self._groups: list[tuple[list[str], Tensor, list[str], str, Opener | None]] = []
        self.scale = 0.0

    def add(
        self,
        names: list[str],
        vectors: Float64[Tensor, "P C"],
        reader: Float64[Tensor, "... C"],
        held: Held,
        labels: Sequence[str] = (),
        opener: Opener | None = None,
    ) -> None:
        """Parts that wrote these vectors, in the order of computation."""
        self.scale += float(
            (vectors.abs() @ reader.abs().mT if reader.ndim > 1 else vectors.abs() @ reader.abs()).sum()
        )
        values = reader @ vectors.mT  # (…, P)
        self._groups.append((names, values, list(labels) or [""] * len(names), said(held), opener))

    def add_values(
        self,
        names: list[str],
        values: Float64[Tensor, "... P"],
        held: Held,
        labels: Sequence[str],
        opener: Opener | None,
    ) -> None:
        """Parts whose values are known."""
        self.scale += float(values.abs().sum())
        self._groups.append((names, values, list(labels) or [""] * len(names), said(held), opener))

    def join(self, other: Sum, opener: Opener) -> None:
        """Take up another sum's parts before those that are here, each with a new opener."""
        count = 0
        taken = []
        for names, values, labels, frozen, _ in reversed(other._groups):
            taken.append((names, values, labels, frozen, partial(_shifted, opener, count)))
            count += len(names)
        self._groups += reversed(taken)
        self.scale += other.scale

    @property
    def names(self) -> list[str]:
        """Of all parts, in the order of computation."""
        return [name for group in reversed(self._groups) for name in group[0]]

    @property
    def values(self) -> Float64[Tensor, "... P"]:
        """(…, P)"""
        return torch.cat([group[1] for group in reversed(self._groups)], dim=-1)

    @property
    def labels(self) -> list[str]:
        """Of all parts, to be read."""
        return [label for group in reversed(self._groups) for label in group[2]]

    def ledger(self, run: Run, what: str, total: float) -> Ledger:
        """The parts as terms.

        Args:
            run: that was read.
            what: the number, to be read.
            total: the number.
        """
        terms: list[Term] = []
        opened: dict[str, Callable[[], Ledger]] = {}
        for names, values, labels, frozen, opener in reversed(self._groups):
            for i, (name, value, label) in enumerate(zip(names, values.tolist(), labels, strict=True)):
                open_it = partial(opener, i) if opener is not None else None
                if open_it is not None:
                    opened[name] = open_it
                terms.append(Term(name, value, label, open_it is not None, frozen))
        return Ledger(what, tuple(terms), total, opened, run.unit, self.scale, receipt=run.receipt)


def _shifted(opener: Opener, by: int, i: int) -> Ledger:
    return opener(by + i)


def rows(matrix: nn.Linear, which: slice | Tensor) -> Float64[Tensor, "N C"]:
    """Some rows of a matrix; of one that is kept quantised no others are dequantised."""
    return (matrix.blocks[which] if isinstance(matrix, QuantisedLinear) else matrix.weight[which]).double()


def normed(norm: nn.Module, x: Float64[Tensor, "*S C"]) -> Float64[Tensor, "*S C"]:
    """What a norm makes of x, in float64."""
    if isinstance(norm, nn.LayerNorm):
        bias = None if norm.bias is None else norm.bias.double()
        return nn.functional.layer_norm(x, x.shape[-1:], norm.weight.double(), bias, norm.eps)
    assert isinstance(norm, RMSNorm)
    return x * (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.scale.double()


def through(norm: nn.Module, x: Float64[Tensor, " C"], reader: Float64[Tensor, "*R C"]) -> Float64[Tensor, "*R C"]:
    """What reads the norm's input as `reader` reads its output (but for its bias), its scale held as it was at x."""
    if isinstance(norm, nn.LayerNorm):
        reader = reader * norm.weight.double() / (x.var(correction=0) + norm.eps).sqrt()
        return reader - reader.mean(-1, keepdim=True)  # to centre the stream is to centre what reads it
    assert isinstance(norm, RMSNorm)
    return reader * norm.scale.double() * (x.square().mean() + norm.eps).rsqrt()
