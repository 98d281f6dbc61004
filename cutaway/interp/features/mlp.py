"""What a decoder's MLP reads and writes: what a transcoder stands between.

Shapes: T tokens, N rows, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, unknown
from cutaway.interp.features.dictionary import Features
from cutaway.interp.samples import Samples, samples_of
from cutaway.models import Decoder, Model


def decoder_of(model: Model, purpose: str) -> Decoder:
    """The network, as a decoder.

    Raises:
        ConfigError: it is none, and why that matters.
    """
    if not isinstance(model.network, Decoder):
        kind = model.config.kind
        why = (
            "a recurrent network has no MLPs that write into a stream"
            if kind not in ("encoder", "seq2seq")
            else "in other networks norms stand on sums, or two stacks read each other"
        )
        raise ConfigError(f"{purpose} is made for decoders: {why}")
    return model.network


def mlp_layer(model: Model, name: str) -> int:
    """The layer of an MLP called "layers.{i}.mlp".

    Raises:
        ConfigError: the network is no decoder, or has no such MLP.
    """
    network = decoder_of(model, "a transcoder of a model's MLP")
    if not network.config.mlp:
        raise ConfigError("this decoder is attention alone: it has no MLPs for which a transcoder could stand")
    found = re.fullmatch(r"layers\.(\d+)\.mlp", name)
    if found is None or int(found[1]) >= network.config.layers:
        raise ConfigError(unknown("MLP", name, [f"layers.{i}.mlp" for i in range(network.config.layers)]))
    return int(found[1])


def read_at(network: Decoder, layer: int) -> str:
    """The name of the stream that an MLP's norm reads."""
    return f"layers.{layer}.{'resid_pre' if network.config.parallel else 'resid_mid'}"


@torch.no_grad()
def mlp_input(network: Decoder, layer: int, values: Mapping[str, Tensor]) -> Float[Tensor, "... C"]:
    """What an MLP reads, after its norm, of recorded activations."""
    stream = values[read_at(network, layer)]
    norm = network.blocks[layer].norms[2]
    return stream if norm is None else norm(stream)


def mlp_samples(model: Model, texts: Sequence[Any], layer: int) -> tuple[Samples, Tensor, Tensor]:
    """What an MLP reads and what comes of it in the stream, (N, C) twice, a row for each token of the texts."""
    network = decoder_of(model, "a transcoder of a model's MLP")
    names = [read_at(network, layer), f"layers.{layer}.mlp_out"]
    samples = samples_of(model, texts, names)
    return samples, mlp_input(network, layer, samples.values), samples.values[names[1]]


def samples_for(
    model: Model, features: Features, texts: Sequence[Any], source: Sequence[str] | Tensor | None
) -> tuple[Samples, Tensor, Tensor]:
    """What a dictionary reads of these texts, and what it is to write, (N, C) and (N, O).

    Raises:
        ConfigError: it does not name an activation of this model, or does not fit it.
    """
    name = features.config.name
    if not name:
        raise ConfigError(
            "this dictionary does not say what it was trained on; train it with name=, or give activations"
        )
    if features.config.transcoder:
        samples, x, y = mlp_samples(model, texts, mlp_layer(model, name))
    else:
        samples = samples_of(model, texts, [name], source=source)
        x = y = samples.values[name]
    if x.shape[1] != features.config.reads:
        raise ConfigError(f"the dictionary reads {features.config.reads} channels, but {name} has {x.shape[1]}")
    return samples, x, y
