"""Patterns weighted by what is fetched: a large weight on a small value moves little.

Shapes: L layers, H heads, K key/value heads, T queries, S keys, C channels, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cutaway.errors import ConfigError, unknown
from cutaway.interp.attention.parts import Heads, heads_of
from cutaway.interp.attention.patterns import choose
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import Attention
from cutaway.models import Model
from cutaway.models.model import Source

BY = ("output", "value")


@dataclass(frozen=True)
class ValueWeighted(Attention):
    """Where what heads write comes from. `patterns` are `weights` with rows made to sum to 1.

    Attributes:
        weights: (L, H, T, S) float32, pattern times the length of what is fetched, as it is.
    """

    weights: Float[Tensor, "L H T S"] = field(default_factory=lambda: torch.zeros(0, 0, 0, 0), repr=False)


def fetched(heads: Heads, recording: Recording, layer: int, by: str) -> Float64[Tensor, "H S"]:
    """The length of what each head of a layer fetches from each token of the first text, at a weight of 1."""
    _, H, K, _ = heads.shape
    values = recording[heads.name(layer, "v")][0].double().repeat_interleave(H // K, dim=0)  # (H, S, D)
    if by == "output":
        values = values @ heads.writing(layer, folded=False).transpose(-1, -2)  # (H, S, C)
    return values.norm(dim=-1)


def shared(weights: Float[Tensor, "... S"]) -> Float[Tensor, "... S"]:
    """Rows made to sum to 1."""
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


@torch.no_grad()
def value_weighted(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | None = None,
    part: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    by: str = "output",
) -> ValueWeighted:
    """Every head's pattern times the length of what it fetches from each token (Kobayashi et al. 2020).

    Heads often rest on the first token or on a separator whose value is nearly zero: the pattern is large there and
    this is not.

    Args:
        model: a model with a text, or a recording.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target.
        part: "decoder", "encoder" or "cross", as in `attention`.
        layer: whose head to show large; None takes the layer of the sharpest.
        head: which of its heads; None takes the sharpest.
        by: "output": the length of pattern · value · W_O, what is written to the stream (before a norm behind it);
            "value": that of pattern · value.

    Raises:
        ConfigError: a model without attention or that part, or an unknown `by`.
        InputError: empty text, more tokens than the context, or a layer or head that is not there.
    """
    run = model.model if isinstance(model, Recording) else model
    if by not in BY:
        raise ConfigError(unknown("length to weigh by", str(by), BY))
    heads = heads_of(run, part)
    heads.check(layer, head)
    options = {"source": source, "part": part, "layer": layer, "head": head, "by": by}
    clock = Clock(run, "value_weighted", model if isinstance(model, Recording) else text, **options)
    names = [heads.name("*", "pattern"), heads.name("*", "v")]
    recording = recording_of(model, text, names, source=source, first=True)
    lengths = torch.stack([fetched(heads, recording, layer, by) for layer in range(heads.shape[0])])
    weights = heads.patterns(recording).float() * lengths.float()[:, :, None]
    shares = shared(weights)
    receipt = clock.receipt(difference=recording.receipt.difference, bytes=recording.receipt.bytes)
    made = ValueWeighted(
        heads.queries(recording),
        shares,
        keys=heads.keys(recording),
        causal=heads.causal,
        weights=weights,
        receipt=receipt,
    )
    return replace(made, chosen=choose(made, layer, head))
