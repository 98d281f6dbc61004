"""What a graph predicts when some of its nodes are zeroed or doubled, and what the model does then.

Shapes: T tokens, C channels, G logits that were followed, N nodes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import InputError, unknown
from cutaway.interp.features.graph import AttributionGraph
from cutaway.interp.inputs import forward
from cutaway.interp.receipt import going_on
from cutaway.interp.record import Edit
from cutaway.interp.results import Cell, Panel, Result, Table
from cutaway.models import ActiveTap

MOST = 400  # nodes that are changed together


@dataclass(frozen=True)
class Intervened(Panel):
    """What `graph_intervention` found.

    Attributes:
        factors: node -> what it was multiplied by.
        answers: the next tokens whose logits were followed.
        predicted: by the graph, the change of each of these logits.
        actual: in the model.
        before: probability of each in the plain run.
        after: in the changed one.
    """

    factors: dict[str, float] = field(kw_only=True)
    answers: list[str] = field(kw_only=True)
    predicted: list[float] = field(kw_only=True)
    actual: list[float] = field(kw_only=True)
    before: list[float] = field(kw_only=True)
    after: list[float] = field(kw_only=True)


@torch.no_grad()
def graph_intervention(graph: AttributionGraph, factors: Mapping[str, float]) -> Intervened:
    """Multiply what some nodes write, and compare the model's answer with what the graph predicts.

    The prediction is linear: (factor - 1) times what each node adds along all paths, summed over the nodes. In the
    model what the nodes write is changed in the plain run, and everything behind them answers as it will: attention
    moves, other features become active, norms change.

    Args:
        graph: of `attribution_graph`.
        factors: node -> what it is multiplied by: 0 takes it out, 2 doubles it. Several form a group. A feature, a
            neuron, an error or an embedding; names as in the graph.

    Returns:
        A panel: predicted and actual change of each followed logit, and of the first one what each node does alone.

    Raises:
        InputError: no nodes, too many, an unknown one, or one that writes nothing (a logit, the biases).
    """
    started = time.perf_counter()
    if not 1 <= len(factors) <= MOST:
        raise InputError(f"give 1 … {MOST} nodes to change, not {len(factors)}")
    numbers = {name: i for i, name in enumerate(graph.names)}
    for name in factors:
        if name not in numbers:
            raise InputError(unknown("node of the graph", name, graph.names))
    effects = graph.effects()  # (G, N)
    count = len(graph.readers)
    predicted = torch.zeros(count, dtype=torch.float64)
    for name, factor in factors.items():
        predicted += (factor - 1) * effects[:, numbers[name]].double().cpu()
    plain, plain_output = _run(graph, {})
    moved, output = _run(graph, dict(factors))
    actual = (moved - plain).double().cpu()
    before, after = (row.double().softmax(-1)[graph.ids].tolist() for row in (plain_output, output))
    rows: list[list[Cell]] = [
        [name, predicted[i].item(), actual[i].item(), before[i], after[i]] for i, name in enumerate(graph.answers)
    ]
    code = going_on(graph.receipt.code, "graph", "graph_intervention", f", {dict(factors)!r}")
    milliseconds = 1000 * (time.perf_counter() - started)
    receipt = replace(graph.receipt, milliseconds=milliseconds, code=code, gap=None, bytes=0)
    heads = ["next token", "predicted change", "actual change", "probability before", "after"]
    title = "Change of the logits that were followed"
    parts: dict[str, Result] = {"logits": Table(title, heads, rows, receipt=receipt)}
    if len(factors) > 1:
        alone: list[list[Cell]] = []
        for name, factor in list(factors.items())[:24]:
            change = float((_run(graph, {name: factor})[0] - plain)[0])
            alone.append([name, factor, (factor - 1) * float(effects[0, numbers[name]]), change])
        heads = ["node", "times", "predicted change", "actual change"]
        parts["alone"] = Table(f"Of the logit of {graph.answers[0]}, each node alone", heads, alone, receipt=receipt)
    said = {0.0: "taken out", 2.0: "doubled"}
    how = {said.get(float(factor), f"multiplied by {factor:g}") for factor in factors.values()}
    figures = {"predicted": float(predicted[0]), "actual": float(actual[0])}
    notes = ["The graph predicts in a straight line; attention, norms and other features of the model answer besides."]
    what = next(iter(factors)) if len(factors) == 1 else f"{len(factors)} nodes"
    return Intervened(
        f"{what} {' or '.join(sorted(how))}", parts, notes, figures, factors=dict(factors), answers=list(graph.answers),
        predicted=predicted.tolist(), actual=actual.tolist(), before=before, after=after, receipt=receipt,
    )  # fmt: skip


def _run(graph: AttributionGraph, factors: Mapping[str, float]) -> tuple[Float[Tensor, " G"], Float[Tensor, " V"]]:
    """The logits that are followed, as the graph reads them, and all of the last token, with some nodes multiplied."""
    moved: dict[str, Tensor] = {}
    for name, factor in factors.items():
        place, position, wrote = _written(graph, name)
        moved.setdefault(place, torch.zeros_like(graph.run.embed))[0, position] += (factor - 1) * wrote
    edits: dict[str, Edit] = {place: _added(difference) for place, difference in moved.items()}
    seen: dict[str, Tensor] = {}
    output = forward(graph.recording.model, graph.recording.inputs, ActiveTap(["final_norm"], edits, seen.__setitem__))
    return graph.readers @ seen["final_norm"][0, -1], output[0, -1]


def _added(difference: Tensor) -> Edit:
    return lambda x: x + difference


def _written(graph: AttributionGraph, name: str) -> tuple[str, int, Tensor]:
    """Where a node writes, at which token, and what.

    Raises:
        InputError: a node that writes nothing.
    """
    run = graph.run
    number = graph.names.index(name)
    where, _, position = name.partition("@")
    if name.startswith("embed@"):
        return "embed", int(position), run.embed[0, int(position)]
    if not position:
        raise InputError(f"{name} cannot be changed; take a feature, a neuron, an error or the embedding of a token")
    layer = int(where.split(".")[1])
    if where.endswith(".error"):
        return f"layers.{layer}.mlp_out", int(position), run.errors[layer, int(position)]
    return f"layers.{layer}.mlp_out", int(position), run.writes[number]
