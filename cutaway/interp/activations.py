"""What was recorded of a text, as a tree, and the numbers of one activation, each of which has its ledger.

Shapes: B texts, T tokens, H heads, C numbers of the last dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.inputs import Text
from cutaway.interp.ledger.address import BY_HEAD, OF_SOURCE
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import Matrix
from cutaway.interp.strips import TensorEntry, Tensors, children, strips
from cutaway.interp.target import name_of
from cutaway.interp.weights.listing import listed
from cutaway.models import Model
from cutaway.models.model import Source

WHOLE = "whole text"  # the row of what has no positions


@dataclass(frozen=True)
class Numbers(Matrix):
    """Some of the numbers of an activation: a row for each position.

    Attributes:
        name: of the activation.
        head: which head; None where it has none.
        heads: how many it has; 0 where it has none.
        first: which column is the first of those here.
        size: columns in all.
        shape: of the whole activation, of one text.
    """

    name: str = ""
    head: int | None = None
    heads: int = 0
    first: int = 0
    size: int = 0
    shape: tuple[int, ...] = ()


def activations(
    model: Recording | Model, text: Text = "", *, source: Source | Sequence[str] | None = None, branch: str = ""
) -> Tensors:
    """What a branch of the recorded activations holds, with the shape of each and the spread of its numbers.

    Args:
        model: a model with a text; or a recording.
        text: what the model reads; of several texts the first.
        source: what an encoder–decoder reads.
        branch: such as "layers.0" or "layers.0.attn"; "" is the root.

    Returns:
        A row for each branch and activation in it, in the order of computation. Rows of a strip are positions (of all
        heads, where there are heads), columns the numbers at a position.

    Raises:
        ConfigError: no such branch; near matches are named.
        InputError: empty text or more than the context.
    """
    recorded = isinstance(model, Recording)
    run = model.model if recorded else model
    options = {"source": source, "branch": branch or None}
    clock = Clock(run, "activations", model if recorded else text, **options)
    inside = children(run.network.tap_names(), branch)
    recording = recording_of(model, text, run.network.tap_names(), source=source, first=True)
    seen = {name: strips(recording[name][0]) for name, names in inside.items() if names == [name]}
    entries = []
    for name, names in inside.items():
        count = sum(recording[one][0].numel() for one in names)
        if name in seen:
            tensor = recording[name][0]
            dtype = str(tensor.dtype).removeprefix("torch.")
            entries.append(TensorEntry(name, True, list(tensor.shape), dtype, count, seen[name][0]))
        else:
            entries.append(TensorEntry(name, False, [], "", count, None))
    return listed(f"activations of {branch or 'the text'}", branch, entries, seen, clock)


def activation(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    name: str = "",
    head: int | None = None,
    first: int = 0,
    most: int = 64,
) -> Numbers:
    """The numbers of one recorded activation: a row for each position, a column for each number there.

    `ledger(model, text, name, position=row, index=column)` opens any of them (of "logits" `token=column`).

    Args:
        model: a model with a text; or a recording.
        text: what the model reads; of several texts the first.
        source: what an encoder–decoder reads.
        name: of the activation; "" is the first of all, the embedding.
        head: of queries, keys, values, scores, patterns and what a head makes, which head; None takes the first.
        first: the first column that is returned.
        most: how many columns at the most.

    Raises:
        ConfigError: no such activation; near matches are named.
        InputError: empty text or more than the context, or a head or column that is not there.
    """
    recorded = isinstance(model, Recording)
    run = model.model if recorded else model
    known = run.network.tap_names()
    chosen = name or known[0]
    if chosen not in known:
        raise ConfigError(unknown("activation", chosen, known))
    if most < 1:
        raise InputError(f"most must be at least 1, but {most} was given")
    options = {"source": source, "name": chosen, "head": head, "first": first or None, "most": most}
    clock = Clock(run, "activation", model if recorded else text, **options)
    recording = recording_of(model, text, [chosen], source=source, first=True)
    value = recording[chosen][0]
    last = chosen.rsplit(".", 1)[-1]
    shape, heads = tuple(value.shape), 0
    if last in BY_HEAD:
        heads, head = value.shape[0], head or 0
        if not 0 <= head < heads:
            raise InputError(f"{chosen} has heads 0 … {heads - 1}, but {head} was asked for")
        value = value[head]
    elif head is not None:
        raise InputError(f"{chosen} has no heads, but head {head} was asked for: leave head out")
    if value.ndim == 1:  # of a whole text, or of a head that gives each token one number
        value = value[:, None] if getattr(run.config, "head", "") == "replaced_token" else value[None]
    size = value.shape[-1]
    if not 0 <= first < size:
        raise InputError(f"{chosen} has {size} numbers at a position, 0 … {size - 1}, but first={first} was given")
    shown = value[:, first : first + most].float()
    shown = shown.where(shown.isfinite(), torch.nan)
    places = _tokens(recording, chosen)
    columns = _columns(recording, chosen, first, shown.shape[1])
    rows = places if len(places) == len(shown) else [WHOLE]
    axis = "key" if last in ("scores", "pattern") else "token" if chosen == "logits" else "number"
    what = chosen if head is None else f"{chosen} of head {head}"
    return Numbers(what, "", rows, columns, shown, "position", axis, chosen != "pattern", chosen, head, heads, first,
                   size, shape, receipt=clock.receipt(bytes=recording.receipt.bytes))  # fmt: skip


def _tokens(recording: Recording, name: str) -> list[str]:
    return recording.source_tokens if OF_SOURCE.fullmatch(name) else recording.tokens


def _columns(recording: Recording, name: str, first: int, count: int) -> list[str]:
    """What the columns are called: keys, answers, or their numbers."""
    last = name.rsplit(".", 1)[-1]
    places = range(first, first + count)
    if last in ("scores", "pattern"):
        of_source = name.startswith("encoder.") or ".cross_attn." in name
        keys = recording.source_tokens if of_source else recording.tokens
        return [keys[i] for i in places]
    if name == "logits" and getattr(recording.model.config, "head", "causal_lm") not in ("none", "embedding"):
        return [name_of(recording.model, i) for i in places]
    return [str(i) for i in places]
