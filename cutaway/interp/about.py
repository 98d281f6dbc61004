"""What a model is, in a few facts: for headers, pickers, and to know which analyses apply to it."""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.models import Model, Recurrent, RecurrentConfig, Seq2Seq
from cutaway.models.counts import counts


@dataclass(frozen=True)
class About:
    """What a model is.

    Attributes:
        name: where it came from.
        kind: "decoder", "encoder", "seq2seq", or of a recurrent one its cell.
        shape: in words.
        parameters: how many.
        vocabulary: tokens it knows.
        context: tokens it reads at a time.
        layers: of an encoder–decoder those of the decoder.
        heads: of a layer; 0 where there are none.
        width: channels of the residual stream, or units of a recurrent layer.
        head: what stands on top: "causal_lm", "masked_lm", "sequence_classification" …
        labels: that it chooses among, where it does.
        source: what an encoder–decoder reads: "text" or "audio"; empty of others.
        has: what can be looked at: "attention", "stream" (a residual stream), "units" (recurrent), "words" (it says
            next or missing tokens), "source", "writing" (it continues texts).
        activations: the names that can be recorded.
    """

    name: str
    kind: str
    shape: str
    parameters: int
    vocabulary: int
    context: int
    layers: int
    heads: int
    width: int
    head: str
    labels: list[str]
    source: str
    has: list[str]
    activations: list[str]


def about(model: Model) -> About:
    """The facts of a model."""
    config, network = model.config, model.network
    recurrent, reads = isinstance(network, Recurrent), isinstance(network, Seq2Seq)
    if isinstance(config, RecurrentConfig):
        kind, shape = config.cell.upper(), f"{config.layers} layers × {config.states} units"
    else:
        kind, shape = config.kind, f"{config.layers} layers × {config.heads} heads, {config.width} channels"
    head = str(getattr(config, "head", "causal_lm"))
    writes = reads or head == "causal_lm"
    has = ["units"] if recurrent else ["attention", "stream"]
    has += ["words"] if head in ("causal_lm", "masked_lm") else []
    has += ["source"] if reads else []
    has += ["writing"] if writes else []
    return About(
        name=model.source or "unsaved model",
        kind=kind,
        shape=shape,
        parameters=counts(config).total_parameters,  # quantised ones are no parameters of torch
        vocabulary=config.vocab_size,
        context=config.context,
        layers=config.layers,
        heads=0 if isinstance(config, RecurrentConfig) else config.heads,
        width=config.states if isinstance(config, RecurrentConfig) else config.width,
        head=head,
        labels=list(getattr(config, "labels", ())),
        source=str(getattr(config, "source", "")) if reads else "",
        has=has,
        activations=network.tap_names(),
    )
