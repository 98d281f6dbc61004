"""A recording of everything in little memory: streams are kept, and what lies inside a layer is formed when it is read.

Patterns alone take tokens² numbers for each head: 1 GB for 1,000 tokens of a model with 270 heads. But each layer
begins with a stream that is small, and a network that begins there (`resume`) computes the same numbers again. So a
long text costs its streams, and a few layers that were read last.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.interp.inputs import Inputs, Text, evaluating, inputs_of
from cutaway.interp.memory import predicted_bytes
from cutaway.interp.receipt import Clock
from cutaway.interp.record import LIMIT, Recording, record
from cutaway.models import ActiveTap, Model, Recurrent, Seq2Seq
from cutaway.models.model import Source
from cutaway.training.memory import give_back

ROOM = 2**28  # bytes of activations that stay formed
LAYER = re.compile(r"((?:encoder\.)?layers\.(\d+))\.(.+)")
STREAMS = ("resid_pre", "resid_post")  # one tensor each time: a layer begins with what the one before it left
SQUARE = ("scores", "pattern")  # tokens² numbers for each head, each formed only where it is asked for
WROTE = ("z", "attn_out", "cross_attn_out", "mlp_out")  # what ledgers read of every layer: kept too while there is room


class Enough(Exception):
    """Everything that was asked for has been computed."""


class Formed(Mapping[str, Tensor]):
    """Activations by name, in the order of computation; those inside a layer are computed when they are read.

    Safe to read from several threads.

    Attributes:
        model: whose they are.
        inputs: what it read.
        kept: streams, and what is outside the layers.
        room: bytes of activations that stay after they were read; those read longest ago go first.
    """

    def __init__(
        self, model: Model, inputs: Inputs, kept: Mapping[str, Tensor], formed: Mapping[str, Tensor], room: int
    ) -> None:
        self.model, self.inputs, self.room = model, inputs, room
        self._names = model.network.tap_names()
        self._known = frozenset(self._names)
        self.kept = dict(kept)
        self._formed = OrderedDict(formed)
        self._lock = RLock()

    def __getitem__(self, name: str) -> Tensor:
        if name in self.kept:
            return self.kept[name]
        if name not in self._known:
            raise KeyError(name)
        with self._lock:
            if name not in self._formed:
                self._form(name)
            self._formed.move_to_end(name)
            return self._formed[name]

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def bytes(self) -> int:
        """What they take now."""
        return sum(size_of(value) for value in (*self.kept.values(), *self._formed.values()))

    def _form(self, name: str) -> None:
        """Compute what is asked for, with what comes beside it at no cost."""
        names = self._beside(name)
        found: dict[str, Tensor] = {}

        def take(one: str, value: Tensor) -> None:
            found[one] = value
            if one == names[-1]:
                raise Enough

        with torch.no_grad(), evaluating(self.model), suppress(Enough):
            self._resume(name, ActiveTap(names, {}, take))
        held = sum(map(size_of, {**self._formed, **found}.values()))
        while self._formed and held > self.room:
            oldest, value = self._formed.popitem(last=False)
            held -= 0 if oldest in found else size_of(value)
        self._formed |= found
        give_back()

    def _beside(self, name: str) -> list[str]:
        """Names of the same layer that are computed up to this one anyway; all that is not square, and it."""
        layer, inside = _parts(name)
        same = [one for one in self._names if one.startswith(f"{layer}.") and one not in self.kept]
        if ".attn." not in f".{inside}" and ".cross_attn." not in f".{inside}":
            return [one for one in same if not one.endswith(SQUARE)]
        upto = same[: same.index(name) + 1]
        return [one for one in upto if one == name or not one.endswith(SQUARE)]

    def _resume(self, name: str, tap: ActiveTap) -> None:
        layer, inputs = int(LAYER.fullmatch(name)[2]), self.inputs  # pyright: ignore[reportOptionalSubscript]
        network: Any = self.model.network
        given: dict[str, Any] = {} if inputs.mask is None else {"mask": inputs.mask}
        stream = self.kept[f"{_parts(name)[0]}.resid_pre"]
        if not isinstance(network, Seq2Seq):
            given |= {} if inputs.token_types is None else {"token_types": inputs.token_types}
            network.resume(layer, stream, stop=layer + 1, tap=tap, **given)
        elif name.startswith("encoder."):
            network.encode_on(layer, stream, mask=inputs.source_mask, tap=tap)
        else:
            given |= {} if inputs.source_mask is None else {"source_mask": inputs.source_mask}
            network.resume(layer, stream, states=self.kept[heard(network)], tap=tap, **given)


def recall(
    model: Model, text: Text, *, source: Source | Sequence[str] | None = None, room: int = ROOM, limit: int = LIMIT
) -> Recording:
    """A recording of every activation that takes little memory, whatever the length of the text.

    Streams, what is before the first layer and what is behind the last one are kept. What lies inside a layer is
    computed again from the layer's stream when it is read, which takes the time of that layer; what was read last
    stays, and at first what each part has written, if there is room for it. It is given out as it is, and so must not
    be changed.

    Args:
        model: what to run.
        text: as in `record`.
        source: what an encoder–decoder reads.
        room: bytes of activations inside layers that may stay. The receipt states them with the streams.
        limit: bytes that one layer's patterns may take while they are computed.

    Raises:
        InputError: as in `record`; or one layer's patterns would take more than the limit.
        NonFinite: as in `record`.
    """
    clock = Clock(model, "recall", text, source=source)
    inputs = inputs_of(model, text, source)
    network, names = model.network, model.network.tap_names()
    if isinstance(network, Recurrent):  # its layers are as small as their streams
        return record(model, inputs)
    kept = [name for name in names if not LAYER.fullmatch(name) or name.endswith(STREAMS)]
    rows, tokens = inputs.ids.shape
    read = 0 if inputs.source is None else inputs.source.shape[-1]
    squares = [one for one in names if one.endswith("pattern")]
    largest = max(predicted_bytes(model.config, [one], rows, tokens, source=read) for one in squares)
    if 3 * largest > limit:  # scores, what is seen of them, the pattern
        raise InputError(
            f"the pattern of one layer of {tokens:,} tokens takes {largest / 2**20:,.0f} MB, and three times as much "
            f"while it is computed, above the limit of {limit / 2**20:,.0f} MB; shorten the text"
        )
    wrote = [name for name in names if name not in kept and name.rsplit(".", 1)[-1] in WROTE]
    size = max(4, next(network.parameters()).element_size())
    if predicted_bytes(model.config, wrote, rows, tokens, size, source=read) > room:
        wrote = []
    run = record(model, inputs, [*kept, *wrote])
    streams = {name: run[name] for name in kept}
    values = Formed(model, inputs, streams, {name: run[name] for name in wrote}, room)
    receipt = clock.receipt(bytes=sum(map(size_of, streams.values())) + room)
    return Recording(model, inputs, run.logits, values, replace(receipt, difference=run.receipt.difference), {})


def size_of(value: Tensor) -> int:
    """Its bytes."""
    return value.numel() * value.element_size()


def _parts(name: str) -> tuple[str, str]:
    """An activation's layer, and its name there."""
    found = LAYER.fullmatch(name)
    assert found is not None
    return found[1], found[3]


def heard(network: Seq2Seq) -> str:
    """What the decoder reads of the encoder."""
    before = network.config.norm_place == "before"
    return f"encoder.{'final_norm' if before else f'layers.{network.config.encoder_layers - 1}.resid_post'}"
