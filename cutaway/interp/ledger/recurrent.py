"""The numbers of a recurrent model: an output by its last hidden units (of a whole text by its tokens, and these by
their units), a unit by the steps that wrote it, a step by what fed it. A state that reads from the end has its steps in
that order.

A unit carries its value on from step to step, so it is the sum of what was taken up at each step, times what all later
gates let through; gates are held at their values. What was taken up is the candidate, whose tanh is held at its ratio,
and which was fed by the token (or the units of the layer below) and by the units before.

    GRU:  h_t = (1 - z_t) n_t + z_t h_{t-1},  n = tanh(W x + r · (U h_{t-1} + c) + b)
    LSTM: h_t = o_t tanh(c_t),  c_t = i_t g_t + f_t c_{t-1},  g = tanh(W x + U h_{t-1} + b)

Shapes: T tokens, C channels of the embedding, N hidden units, S what a layer makes (N, or 2 N of both states).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.nonlinear import Game
from cutaway.interp.ledger.reading import Held, Run, Sum
from cutaway.interp.ledger.steps import Length, Pool
from cutaway.interp.target import Target
from cutaway.models import Recurrent
from cutaway.models.config_parts import POOLED
from cutaway.models.gru import GATES, Cells

RATIO, GATE = "activation at its actual ratio", "gate at its actual value"


def output(run: Run, target: Target, position: int, factor: float = 1.0) -> Ledger:
    """An output times a factor, by the units of the states that the last matrix reads, or a head has pooled."""
    network, last = _network(run), run.network.tap_names()[-1]
    chosen = [target.chosen] if target.other is None else [target.chosen, target.other]
    signs = factor * torch.tensor([1.0, -1.0][: len(chosen)], dtype=torch.float64)
    pooled, place = network.config.head in POOLED, None if network.config.head in POOLED else position
    value = run.at(last, place)
    total, parts = float(value[chosen] @ signs), Sum()
    matrix = network.lm_head if network.head is None and last == "logits" else getattr(network.head, "out", None)
    before = _pooled(run) if pooled else run.at(_states(run), position)
    if matrix is None:  # the output is what is pooled, or the states
        reader = torch.zeros_like(value).index_add_(0, torch.tensor(chosen), signs)
        reader = Length().back(run, place, lambda: before, reader, (), parts)[0] if network.config.normalize else reader
        made = before / before.norm().clamp(min=1e-12) if network.config.normalize else before
    else:
        weight = matrix.weight[chosen].double()
        reader = signs @ weight
        made = before.new_zeros(len(value))
        made[chosen] = weight @ before + (0 if matrix.bias is None else matrix.bias[chosen].double())
        if matrix.bias is not None:
            parts.add(["logits.bias"], matrix.bias[chosen].double()[None], signs, ())
    if run.edited(last) and last in ("logits", "embedding"):
        change = (value - made)[chosen] @ signs
        parts.add([f"{last}.edit"], change.reshape(1, 1), torch.ones(1, dtype=torch.float64), (), ["edited"])
    held = ("length at its actual value",) if matrix is None and network.config.normalize else ()
    if pooled:
        _pool(run, reader, held, parts)
    else:
        states(run, network.config.layers - 1, position, reader, held, parts)
    return parts.ledger(run, target.what, total)


def _states(run: Run) -> str:
    """The name of what a head reads."""
    network = _network(run)
    return f"layers.{network.config.layers - 1}.{network.states}"


def _pooled(run: Run) -> Tensor:
    """What a head over whole texts reads, (S,)."""
    return run.at("head.pooled")


def _pool(run: Run, reader: Tensor, held: Held, parts: Sum) -> None:
    """The vector of a whole text, by the states of its tokens."""
    network = _network(run)
    layer, name = network.config.layers - 1, _states(run)

    def opened(run: Run, position: int, reader: Tensor, total: float) -> Ledger:
        below = Sum()
        states(run, layer, position, reader, (), below)
        return below.ledger(run, f"states at “{run.token(position)}” ({position}), by unit", total)

    pool = Pool(network.config.pooling, opened, lambda run: run.heads(name).double())
    if run.edited("head.pooled"):
        parts.add(["head.pooled.edit"], (_pooled(run) - pool.value(run))[None], reader, held, ["edited"])
    read = pool.back(run, None, lambda: _pooled(run), reader, held, parts)
    if read is not None:  # one token's
        states(run, layer, pool.token(run), reader, held, parts)


def inside(run: Run, what: str, position: int, reader: Tensor, said: str) -> Ledger:
    """Any other recorded number: the embedding, a state, the candidate or a gate, or what is pooled; read by (N,)."""
    whole, parts = what == "head.pooled", Sum()
    total = float(run.at(what, None if whole else position) @ reader)
    if whole:
        _pool(run, reader, (), parts)
        return parts.ledger(run, said, total)
    if what == "embed":
        _embedding(run, position, reader, (), parts)
        return parts.ledger(run, said, total)
    layer, value, back = int(what.split(".")[1]), what.rsplit(".", 1)[1], ".back." in what
    used = reader.nonzero().flatten().tolist()
    if value == "states":
        states(run, layer, position, reader, (), parts)
        return parts.ledger(run, said, total)
    if value in ("hidden", "cell"):
        if len(used) == 1:
            return steps(run, layer, position, value, used[0], float(reader[used[0]]), back)
        units(run, layer, position, reader, (), parts, value, back)
        return parts.ledger(run, said, total)
    return _activated(run, layer, position, value, reader, said, back)


def _home(layer: int, back: bool) -> str:
    """What the names of a layer's activations begin with, of the state that reads from the end or of the other."""
    return f"layers.{layer}.back" if back else f"layers.{layer}"


def _order(run: Run, position: int, back: bool) -> list[int]:
    """The tokens that a state at a position has read, in turn."""
    if not back:
        return list(range(position + 1))
    mask = run.mask(source=False)
    length = len(run.ids(False)) if mask is None else int(mask[run.row].sum())
    return list(range(length - 1, position - 1, -1)) or [position]


def states(run: Run, layer: int, position: int, reader: Tensor, held: Held, parts: Sum) -> None:
    """What a layer makes of a token (S,), by unit: of one state, or of both."""
    network = _network(run)
    if not network.config.bidirectional:
        units(run, layer, position, reader, held, parts)
        return
    name = f"layers.{layer}.states"
    if run.edited(name):
        made = torch.cat([run.at(f"{_home(layer, back)}.hidden", position) for back in (False, True)])
        parts.add([f"{name}.edit"], (run.at(name, position) - made)[None], reader, held, ["edited"])
    for part, back in zip(reader.chunk(2), (False, True), strict=True):
        units(run, layer, position, part, held, parts, back=back)


def units(
    run: Run,
    layer: int,
    position: int,
    reader: Tensor,
    held: Held,
    parts: Sum,
    state: str = "hidden",
    back: bool = False,
) -> None:
    """A state (N,), by unit."""
    home = _home(layer, back)
    values = run.at(f"{home}.{state}", position) * reader

    def opener(i: int) -> Ledger:
        return steps(run, layer, position, state, i, float(reader[i]), back)

    word = "unit" if state == "hidden" else state
    parts.add_values([f"{home}.{word}.{i}" for i in range(len(reader))], values, held, (), opener)


def steps(run: Run, layer: int, position: int, state: str, unit: int, weight: float, back: bool = False) -> Ledger:
    """One unit of a state times a weight, by the step that wrote it."""
    cell, name, order = _network(run).config.cell, _home(layer, back), _order(run, position, back)
    at = {  # each (T,), in the order in which the tokens were read
        value: run.heads(f"{name}.{value}")[order, unit].double()
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
    labels = [run.token(t) for t in order]
    for activation, values in edited:
        if run.edited(activation):  # what was put in is carried on as all else is
            before = torch.cat((values.new_zeros(1), values[:-1]))
            change = (values - take * at["candidate"] - keep * before) * later * scale
            names = [f"step.{order[i]}.edit" for i in change.nonzero().flatten().tolist()]
            parts.add_values(names, change[change != 0], (), ["edited"] * len(names), None)

    def opener(i: int) -> Ledger:
        reader = torch.zeros(run.heads(f"{name}.candidate").shape[-1], dtype=torch.float64)
        reader[unit] = share[i]
        what = f"what unit {unit} of layer {layer} took up at “{run.token(order[i])}” ({order[i]}), by what fed it"
        return _activated(run, layer, order[i], "candidate", reader, what, back)

    parts.add_values([f"step.{t}" for t in order], at["candidate"] * share, held, labels, opener)
    its, way = " (its cell)" * (state == "cell"), " from the end" * back
    return parts.ledger(run, f"layer {layer} unit {unit}{its}{way}, by the step that wrote it", total)


@dataclass(frozen=True)
class Cell:
    """What an activation of a layer is given at a step, for some of its units.

    Args:
        run: that is read.
        layer: its number.
        position: of the step.
        value: the candidate or a gate.
        used: which units, (n,) int64.
        back: of the state that reads from the end.
    """

    run: Run
    layer: int
    position: int
    value: str
    used: Tensor
    back: bool = False

    @property
    def before(self) -> int | None:
        """The position that was read before this one; None: this was the first."""
        order = _order(self.run, self.position, self.back)
        return order[-2] if len(order) > 1 else None

    def cells(self) -> Cells:
        """The layer."""
        network = _network(self.run)
        cells = (network.back if self.back else network.layers)[self.layer]
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
            reset = self.run.at(f"{_home(self.layer, self.back)}.reset", self.position)[used]
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
        below, before = "embed" if layer == 0 else f"layers.{layer - 1}.{_network(run).states}", self.before
        given = from_x @ run.at(below, t) + bias
        return given if before is None else given + from_h @ run.at(f"{_home(layer, self.back)}.hidden", before)

    def made(self, given: Tensor) -> Tensor:
        """What the activation makes of it, but for the half of a gate: σ(a) = ½ + ½ tanh(a / 2)."""
        return 0.5 * torch.tanh(given / 2) if self.gate else given.tanh()

    def read(self, reader: Tensor, held: Held, parts: Sum) -> None:
        """What it was given, by what fed it."""
        from_x, from_h, bias = self.weights()
        parts.add(["bias"], bias[None], reader, held)
        if (before := self.before) is not None:
            held_before = (*held, GATE) if self.resets else held
            units(self.run, self.layer, before, reader @ from_h, held_before, parts, back=self.back)
        if self.layer:
            states(self.run, self.layer - 1, self.position, reader @ from_x, held, parts)
        else:
            _embedding(self.run, self.position, reader @ from_x, held, parts)


def _activated(
    run: Run, layer: int, position: int, value: str, reader: Tensor, said: str, back: bool = False
) -> Ledger:
    """The candidate or a gate, read by (N,), by what fed it.

    The half of a gate is a term of its own, so that the gate can be held at its ratio where it was given 0.
    """
    name, used = f"{_home(layer, back)}.{value}", reader.nonzero().flatten()  # one unit is one of many
    cell, short, parts = Cell(run, layer, position, value, used, back), reader[used], Sum()
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
    used, back, parts = reader.nonzero().flatten(), ".back." in what, Sum()
    cell = Cell(run, int(what.split(".")[1]), position, value, used, back)
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
