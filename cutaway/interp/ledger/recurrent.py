"""The numbers of a recurrent model: an output by its last hidden units, a unit by the steps that wrote it, a step by
what fed it.

A unit carries its value on from step to step, so it is the sum of what was taken up at each step, times what all later
gates let through; gates are held at their values. What was taken up is the candidate, whose tanh is held at its ratio,
and which was fed by the token (or the units of the layer below) and by the units before.

    GRU:  h_t = (1 - z_t) n_t + z_t h_{t-1},  n = tanh(W x + r · (U h_{t-1} + c) + b)
    LSTM: h_t = o_t tanh(c_t),  c_t = i_t g_t + f_t c_{t-1},  g = tanh(W x + U h_{t-1} + b)

Shapes: T tokens, C channels of the embedding, N hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.nonlinear import Game
from cutaway.interp.ledger.reading import Held, Run, Sum
from cutaway.interp.target import Target
from cutaway.models import Recurrent
from cutaway.models.gru import GATES, Cells

RATIO, GATE = "activation at its actual ratio", "gate at its actual value"


def output(run: Run, target: Target, position: int, factor: float = 1.0) -> Ledger:
    """A logit times a factor, by the units of the last hidden state."""
    network = _network(run)
    chosen = [target.chosen] if target.other is None else [target.chosen, target.other]
    signs = factor * torch.tensor([1.0, -1.0][: len(chosen)], dtype=torch.float64)
    last = network.config.layers - 1
    reader = signs @ network.lm_head.weight[chosen].double()  # (N,)
    total = float(run.at("logits", position)[chosen] @ signs)
    parts = Sum()
    if run.edited("logits"):
        made = run.at(f"layers.{last}.hidden", position) @ reader
        parts.add(["logits.edit"], (total - made).reshape(1, 1), torch.ones(1, dtype=torch.float64), (), ["edited"])
    units(run, last, position, reader, (), parts)
    return parts.ledger(run, target.what, total)


def inside(run: Run, what: str, position: int, reader: Tensor, said: str) -> Ledger:
    """Any other recorded number: the embedding, a state, the candidate or a gate, read by (N,)."""
    total = float(run.at(what, position) @ reader)
    parts = Sum()
    if what == "embed":
        _embedding(run, position, reader, (), parts)
        return parts.ledger(run, said, total)
    _, number, value = what.split(".")
    layer, used = int(number), reader.nonzero().flatten().tolist()
    if value in ("hidden", "cell"):
        if len(used) == 1:
            return steps(run, layer, position, value, used[0], float(reader[used[0]]))
        units(run, layer, position, reader, (), parts, value)
        return parts.ledger(run, said, total)
    return _activated(run, layer, position, value, reader, said)


def units(run: Run, layer: int, position: int, reader: Tensor, held: Held, parts: Sum, state: str = "hidden") -> None:
    """A state (N,), by unit."""
    values = run.at(f"layers.{layer}.{state}", position) * reader

    def opener(i: int) -> Ledger:
        return steps(run, layer, position, state, i, float(reader[i]))

    word = "unit" if state == "hidden" else state
    parts.add_values([f"layers.{layer}.{word}.{i}" for i in range(len(reader))], values, held, (), opener)


def steps(run: Run, layer: int, position: int, state: str, unit: int, weight: float) -> Ledger:
    """One unit of a state times a weight, by the step that wrote it."""
    cell, name = _network(run).config.cell, f"layers.{layer}"
    at = {  # each (T,)
        value: run.heads(f"{name}.{value}")[: position + 1, unit].double()
        for value in (*GATES[cell], *(["cell"] if cell == "lstm" else []), "hidden")
    }
    total, held = float(at[state][-1]) * weight, (GATE,)
    if cell == "gru":
        carried, keep, take, scale = at["hidden"], at["update"], 1 - at["update"], weight
        edited = [(f"{name}.hidden", carried)]
    else:
        carried, keep, take, scale = at["cell"], at["forget"], at["input"], weight
        edited = [(f"{name}.cell", carried)]
    parts = Sum()
    if cell == "lstm" and state == "hidden":
        made = float(at["output"][-1] * carried[-1].tanh())
        if run.edited(f"{name}.hidden"):
            change = torch.tensor([[at["hidden"][-1] - made]], dtype=torch.float64)
            parts.add(
                [f"step.{position}.hidden.edit"], change, torch.tensor([weight], dtype=torch.float64), (), ["edited"]
            )
        scale = weight * (made / float(carried[-1]) if carried[-1] else 0.0)
        held = (GATE, RATIO)
    later = torch.ones_like(keep)
    later[:-1] = keep.flip(0).cumprod(0).flip(0)[1:]  # the share of a step's value that all later steps let through
    share = take * later * scale
    labels = [run.token(t) for t in range(position + 1)]
    for activation, values in edited:
        if run.edited(activation):  # what was put in is carried on as all else is
            before = torch.cat((values.new_zeros(1), values[:-1]))
            change = (values - take * at["candidate"] - keep * before) * later * scale
            names = [f"step.{t}.edit" for t in change.nonzero().flatten().tolist()]
            parts.add_values(names, change[change != 0], (), ["edited"] * len(names), None)

    def opener(t: int) -> Ledger:
        reader = torch.zeros(run.heads(f"{name}.candidate").shape[-1], dtype=torch.float64)
        reader[unit] = share[t]
        what = f"what unit {unit} of layer {layer} took up at “{run.token(t)}” ({t}), by what fed it"
        return _activated(run, layer, t, "candidate", reader, what)

    parts.add_values([f"step.{t}" for t in range(position + 1)], at["candidate"] * share, held, labels, opener)
    return parts.ledger(
        run, f"layer {layer} unit {unit}{' (its cell)' * (state == 'cell')}, by the step that wrote it", total
    )


@dataclass(frozen=True)
class Cell:
    """What an activation of a layer is given at a step, for some of its units.

    Args:
        run: that is read.
        layer: its number.
        position: of the step.
        value: the candidate or a gate.
        used: which units, (n,) int64.
    """

    run: Run
    layer: int
    position: int
    value: str
    used: Tensor

    def cells(self) -> Cells:
        """The layer."""
        cells = _network(self.run).layers[self.layer]
        assert isinstance(cells, Cells)
        return cells

    @property
    def gate(self) -> bool:
        """Whether it is a gate."""
        return self.value != "candidate"

    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """What reads the input (n, C), what reads the units before (n, N), and the bias (n,)."""
        cells, used = self.cells(), self.used
        size = cells.weight_hh.shape[1]
        rows = used + GATES[cells.cell].index(self.value) * size
        reset = torch.ones(len(used), dtype=torch.float64)
        if self.resets:
            reset = self.run.at(f"layers.{self.layer}.reset", self.position)[used]
        bias = cells.bias_ih[rows].double() + cells.bias_hh[rows].double() * reset
        return cells.weight_ih[rows].double(), cells.weight_hh[rows].double() * reset[:, None], bias

    @property
    def resets(self) -> bool:
        """Whether a gate stands on what comes from the units before."""
        return self.cells().cell == "gru" and not self.gate

    def given(self) -> Tensor:
        """(n,)"""
        run, layer, t = self.run, self.layer, self.position
        from_x, from_h, bias = self.weights()
        given = from_x @ run.at("embed" if layer == 0 else f"layers.{layer - 1}.hidden", t) + bias
        return given + from_h @ run.at(f"layers.{layer}.hidden", t - 1) if t else given

    def made(self, given: Tensor) -> Tensor:
        """What the activation makes of it, but for the half of a gate: σ(a) = ½ + ½ tanh(a / 2)."""
        return 0.5 * torch.tanh(given / 2) if self.gate else given.tanh()

    def read(self, reader: Tensor, held: Held, parts: Sum) -> None:
        """What it was given, by what fed it."""
        from_x, from_h, bias = self.weights()
        parts.add(["bias"], bias[None], reader, held)
        if self.position:
            held_before = (*held, GATE) if self.resets else held
            units(self.run, self.layer, self.position - 1, reader @ from_h, held_before, parts)
        if self.layer:
            units(self.run, self.layer - 1, self.position, reader @ from_x, held, parts)
        else:
            _embedding(self.run, self.position, reader @ from_x, held, parts)


def _activated(run: Run, layer: int, position: int, value: str, reader: Tensor, said: str) -> Ledger:
    """The candidate or a gate, read by (N,), by what fed it.

    The half of a gate is a term of its own, so that the gate can be held at its ratio where it was given 0.
    """
    name, used = f"layers.{layer}.{value}", reader.nonzero().flatten()  # one unit is one of many
    cell, short, parts = Cell(run, layer, position, value, used), reader[used], Sum()
    given = cell.given()
    made = cell.made(given)
    if run.edited(name):
        change = run.at(name, position)[used] - made - 0.5 * cell.gate
        parts.add([f"{name}.edit"], change[None], short, (), ["edited"])
    if cell.gate:
        parts.add(["half"], torch.full_like(short, 0.5)[None], short, ())
    cell.read(short * torch.where(given == 0, torch.zeros_like(given), made / given), (RATIO,), parts)
    return parts.ledger(run, said, float(run.at(name, position) @ reader))


def game(run: Run, what: str, position: int, reader: Tensor | None, said: str) -> Game:
    """One unit of a gate or candidate as a function of what it was given, by what fed it.

    Raises:
        ConfigError: another number, which is linear in its parts once the gates are held.
    """
    value, one = what.rsplit(".", 1)[-1], torch.ones(1, dtype=torch.float64)
    if reader is None or int(reader.count_nonzero()) != 1 or value not in GATES[_network(run).config.cell]:
        raise ConfigError(
            f"{what} has no norm or soft-cap to attribute through; of a recurrent model only one unit of a gate or "
            "candidate is attributed so: leave nonlinear at frozen, which opens it"
        )
    cell, parts = Cell(run, int(what.split(".")[1]), position, value, reader.nonzero().flatten()), Sum()
    cell.read(one, (), parts)
    weight, total = float(reader.sum()), float(run.at(what, position) @ reader)
    rest = total - weight * float(cell.made(cell.given()))  # the half of a gate, and an edit
    names, labels, vectors = parts.names, parts.labels, parts.values[:, None]
    return Game(said, names, labels, vectors, lambda x: weight * cell.made(x[..., 0]) + rest, total)


def _embedding(run: Run, position: int, reader: Tensor, held: Held, parts: Sum) -> None:
    vector = _network(run).embed_tokens.weight[run.ids(False)[position]].double()
    if run.edited("embed"):
        parts.add(["embed.edit"], (run.at("embed", position) - vector)[None], reader, held, ["edited"])
    parts.add(["embed"], vector[None], reader, held, [run.token(position)])


def _network(run: Run) -> Recurrent:
    assert isinstance(run.network, Recurrent)
    return run.network
