"""The steps of a computation at one position, each of which can be walked forwards, and backwards by a reader.

A step knows what it makes of a vector (`forward`, in float64), and what reads its input as a given reader reads its
output, once it is held at what it was (`back`). On the way back it puts what it adds by itself (a bias, an embedding,
what each head wrote, an edit) into the sum as parts.

Shapes: T tokens, C channels, M channels inside an MLP, H heads, D head dim, R readers, P parts, V outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.interp.ledger.reading import NORM, Held, Run, Sum, normed, rows, through
from cutaway.models.layers import RMSNorm
from cutaway.models.rotary import Rotary
from cutaway.models.sight import Sight, places_apart

if TYPE_CHECKING:
    from cutaway.interp.ledger.ledger import Ledger

Given = Callable[[], Tensor]
Read = tuple[Tensor, Held, "int | None"]  # the reader (…, C) of what comes before, what is held, and at which position


class Step(ABC):
    """One step."""

    sums: ClassVar[bool] = False  # whether what it makes is a sum of parts, some of which it adds

    @abstractmethod
    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        """(…, C) -> (…, C')"""

    @abstractmethod
    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read | None:
        """Walk back.

        Args:
            run: that is read.
            position: in the text; None behind a pooling.
            given: computes what the step was given, (C,).
            reader: (…, C') of what it made.
            held: what was held so far.
            parts: takes what is found.

        Returns:
            What reads that, (…, C), and where; None where nothing comes before.
        """


@dataclass(frozen=True)
class Edit(Step):
    """A place that may have been replaced: what was put in is a part of its own."""

    name: str

    def used(self, run: Run, position: int | None) -> Tensor:
        """(C,) what was recorded there."""
        return run.at(self.name, position)

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        return x

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read:
        if run.edited(self.name):
            parts.add([f"{self.name}.edit"], (self.used(run, position) - given())[None], reader, held, ["edited"])
        return reader, held, position


@dataclass(frozen=True)
class HeadEdit(Edit):
    """The same of one head's query, key or value."""

    head: int

    def used(self, run: Run, position: int | None) -> Tensor:
        return run.heads(self.name)[self.head, position].double()


@dataclass(frozen=True)
class ChosenEdit(Edit):
    """The same of some of many numbers."""

    which: Tensor

    def used(self, run: Run, position: int | None) -> Tensor:
        return run.at(self.name, position)[self.which]


@dataclass(frozen=True)
class Norm(Step):
    """A norm of the whole vector; its bias is a part."""

    norm: nn.Module
    name: str  # of the bias

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        return normed(self.norm, x)

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read:
        bias = getattr(self.norm, "bias", None)
        if bias is not None:
            parts.add([f"{self.name}.bias"], bias.double()[None], reader, held)
        return through(self.norm, given(), reader), (*held, NORM), position


@dataclass(frozen=True)
class Matrix(Step):
    """A matrix, or some of its rows; its bias is a part."""

    matrix: nn.Linear
    name: str  # of the bias
    which: slice | Tensor = field(default_factory=lambda: slice(None))
    scale: float = 1.0  # on what it reads

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        bias = None if self.matrix.bias is None else self.matrix.bias[self.which].double()
        return F.linear(x * self.scale, rows(self.matrix, self.which), bias)

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read:
        bias = self.matrix.bias
        if bias is not None:
            parts.add([f"{self.name}.bias"], bias[self.which].double()[None], reader, held)
        return read_rows(self.matrix, self.which, reader) * self.scale, held, position


def read_rows(matrix: nn.Linear, which: slice | Tensor, reader: Tensor) -> Tensor:
    """reader · matrix, with no more rows than are read: a neuron is one of many."""
    if reader.ndim > 1 or isinstance(which, Tensor):
        return reader @ rows(matrix, which)
    used = reader.nonzero().flatten()
    return reader[used] @ rows(matrix, used + (which.start or 0))


@dataclass(frozen=True)
class Activation(Step):
    """A function of each number, held at the ratio of what it made to what it was given."""

    function: Callable[[Tensor], Tensor]
    said: str = "activation at its actual ratio"

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        return self.function(x)

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read:
        x = given()  # all these functions are 0 at 0, where any ratio is right
        parts.scale += float((reader * x).abs().sum())  # what is far down a tail is rounded as what it was made of
        ratio = torch.where(x == 0, torch.zeros_like(x), self.function(x) / x)
        return reader * ratio, (*held, self.said), position


def cap(most: float) -> Activation:
    """most · tanh(x / most)"""
    return Activation(lambda x: most * torch.tanh(x / most), "soft-cap at its actual ratio")


@dataclass(frozen=True)
class Gate(Step):
    """activation(gate) · up: the gate is held at its value, and what went up is read."""

    activation: Callable[[Tensor], Tensor]
    gate: nn.Linear
    up: nn.Linear
    name: str  # of the MLP, whose `pre` is what the gate was given
    which: slice | Tensor = field(default_factory=lambda: slice(None))  # of the neurons

    def _gate(self, run: Run, position: int | None, x: Tensor | None) -> Tensor:
        """(…, M) what the gate lets through of x, or was made to; of the run where x is None."""
        if x is None or run.edited(f"{self.name}.pre"):
            return self.activation(run.at(f"{self.name}.pre", position)[self.which])
        return self.activation(Matrix(self.gate, self.name, self.which).forward(run, position, x))

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        return self._gate(run, position, x) * Matrix(self.up, self.name, self.which).forward(run, position, x)

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read:
        gate, pre = self._gate(run, position, None), run.at(f"{self.name}.pre", position)[self.which]
        post = run.at(f"{self.name}.post", position)[self.which]
        before = torch.where(gate == 0, torch.zeros_like(gate), pre / gate)
        parts.scale += float((reader * post * before).abs().sum())  # as in an activation
        reader, held = reader * gate, (*held, "gate at its actual value")
        return Matrix(self.up, f"{self.name}.up", self.which).back(run, position, given, reader, held, parts)


@dataclass(frozen=True)
class HeadNorm(Step):
    """The RMS norm of a query's or key's heads, one by one, or `joint`, all together; then one head of it."""

    norm: RMSNorm
    head: int
    head_dim: int
    joint: bool

    def _scales(self, x: Tensor) -> Tensor:
        """(…, D) what a head's numbers are multiplied by."""
        mean = (x if self.joint else self._one(x)).square().mean(-1, keepdim=True)
        scale = self.norm.scale.double()
        return (mean + self.norm.eps).rsqrt() * (self._one(scale) if self.joint else scale)

    def _one(self, x: Tensor) -> Tensor:
        return x[..., self.head * self.head_dim : (self.head + 1) * self.head_dim] if self.joint else x

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        return self._one(x) * self._scales(x)

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read:
        x = given()
        reader, held = reader * self._scales(x), (*held, NORM)
        if self.joint:
            whole = reader.new_zeros(*reader.shape[:-1], x.shape[-1])
            whole[..., self.head * self.head_dim : (self.head + 1) * self.head_dim] = reader
            reader = whole
        return reader, held, position


@dataclass(frozen=True)
class Turn(Step):
    """Rotary positions of one head; a rotation, which the reader is turned back by."""

    rotary: Rotary
    turned: int  # channels

    def _tables(self, run: Run, position: int | None) -> tuple[Tensor, Tensor]:
        ids, mask = run.inputs.ids, run.inputs.mask
        places, types = Sight(0, ids.shape[1], ids.device, mask).positions, run.inputs.token_types
        if types is not None and getattr(run.network.config, "apart", False):
            places = places_apart(types, mask)[0]
        cos, sin = self.rotary(0, ids.shape[1], None if places is None else places[run.row : run.row + 1])
        cos, sin = (x[0] if places is not None else x for x in (cos, sin))
        return cos[position, 0].double(), sin[position, 0].double()  # (D,)

    def _swap(self, x: Tensor) -> Tensor:
        half = self.turned // 2
        return torch.cat((x[..., half : self.turned], x[..., :half], x[..., self.turned :]), dim=-1)

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        cos, sin = self._tables(run, position)
        return x * cos + self._swap(x) * sin

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read:
        cos, sin = self._tables(run, position)
        return reader * cos + self._swap(reader * sin), held, position


@dataclass(frozen=True)
class Length(Step):
    """A vector brought to length 1, which is held as it was."""

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read:
        # torch's smallest length is 1e-12
        return reader / given().norm().clamp(min=1e-12), (*held, "length at its actual value"), position


@dataclass(frozen=True)
class Pool(Step):
    """The vector of a whole text out of those of its tokens, each of them a part where there are several."""

    how: str
    opened: Callable[[Run, int, Tensor, float], Ledger]  # a token's part: where, what reads it, and how much it is
    vectors: Callable[[Run], Tensor]  # (T, C) what is pooled

    def _real(self, run: Run) -> Tensor:
        mask = run.mask(source=False)
        return torch.arange(run.inputs.ids.shape[1]) if mask is None else mask[run.row].nonzero().flatten().cpu()

    @property
    def sums(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether several tokens are pooled."""
        return self.how in ("mean", "max")

    def token(self, run: Run) -> int:
        """Where one token is taken, its position."""
        return int(self._real(run)[0 if self.how == "cls" else -1])

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        return x

    def value(self, run: Run) -> Tensor:
        """(C,) what is pooled."""
        if not self.sums:
            return self.vectors(run)[self.token(run)]
        states = self.vectors(run)[self._real(run)]
        return states.amax(0) if self.how == "max" else states.mean(0)

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read | None:
        if not self.sums:
            return reader, held, self.token(run)
        real = self._real(run)
        states = self.vectors(run)[real]  # (T, C)
        if self.how == "max":
            held = (*held, "largest at its actual token")
            weights = F.one_hot(states.argmax(0), len(real)).T.double()  # (T, C)
        else:
            weights = torch.full_like(states, 1 / len(real))
        places = real.tolist()

        def opener(i: int) -> Ledger:
            return self.opened(run, places[i], reader * weights[i], float((reader * weights[i]) @ states[i]))

        names, labels = [f"token.{s}" for s in places], [run.token(s) for s in places]
        parts.add(names, states * weights, reader, held, labels, opener)
        return None
