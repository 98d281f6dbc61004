"""What reads a residual stream and adds to it: attention, MLP and experts, each a step of its stream's chain.

A head opens into the tokens that it read (pattern · value), a token's value into what had been written into its
residual stream; an MLP into its neurons, a neuron into what fed it.

Shapes: T tokens, S tokens read, C channels, H query heads, K key/value heads, D head dim, M channels inside an MLP,
P parts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from cutaway.interp.ledger.chain import Chain
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.reading import PATTERN, Held, Run, Sum, Written
from cutaway.interp.ledger.steps import (
    Activation,
    ChosenEdit,
    Edit,
    Gate,
    Given,
    HeadEdit,
    HeadNorm,
    Matrix,
    Norm,
    Read,
    Step,
    Turn,
)
from cutaway.models.experts import Experts
from cutaway.models.layers import MLP
from cutaway.models.rotary import Rotary


@dataclass(frozen=True)
class Part(Step):
    """Reads a place of a stream, perhaps through a norm, and adds to the stream, perhaps through another.

    Attributes:
        stream: the chain that it is a step of.
        layer: the layer's name, "layers.3" or "encoder.layers.3".
        kind: "attn", "cross_attn" or "mlp".
        module: of the network.
        reads: the place.
        norm_in: on what it reads.
        norm_out: on what it writes.
    """

    stream: Chain
    layer: str
    kind: str
    module: nn.Module
    reads: str
    norm_in: nn.Module | None
    norm_out: nn.Module | None

    sums = True
    holds: ClassVar[Held] = ()  # what its parts are held at

    @property
    def name(self) -> str:
        """What the names of its activations begin with."""
        return f"{self.layer}.{self.kind}"

    @property
    def out(self) -> str:
        """The name of what it adds."""
        return f"{self.name}_out"

    @property
    @abstractmethod
    def last(self) -> nn.Linear | None:
        """The matrix that writes, whose bias is a part."""

    @abstractmethod
    def wrote(self, run: Run, position: int) -> Written:
        """Names, and what each of them wrote, before a norm on it: (P, C)."""

    @abstractmethod
    def opened(self, run: Run, position: int, reader: Tensor, i: int, total: float) -> Ledger:
        """The ledger of one of them, read by (C,)."""

    def entry(self) -> Chain:
        """From the place that is read to what the first matrices are given."""
        norm = None if self.norm_in is None else Norm(self.norm_in, f"{self.name}.norm_in")
        return Chain((self.stream, self.reads), source=self.stream.source).then(norm)

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        assert position is not None
        return x + run.at(self.out, position)

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read:
        assert position is not None
        self.read_written(run, position, reader, held, parts)
        return reader, held, position

    def read_written(self, run: Run, position: int, reader: Tensor, held: Held, parts: Sum) -> None:
        """What it added to the stream, part by part."""
        names, vectors = run.written(self.name, position, self.stream.source, lambda: self.wrote(run, position))
        bias = None if self.last is None or self.last.bias is None else self.last.bias.double()
        own = vectors.sum(0) if bias is None else vectors.sum(0) + bias
        norm = None if self.norm_out is None else Norm(self.norm_out, f"{self.name}.norm")
        if run.edited(self.out):
            made = own if norm is None else norm.forward(run, position, own)
            parts.add([f"{self.out}.edit"], (run.at(self.out, position) - made)[None], reader, held, ["edited"])
        if norm is not None:
            reader, held, _ = norm.back(run, position, lambda: own, reader, held, parts)
        if bias is not None:
            parts.add([f"{self.name}.bias"], bias[None], reader, held)

        def opener(i: int) -> Ledger:
            return self.opened(run, position, reader, i, float(vectors[i] @ reader))

        parts.add(names, vectors, reader, (*held, *self.holds), opener=opener)


def at(run: Run, name: str, position: int, source: bool) -> str:
    """A part at a position, to be read."""
    return f"{name.replace('layers.', 'layer ').replace('.', ' ')} at “{run.token(position, source)}” ({position})"


@dataclass(frozen=True)
class Attention(Part):
    """Attention.

    Attributes:
        source: the chain that keys and values are made of, where it is another.
        rotary: the positions that queries and keys are turned by.
        distance: head, query and key -> what their distance adds to a score.
    """

    source: Chain | None
    rotary: Rotary | None
    distance: Callable[[int, int, int], float] | None = None

    @property
    def last(self) -> nn.Linear:
        return self.module.o_proj  # pyright: ignore[reportReturnType]

    @property
    def heads(self) -> int:
        """H"""
        return self.module.heads  # pyright: ignore[reportReturnType]

    def group(self, head: int) -> int:
        """Which key/value head a query head reads."""
        return head // (self.heads // getattr(self.module, "kv_heads", self.heads))

    def head_name(self, head: int) -> str:
        """Of a head as a part."""
        return f"{self.layer}.{'head' if self.kind == 'attn' else 'cross_head'}.{head}"

    @property
    def reads_source(self) -> bool:
        """Whether keys are positions of a source."""
        return (self.source or self.stream).source

    def wrote(self, run: Run, position: int) -> Written:
        z = run.heads(f"{self.name}.z")[:, position].double()  # (H, D)
        matrix = self.last.weight.double().unflatten(1, z.shape)  # (C, H, D)
        return [self.head_name(head) for head in range(len(z))], torch.einsum("chd,hd->hc", matrix, z)

    def opened(self, run: Run, position: int, reader: Tensor, i: int, total: float) -> Ledger:
        size = self.module.head_dim
        matrix = self.last.weight[:, i * size : (i + 1) * size].double()  # pyright: ignore[reportOperatorIssue]
        return self.sources(run, position, i, reader @ matrix, total)

    def sources(self, run: Run, position: int, head: int, reader: Tensor, total: float) -> Ledger:
        """What a head made, z, read by (D,): by the token that it read."""
        pattern = run.heads(f"{self.name}.pattern")[head, position].double()  # (S,)
        values = run.heads(f"{self.name}.v")[self.group(head)].double()  # (S, D)
        seen = pattern.nonzero().flatten()
        vectors = values[seen] * pattern[seen, None]
        places = seen.tolist()
        parts = Sum()
        if run.edited(f"{self.name}.z"):
            change = run.heads(f"{self.name}.z")[head, position].double() - vectors.sum(0)
            parts.add([f"{self.name}.z.edit"], change[None], reader, (), ["edited"])

        def opener(i: int) -> Ledger:
            where, by = places[i], reader * pattern[places[i]]
            found = self.inner("v", self.group(head)).read(run, where, by)
            what = f"the value of {at(run, self.head_name(head), where, self.reads_source)}, by what had been written"
            return found.ledger(run, what, float(values[where] @ by))

        labels = [run.token(s, self.reads_source) for s in places]
        parts.add([f"source.{s}" for s in places], vectors, reader, (PATTERN,), labels, opener)
        what = f"{at(run, self.head_name(head), position, self.stream.source)}, by the token it read"
        return parts.ledger(run, what, total)

    def inner(self, which: str, head: int) -> Chain:
        """From the stream to a query ("q"), key ("k") or value ("v") of one of their heads, (D,)."""
        config, size = self.module, self.module.head_dim
        chain = self.entry()
        if which != "q" and self.source is not None:
            chain = Chain((self.source, self.source.last), source=self.source.source)
        norm = getattr(config, f"{which}_norm", None)
        joint = norm is not None and norm.weight.shape[0] != size
        part = slice(None) if joint else slice(head * size, (head + 1) * size)  # pyright: ignore[reportOperatorIssue]
        chain.then(Matrix(getattr(config, f"{which}_proj"), f"{self.name}.{which}", part))
        if norm is not None:
            chain.then(HeadNorm(norm, head, size, joint))  # pyright: ignore[reportArgumentType]
        if self.rotary is not None and which != "v":
            chain.then(Turn(self.rotary, self.rotary.turned))
        return chain.then(HeadEdit(f"{self.name}.{which}", head))


@dataclass(frozen=True)
class Neurons(Part):
    """An MLP."""

    module: MLP

    @property
    def last(self) -> nn.Linear:
        return self.module.down_proj

    def wrote(self, run: Run, position: int) -> Written:
        if self.norm_out is None and not run.edited(self.out):  # what was recorded, to spare a product
            bias = self.last.bias
            own = run.at(self.out, position) if bias is None else run.at(self.out, position) - bias.double()
        else:
            own = self.last.weight.double() @ run.at(f"{self.name}.post", position)
        return [self.name], own[None]

    def opened(self, run: Run, position: int, reader: Tensor, i: int, total: float) -> Ledger:
        post = run.at(f"{self.name}.post", position)  # (M,)
        return neurons(run, self, position, self.inner(), post, reader @ self.last.weight.double(), self.name, total)

    def inner(self, which: Tensor | None = None) -> Chain:
        """From the stream to what the last matrix reads, (M,), or to some of these numbers."""
        mlp = self.module
        if not mlp.gated:
            return self.gate(which).then(Activation(mlp.activation), self._edit("post", which))
        chosen = slice(None) if which is None else which
        gate = Gate(mlp.activation, mlp.gate_proj, mlp.up_proj, self.name, chosen)
        return self.entry().then(gate, self._edit("post", which))

    def gate(self, which: Tensor | None = None) -> Chain:
        """From the stream to what the activation is given, (M,), or to some of these numbers."""
        name, mlp, chosen = "gate" if self.module.gated else "up", self.module, slice(None) if which is None else which
        matrix = Matrix(mlp.gate_proj if mlp.gated else mlp.up_proj, f"{self.name}.{name}", chosen)
        return self.entry().then(matrix, self._edit("pre", which))

    def _edit(self, place: str, which: Tensor | None) -> Edit:
        name = f"{self.name}.{place}"
        return Edit(name) if which is None else ChosenEdit(name, which)


def neurons(
    run: Run, part: Part, position: int, chain: Chain, post: Tensor, reader: Tensor, name: str, total: float
) -> Ledger:
    """What an MLP wrote, by neuron: what each made, `post` (M,), read by (M,); `chain` leads to it."""

    def opener(i: int) -> Ledger:
        one = torch.zeros_like(reader)
        one[i] = reader[i]
        what = f"neuron {i} of {at(run, name, position, part.stream.source)}, by what fed it"
        return chain.read(run, position, one).ledger(run, what, float(post[i] * reader[i]))

    parts = Sum()
    names = [f"neuron.{i}" for i in range(len(post))]
    parts.add_values(names, post * reader, (), (), opener)
    return parts.ledger(run, f"{at(run, name, position, part.stream.source)}, by neuron", total)


@dataclass(frozen=True)
class Expert(Step):
    """One expert from what it reads to what its last matrix reads, its gate held at its value."""

    experts: Experts
    number: int

    def _weights(self, name: str) -> Tensor:
        return getattr(self.experts, f"{name}_proj")[self.number].double()

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        up = x @ self._weights("up").mT
        if self.experts.gate_proj is None:
            return self.experts.activation(up)
        return self.experts.activation(x @ self._weights("gate").mT) * up

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read:
        up, x = self._weights("up"), given()
        if self.experts.gate_proj is None:
            reader, held, _ = Activation(self.experts.activation).back(
                run, position, lambda: up @ x, reader, held, parts
            )
            return reader @ up, held, position
        gate = self.experts.activation(self._weights("gate") @ x)
        return (reader * gate) @ up, (*held, "gate at its actual value"), position


@dataclass(frozen=True)
class Mixture(Part):
    """A mixture of experts: each that was used is a part, at the weight that the router gave it."""

    module: Experts

    holds = ("router at its actual weight",)

    @property
    def last(self) -> None:
        return None

    def _used(self, run: Run, position: int) -> list[tuple[int, float]]:
        weights = run.at(f"{self.name}.router", position)
        return [(e, float(weights[e])) for e in weights.nonzero().flatten().tolist()]

    def _post(self, run: Run, position: int, expert: int) -> Tensor:
        """(M,) what the expert's last matrix reads."""
        chain = self.inner(expert)
        return chain.value(run, len(chain.steps), position)

    def wrote(self, run: Run, position: int) -> Written:
        used = self._used(run, position)
        down = self.module.down_proj
        written = [weight * (down[e].double() @ self._post(run, position, e)) for e, weight in used]
        return [f"{self.layer}.expert.{e}" for e, _ in used], torch.stack(written)

    def opened(self, run: Run, position: int, reader: Tensor, i: int, total: float) -> Ledger:
        expert, weight = self._used(run, position)[i]
        post, chain = self._post(run, position, expert), self.inner(expert)
        by = weight * (reader @ self.module.down_proj[expert].double())
        return neurons(run, self, position, chain, post, by, f"{self.layer}.expert.{expert}", total)

    def inner(self, expert: int) -> Chain:
        """From the stream to what an expert's last matrix reads, (M,)."""
        return self.entry().then(Expert(self.module, expert))

    def router(self) -> Chain:
        """From the stream to the scores that the router chooses by, (E,)."""
        return self.entry().then(Matrix(self.module.router, f"{self.name}.router"))
