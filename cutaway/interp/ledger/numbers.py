"""The ledger of any number of a run, and the matrix of an attention score's pairs.

Shapes: B texts, T tokens, C channels, H heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.attention.parts import heads_of
from cutaway.interp.claims import Claims
from cutaway.interp.inputs import Text, inputs_of
from cutaway.interp.ledger.address import number_of
from cutaway.interp.ledger.layout import layout
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.nonlinear import integrated, shapley
from cutaway.interp.ledger.opening import game_of, opened
from cutaway.interp.ledger.parts import Attention
from cutaway.interp.ledger.reading import Run
from cutaway.interp.ledger.scores import Score
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import Matrix
from cutaway.interp.suggest import of_ledger
from cutaway.interp.target import target_of
from cutaway.models import Model
from cutaway.models.model import Source

WAYS = ("frozen", "shapley", "integrated")  # through what is not linear
LARGE = ("q", "k", "scores")  # activations that are read for scores and patterns alone


def needed(model: Model, what: str = "logits") -> list[str]:
    """The names of the activations that a ledger of a number reads at any of its levels."""
    names, last = model.network.tap_names(), what.rsplit(".", 1)[-1]
    if last in ("scores", "pattern"):
        return names
    return [name for name in names if name == what or name.rsplit(".", 1)[-1] not in LARGE]


@torch.no_grad()
def ledger(
    model: Recording | Model,
    text: Text = "",
    what: str = "logits",
    *,
    source: Source | Sequence[str] | None = None,
    position: int = -1,
    token: str | int | None = None,
    minus: str | int | None = None,
    head: int | None = None,
    index: int | Tensor | None = None,
    quantity: str = "logit",
    row: int = 0,
    nonlinear: str = "frozen",
    samples: int = 64,
    seed: int = 0,
) -> Ledger:
    """Open one number of a run into the terms that sum to it.

    Args:
        model: a model with a text; or a recording, whose run (with its edits, if it was edited) is opened.
        text: what the model reads.
        what: the name of an activation; "logits" is the model's output, whatever its head makes.
        source: what an encoder–decoder reads.
        position: of which token, -1 is the last; of "logits" after which. Of scores and patterns it is the query's;
            of names that begin with "encoder." and of keys and values of the source it is one of the source.
        token: of "logits" which one: a token as text or id, a label or channel; None takes the likeliest.
        minus: another one, which is subtracted: why the one rather than the other.
        head: of names that end in q, k, v, z, scores or pattern, which head.
        index: which number of the last dimension: channel, neuron, unit, or of scores and patterns the key. A vector
            (C,) instead reads all of them: its product with them is opened, such as along a probe.
        quantity: of "logits", "logit" or "logprob", whose normaliser is a term.
        row: of a batch, which text.
        nonlinear: how what is not linear between the parts and the number is passed: "frozen" holds it at what it was,
            and every term opens; "shapley" (sampled) and "integrated" attribute through the last of it, the final norm
            and all behind it, or into an MLP its norm, gate and activation.
        samples: orders that are drawn for "shapley", or nodes of "integrated".
        seed: of the orders.

    Returns:
        The terms in float64. For a model in float32 their sum is within 1e-4 of the number, in float64 within 1e-9,
        relative to the largest of them.

    Raises:
        InputError: a name, position, head or index that is not there; a token that is not one token; a score that the
            query does not see.
        LedgerError: the terms do not add up.
    """
    if nonlinear not in WAYS:
        raise ConfigError(unknown("way through what is not linear", nonlinear, WAYS))
    asked = {"position": position, "token": token, "minus": minus, "head": head, "index": index, "quantity": quantity}
    options = {"what": what, "source": source, **asked, "row": row, "nonlinear": nonlinear}
    options |= {"samples": samples, "seed": seed} if nonlinear != "frozen" else {}
    drawn = seed if nonlinear == "shapley" else None
    clock = _clock(model, text, "ledger", options)
    run = _run(model, text, what, source, row, clock, drawn)
    number = number_of(run, what, **asked)
    if nonlinear == "frozen":
        made = opened(run, number)
        claims = partial(_claims, run, made, token, minus, position) if what == "logits" else None
    else:
        game, claims = game_of(run, number), None
        made = shapley(run, game, samples, seed) if nonlinear == "shapley" else integrated(run, game, samples)
    took = replace(run.receipt, milliseconds=clock.receipt().milliseconds)
    return replace(made, claims=claims, receipt=took)


def _claims(run: Run, made: Ledger, token: str | int | None, minus: str | int | None, position: int) -> Claims:
    """What the terms of an output say of the parts: that without them it is so much less."""
    recording = run.recording
    inputs = recording.inputs.rows(run.row, run.row + 1)
    output = recording.logits[run.row : run.row + 1]
    target = target_of(recording.model, inputs, token=token, minus=minus, position=position, output=output)
    return of_ledger(recording, inputs, target, {term.name: term.value for term in made.terms})


def _clock(model: Recording | Model, text: Text, function: str, options: dict[str, Any]) -> Clock:
    """Started; options that are as they are unless told otherwise are left out of the code."""
    usual = {"what": "logits", "position": -1, "quantity": "logit", "row": 0, "nonlinear": "frozen"}
    options = {name: value for name, value in options.items() if name not in usual or value != usual[name]}
    recorded = isinstance(model, Recording)
    return Clock(model.model if recorded else model, function, model if recorded else text, **options)


def _run(
    model: Recording | Model,
    text: Text,
    what: str,
    source: Source | Sequence[str] | None,
    row: int,
    clock: Clock,
    seed: int | None = None,
) -> Run:
    """A run with all that is read of it.

    Raises:
        InputError: no such activation or row.
    """
    names = (model.model if isinstance(model, Recording) else model).network.tap_names()
    if what != "logits" and what not in names:
        raise InputError(unknown("recorded activation", what, names))
    inputs = model.inputs if isinstance(model, Recording) else inputs_of(model, text, source)
    if not 0 <= row < len(inputs):
        raise InputError(f"there are {len(inputs)} texts, 0 … {len(inputs) - 1}, but row {row} was asked for")
    if isinstance(model, Recording):
        recording = recording_of(model, "", needed(model.model, what))
    else:  # only what is opened has to run
        recording, row = recording_of(model, inputs.rows(row, row + 1), needed(model, what)), 0
    vectors = getattr(recording.model.config, "head", "") in ("none", "embedding")  # whose channels have no unit
    unit = "logits" if what == "logits" and not vectors else "nats" if what.endswith("pattern") else ""
    run = Run(recording, row, unit)
    known = recording.receipt
    run.receipt = clock.receipt(difference=known.difference, bytes=known.bytes, seed=seed)
    return run


@torch.no_grad()
def score_pairs(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    part: str | None = None,
    layer: int = 0,
    head: int = 0,
    position: int = -1,
    key: int | None = None,
    row: int = 0,
) -> Matrix:
    """An attention score as all pairs of what the query and what the key is made of.

    Args:
        model: a model with a text; or a recording.
        text: what the model reads.
        source: what an encoder–decoder reads.
        part: of an encoder–decoder whose scores: "decoder" (also if None), "encoder", or "cross".
        layer: from 0.
        head: of it, from 0.
        position: the query's.
        key: the key's; None: that of the largest score.
        row: of a batch, which text.

    Returns:
        Rows are what fed the query, columns what fed the key, in the unit of the score. They sum to it but for what a
        distance (T5) or an edit of the score itself adds; the receipt's gap says by how much they miss it.

    Raises:
        InputError: as in `ledger`.
        ConfigError: a model without attention, or without that part.
    """
    heads = heads_of(model.model if isinstance(model, Recording) else model, part)
    heads.check(layer, head)
    what = heads.name(layer, "scores")
    options = {"source": source, "part": part, "layer": layer, "head": head, "position": position, "key": key}
    run = _run(model, text, what, source, row, _clock(model, text, "score_pairs", options | {"row": row}))
    query = number_of(run, what, position=position, head=head, index=-1).place
    assert query is not None
    if key is None:
        place = int(run.heads(what)[head, query].argmax())
    else:
        place = number_of(run, what, position=position, head=head, index=key).key
    made = layout(heads.network)
    attention = made.parts[what.removesuffix(".scores")]
    assert isinstance(attention, Attention)
    score = Score(run, made, attention, head, query, place)
    rows, columns, values = score.pairs()
    receipt = replace(run.receipt, gap=abs(float(values.sum()) - (score.used - score.distance)))
    return Matrix(score.what, "score", rows, columns, values.float(), "query", "key", receipt=receipt)
