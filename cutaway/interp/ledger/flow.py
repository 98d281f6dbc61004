"""Where along the way a logit comes about: its ledger, gathered into the stages of the residual stream.

A transformer adds to its stream layer by layer: attention, MLP. A recurrent model has no stream, but carries a state
from token to token, so its stages are the steps. Either way the stages' values sum to the number, and each stage names
the terms of the ledger that it is made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from cutaway.errors import InputError
from cutaway.interp.inputs import Text, inputs_of
from cutaway.interp.ledger.ledger import Ledger, Term
from cutaway.interp.ledger.numbers import ledger, needed
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, record
from cutaway.interp.results import Cell, Table
from cutaway.interp.target import at_position, name_of, target_of
from cutaway.models import Model, Recurrent
from cutaway.models.model import Source

LIKELIEST = 8  # answers that are listed
MOST_UNITS = 16  # of a step that are listed one by one, the largest
LAYERED = re.compile(r"(?P<layer>layers\.(?P<number>\d+))\.(?P<part>[a-z_]+)")
KINDS = {"head": "attention", "attn": "attention", "cross_head": "cross-attention", "cross_attn": "cross-attention"}
KINDS |= {"mlp": "mlp", "expert": "mlp"}
UNIT = re.compile(r"layers\.\d+\.(?:back\.)?unit\.\d+")


@dataclass(frozen=True)
class FlowPart:
    """A term of a stage.

    Attributes:
        name: as in the ledger.
        label: to be read, such as a token.
        value: what it adds.
        path: from the number's ledger to it: `ledger(...).path(*path)` opens it, where it opens.
        opens: whether it does.
    """

    name: str
    label: str
    value: float
    path: list[str]
    opens: bool


@dataclass(frozen=True)
class Stage:
    """A stage on the way.

    Attributes:
        name: "embedding", "layers.3.attention", "layers.3.mlp", "step.4", "output".
        kind: "embedding", "attention", "cross-attention", "mlp", "edit", "step" or "output".
        layer: its layer; of a step its position; -1 of the others.
        label: to be read, such as a step's token.
        value: what it adds.
        after: the sum up to here.
        parts: what it is made of, in the order of computation; of a step the largest units.
    """

    name: str
    kind: str
    layer: int
    label: str
    value: float
    after: float
    parts: list[FlowPart]


@dataclass(frozen=True)
class Flow(Table):
    """How a number comes about, stage by stage.

    Attributes:
        unit: of the number.
        total: the number as the model computed it.
        position: where it was asked for; None of an answer to a whole text that no token is chosen for.
        tokens: of the text, to be read.
        stages: in the order of computation; their values sum to the total.
        likeliest: the answers there with their probabilities, likeliest first; none where the model gives vectors.
    """

    unit: str
    total: float
    position: int | None
    tokens: list[str]
    stages: list[Stage]
    likeliest: list[tuple[str, float]]


@torch.no_grad()
def logit_flow(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    position: int = -1,
    token: str | int | None = None,
    minus: str | int | None = None,
) -> Flow:
    """How a logit comes about along the residual stream, or along the steps of a recurrent model.

    Args:
        model: a model with a text; or a recording.
        text: what the model reads.
        source: what an encoder–decoder reads.
        position: after which token, -1 is the last. Of a model that pools the tokens of a text it chooses whose part
            is shown, -1 that of the token which adds most.
        token: the answer: a token as text or id, a label or channel; None takes the likeliest.
        minus: another one, which is subtracted: why the one rather than the other.

    Returns:
        A row for each stage: what it adds, and the sum so far. All that is not linear is held at what it was, as in
        `ledger`; the receipt's gap is the rounding error.

    Raises:
        InputError, LedgerError: as in `ledger`.
    """
    options = {"source": source, "position": position, "token": token, "minus": minus}
    told = {name: value for name, value in options.items() if (name, value) != ("position", -1)}
    recorded = isinstance(model, Recording)
    clock = Clock(model.model if recorded else model, "logit_flow", model if recorded else text, **told)
    run = model if recorded else record(model, inputs_of(model, text, source).rows(0, 1), needed(model))
    opened = ledger(run, position=position, token=token, minus=minus)
    whole, path = opened, []
    if any(term.name.startswith("token.") for term in opened.terms):  # of a text that is pooled, one token's part
        path = [_pooled(opened, position)]
        opened = opened.path(*path)
    recurrent = isinstance(run.model.network, Recurrent)
    gathered = _steps(opened, path) if recurrent else _layers(opened.terms, path)
    stages, after = [], 0.0
    for (name, kind, layer, label), parts in gathered:
        value = sum(part.value for part in parts)
        after += value
        kept = sorted(parts, key=lambda part: -abs(part.value))[:MOST_UNITS] if kind == "step" else parts
        stages.append(Stage(name, kind, layer, label, value, after, kept))
    asked = target_of(run.model, run.inputs.rows(0, 1), token=token, minus=minus, position=position, output=run.logits)
    place = None if asked.position is None else int(run.inputs.places(asked.position)[0])
    what, likeliest = whole.what, _likeliest(run, asked.position)
    if path:
        place = int(path[0].removeprefix("token."))
        what = f"{what}, the part of “{run.tokens[place]}” ({place})"
    rows: list[list[Cell]] = [[_said(stage), stage.value, stage.after] for stage in stages]
    receipt = clock.receipt(gap=abs(after - opened.total), bytes=run.receipt.bytes, difference=run.receipt.difference)
    columns = ["stage", f"adds ({whole.unit})" if whole.unit else "adds", "sum so far"]
    return Flow(what, columns, rows, whole.unit, opened.total, place, run.tokens, stages, likeliest,
                claims=whole.claims, receipt=receipt)  # fmt: skip


Key = tuple[str, str, int, str]  # name, kind, layer and label of a stage


def _pooled(whole: Ledger, position: int) -> str:
    """The term of the token that is shown."""
    names = [term.name for term in whole.terms if term.name.startswith("token.")]
    if position == -1:
        return max(names, key=lambda name: abs(whole[name].value))
    if f"token.{position}" not in names:
        raise InputError(f"the text's tokens are 0 … {len(names) - 1}, but position {position} was asked for")
    return f"token.{position}"


def _layers(terms: Iterable[Term], path: list[str]) -> list[tuple[Key, list[FlowPart]]]:
    """The terms of a stream by layer and kind, in the order of computation."""
    made: dict[Key, list[FlowPart]] = {}
    layered = False
    for term in terms:
        key: Key = ("output", "output", -1, "") if layered else ("embedding", "embedding", -1, "")
        if found := LAYERED.match(term.name):
            layered, part = True, found["part"]
            kind = next((KINDS[word] for word in KINDS if part == word or part.startswith(f"{word}_")), "edit")
            key = f"{found['layer']}.{kind}", kind, int(found["number"]), ""
        made.setdefault(key, []).append(_part(term, term.label, path))
    return list(made.items())


def _steps(opened: Ledger, path: list[str]) -> list[tuple[Key, list[FlowPart]]]:
    """The units of a state by the step that wrote them, first to last, and what is no unit behind them."""
    made: dict[int, tuple[Key, list[FlowPart]]] = {}
    rest: list[FlowPart] = []
    for unit in opened.terms:
        if not UNIT.fullmatch(unit.name):
            rest.append(_part(unit, unit.label, path))
            continue
        for term in opened.expand(unit).terms:
            step = int(term.name.split(".")[1])
            key = f"step.{step}", "step", step, term.label
            made.setdefault(step, (key, []))[1].append(
                FlowPart(unit.name, unit.label, term.value, [*path, unit.name, term.name], term.opens)
            )
    steps = [made[step] for step in sorted(made)]
    return [*steps, (("output", "output", -1, ""), rest)] if rest else steps


def _part(term: Term, label: str, path: list[str]) -> FlowPart:
    return FlowPart(term.name, label, term.value, [*path, term.name], term.opens)


def _said(stage: Stage) -> str:
    """A stage, to be read."""
    if stage.kind == "step":
        return f"step {stage.layer} “{stage.label}”"
    return stage.kind if stage.layer < 0 else f"layer {stage.layer} {stage.kind}"


def _likeliest(run: Recording, position: int | None) -> list[tuple[str, float]]:
    logits = run.logits[:1]
    row = logits[0] if position is None else at_position(logits, run.inputs.rows(0, 1), position)[0]
    if row.ndim != 1 or len(row) < 2 or getattr(run.model.config, "head", "") in ("none", "embedding"):
        return []
    chances, ids = row.softmax(-1).topk(min(LIKELIEST, len(row)))
    return [(name_of(run.model, i), p) for i, p in zip(ids.tolist(), chances.tolist(), strict=True)]
