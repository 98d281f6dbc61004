"""A recurrent model's logit as the sum over its last hidden units, and a unit as the sum over the steps that wrote it.

Shapes: T tokens, N hidden units.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float64
from torch import Tensor

from cutaway.interp.ledger.ledger import Ledger, Openers, Term
from cutaway.interp.record import Recording
from cutaway.models import Recurrent

NAMES = ("layers.*",)  # what has to be recorded


def unfold(
    network: Recurrent, recording: Recording, position: int, direction: Float64[Tensor, " N"], total: float
) -> tuple[list[Term], Openers]:
    """The terms of a logit, or of a difference of two.

    Args:
        network: the recurrent model.
        recording: of NAMES and the logits.
        position: after which token.
        direction: (N,) float64, what the output matrix reads the last hidden state with.
        total: the logit.
    """
    last = f"layers.{network.config.layers - 1}"
    inside = {
        name.removeprefix(f"{last}."): value[0, : position + 1].double()  # (T, N)
        for name, value in recording.items()
        if name.startswith(f"{last}.")
    }
    units = f"{last}.unit"
    amounts = inside["hidden"][position] * direction
    openers: Openers = {
        f"{units}.{i}": partial(_steps, recording, network.config.cell, last, inside, i, float(weight))
        for i, weight in enumerate(direction)
    }
    terms = [Term(f"{units}.{i}", value, opens=True) for i, value in enumerate(amounts.tolist())]
    if "logits" in recording.edits:
        terms.append(Term("logits.edit", total - float(amounts.sum()), "edited"))
    return terms, openers


def _steps(
    recording: Recording, cell: str, layer: str, inside: dict[str, Float64[Tensor, "T N"]], unit: int, weight: float
) -> Ledger:
    """One unit's term as the sum over steps of what was taken up there and kept until now.

    GRU: h_t = (1 - z_t) n_t + z_t h_{t-1}. LSTM: h_t = o_t tanh(c_t) with c_t = i_t g_t + f_t c_{t-1}; the last tanh
    and output gate are taken at their actual ratio h / c.
    """
    at = {name: value[:, unit] for name, value in inside.items()}  # each (T,)
    total = float(at["hidden"][-1]) * weight
    if cell == "gru":
        state, keep, taken, ratio = at["hidden"], at["update"], (1 - at["update"]) * at["candidate"], 1.0
    else:
        state, keep, taken = at["cell"], at["forget"], at["input"] * at["candidate"]
        ratio = float(at["hidden"][-1] / state[-1]) if state[-1] else 0.0
    later = torch.ones_like(keep)
    later[:-1] = keep.flip(0).cumprod(0).flip(0)[1:]  # the share of a step's value that all later steps let through
    scale = later * ratio * weight
    terms = [Term(f"step.{t}", float(taken[t] * scale[t]), recording.tokens[t]) for t in range(len(taken))]
    if f"{layer}.{'hidden' if cell == 'gru' else 'cell'}" in recording.edits:
        before = torch.cat((state.new_zeros(1), state[:-1]))
        set_ = (state - taken - keep * before) * scale
        terms += [Term(f"step.{t}.edit", value, "edited") for t, value in enumerate(set_.tolist()) if value]
    return Ledger(
        f"{layer.replace('layers.', 'layer ')} unit {unit}, by the step that wrote it",
        tuple(terms),
        total,
        receipt=recording.receipt,
    )
