"""The third lesson: how a token takes from those before it. Attention of one query; of a recurrent model its gates.

Shapes: T queries, S keys, D head dim, N units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.interp.attention.parts import heads_of
from cutaway.interp.inputs import Text
from cutaway.interp.lessons.worked import Opens, Shown, Worked, cells, chosen_in, model_of, place_in, recorded
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.models import Model, Recurrent
from cutaway.models.gru import VALUES
from cutaway.models.model import Source

MOST = 12  # keys, or steps, that are shown


@torch.no_grad()
def attention_by_hand(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    part: str | None = None,
    layer: int = 0,
    head: int = 0,
    position: int = -1,
    channel: int | None = None,
    sharpness: float = 1.0,
) -> Worked:
    """One query of one head: q·k/√d with each key, softmax, and the weighted sum of the values (Vaswani et al. 2017).

    Args:
        model: with attention.
        text: what it reads.
        source: what an encoder–decoder reads.
        part: of an encoder–decoder "decoder" (also if None), "encoder" or "cross".
        layer: from 0.
        head: of it, from 0.
        position: the query's.
        channel: of what the head makes, which number is summed; None: the largest.
        sharpness: what the scores are multiplied by before the softmax. At 1 all numbers are the model's own; the
            columns "weight", "product" and the figures "sum" and "others" follow it.

    Returns:
        A row for each of the keys of the largest weights: "dot" is q·k, "score" is that by √d (and what the model adds
        for a distance), "exp" is relative to the largest score. Figures: "scale" (1/√d), "keys" in sight, "total" of
        all exponentials, "others": what the keys that are not shown add to the "sum", which is the number of `z`.
        At sharpness 1 the receipt's gap is the largest difference from the recorded weights and number.

    Raises:
        ConfigError: a recurrent model; see `gates_by_hand`.
        InputError: no such layer, head, position or channel.
    """
    run = model_of(model)
    clock = Clock(run, "attention_by_hand", model if isinstance(model, Recording) else text, source=source, part=part,
                  layer=layer, head=head, position=position, channel=channel, sharpness=sharpness)  # fmt: skip
    heads = heads_of(run, part)
    heads.check(layer, head)
    q, k, v, scores, pattern, z = (heads.name(layer, one) for one in ("q", "k", "v", "scores", "pattern", "z"))
    recording = recording_of(model, text, [q, k, v, scores, pattern, z], source=source, first=True)
    queries, keys = heads.queries(recording), heads.keys(recording) or heads.queries(recording)
    place = place_in(position, len(queries))
    _, H, K, D = heads.shape
    group = head // (H // K)
    query, made = recorded(recording, q)[head, place], recorded(recording, z)[head, place]
    keyed, values = recorded(recording, k)[group], recorded(recording, v)[group]
    given = recorded(recording, scores)[head, place]  # (S,), -inf where a key is out of sight
    seen = given.isfinite().nonzero().flatten()
    dots, given = (keyed @ query)[seen], given[seen]
    raised = (sharpness * given - (sharpness * given).max()).exp()
    weights = raised / raised.sum()
    number = chosen_in(channel, made, "channel")
    products = weights * values[seen, number]
    order = weights.topk(min(MOST, len(seen))).indices.sort().values
    shown = seen[order].tolist()
    scale = float(getattr(heads.attention(layer), "scale", D**-0.5))
    total = float(products.sum())
    of_z: Opens = {"what": z, "position": place, "head": head, "index": number}
    figures = [
        Shown("width", D),
        Shown("scale", scale),
        Shown("keys", len(seen)),
        Shown("total", float(raised.sum())),
        Shown("others", total - float(products[order].sum())),
        Shown("sum", total, of_z if sharpness == 1 else None),
        Shown("recorded", float(made[number]), of_z),
    ]
    rows = cells(shown, [keys[s] for s in shown], dots[order], given[order], raised[order], weights[order],
                 values[shown, number], products[order])  # fmt: skip
    gap = None
    if sharpness == 1:
        known = recorded(recording, pattern)[head, place][seen]
        gap = max(float((weights - known).abs().max()), abs(total - float(made[number])))
    return Worked(
        "attention of one query", ["key", "token", "dot", "score", "exp", "weight", "value", "product"], rows, figures,
        {"query": queries[place], "channel": str(number), "part": heads.part},
        {"score": _opens(scores, place, head, shown), "weight": _opens(pattern, place, head, shown) if gap is not None
         else [None] * len(shown), "value": _values(v, group, shown, number)},
        tokens=queries, places=list(range(len(queries))), place=place,
        receipt=clock.receipt(gap=gap, bytes=recording.receipt.bytes),
    )  # fmt: skip


def _opens(what: str, place: int, head: int, keys: Sequence[int]) -> list[Opens | None]:
    return [{"what": what, "position": place, "head": head, "index": key} for key in keys]


def _values(what: str, head: int, keys: Sequence[int], number: int) -> list[Opens | None]:
    return [{"what": what, "position": key, "head": head, "index": number} for key in keys]


@torch.no_grad()
def gates_by_hand(
    model: Recording | Model,
    text: Text = "",
    *,
    layer: int = 0,
    unit: int | None = None,
    position: int = -1,
    gate: float | None = None,
) -> Worked:
    """One unit of a recurrent model at one token: its gates, and the state that they make of the one before.

    A GRU (Cho et al. 2014) keeps the share z of its state and takes 1 − z of a candidate; an LSTM (Hochreiter &
    Schmidhuber 1997) keeps f of its cell, adds i of a candidate, and shows o of it.

    Args:
        model: recurrent.
        text: what it reads.
        layer: from 0.
        unit: of it; None: the one of the largest state.
        position: of the token.
        gate: a value for the gate that keeps ("update" or "forget"), 0 … 1, instead of its own; None: its own.

    Returns:
        A row for each of the last tokens up to the position, with the cell's values. Figures: the values at the
        position, the state "before", the state that follows from them, "made", and "recorded", the model's own.

    Raises:
        ConfigError: a model with attention.
        InputError: no such layer, unit or position.
    """
    run = model_of(model)
    if not isinstance(run.network, Recurrent):
        raise ConfigError("only a recurrent model has gates: look at its attention (attention_by_hand) instead")
    cell = run.network.config.cell
    names = [f"layers.{layer}.{value}" for value in VALUES[cell]]
    clock = Clock(run, "gates_by_hand", model if isinstance(model, Recording) else text, layer=layer, unit=unit,
                  position=position, gate=gate)  # fmt: skip
    recording = recording_of(model, text, names, first=True)
    values = {value: recorded(recording, name) for value, name in zip(VALUES[cell], names, strict=True)}
    place = place_in(position, len(recording.tokens))
    number = chosen_in(unit, values["hidden"][place], "unit")
    own: dict[str, Tensor] = {value: numbers[:, number] for value, numbers in values.items()}
    now = {value: float(numbers[place]) for value, numbers in own.items()}
    carried = "hidden" if cell == "gru" else "cell"
    before = float(own[carried][place - 1]) if place else 0.0
    keeps = "update" if cell == "gru" else "forget"
    used = now | ({} if gate is None else {keeps: gate})
    if cell == "gru":
        made = (1 - used["update"]) * used["candidate"] + used["update"] * before
    else:
        inside = used["forget"] * before + used["input"] * used["candidate"]
        made = used["output"] * float(torch.tanh(torch.tensor(inside, dtype=torch.float64)))
    steps = list(range(max(0, place + 1 - MOST), place + 1))
    ledgers: dict[str, list[Opens | None]] = {
        value: [{"what": name, "position": step, "index": number} for step in steps]
        for value, name in zip(VALUES[cell], names, strict=True)
    }
    told = [value for value in VALUES[cell] if value != "hidden" and (value != "cell" or gate is None)]
    figures = [
        Shown(value, used[value], None if gate is not None and value == keeps else ledgers[value][-1]) for value in told
    ]
    figures += [
        Shown("before", before),
        Shown("made", made),
        Shown("recorded", now["hidden"], ledgers["hidden"][-1]),
    ]
    rows = cells(steps, [recording.tokens[step] for step in steps], *(numbers[steps] for numbers in own.values()))
    gap = abs(made - now["hidden"]) if gate is None else None
    return Worked(
        "gates of one unit", ["position", "token", *VALUES[cell]], rows, figures,
        {"token": recording.tokens[place], "unit": str(number), "cell": cell}, ledgers,
        tokens=recording.tokens, places=list(range(len(recording.tokens))), place=place,
        receipt=clock.receipt(gap=gap, bytes=recording.receipt.bytes),
    )  # fmt: skip
