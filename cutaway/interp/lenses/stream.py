"""What every lens reads: the residual stream of each layer, through the model's own norm and output matrix.

Shapes: B texts, T tokens, N positions, L layers, C channels, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.claims import Claims
from cutaway.interp.inputs import Inputs, Text, inputs_of
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.suggest import of_lens
from cutaway.interp.target import target_of
from cutaway.models import Decoder, Encoder, Model, Recurrent, Seq2Seq
from cutaway.models.config import config_to_dict
from cutaway.models.model import Source

SAMPLED = 64  # numbers of each tensor that a fingerprint reads


def reader(model: Model, purpose: str) -> Decoder | Encoder | Seq2Seq:
    """The network, as one whose stream can be read as tokens.

    Args:
        model: to look into.
        purpose: who asks, as the beginning of a sentence.

    Raises:
        ConfigError: a recurrent model, which has no residual stream, or a head that names no tokens.
    """
    network = model.network
    if isinstance(network, Recurrent):
        raise ConfigError(f"{purpose} reads a residual stream, which a recurrent model does not have")
    if isinstance(network, Encoder) and network.config.head != "masked_lm":
        raise ConfigError(f"{purpose} reads tokens out of an encoder through a head for masked_lm, which this has not")
    if isinstance(network, Decoder):
        model.speaker(purpose)
    return network


def places(model: Model) -> list[str]:
    """The stream before the first layer and after each; of an encoder–decoder that of the decoder.

    Nothing reads the encoder's stream as tokens: the decoder takes keys and values of it, and the output matrix has
    never seen it.
    """
    return ["layers.0.resid_pre", *(f"layers.{i}.resid_post" for i in range(model.config.layers))]


def layer_names(model: Model) -> list[str]:
    """How the places are called."""
    return ["embedding", *(f"layer {i}" for i in range(model.config.layers))]


def streams(
    model: Model, texts: Sequence[Text], sources: Sequence[Source] | None
) -> Iterator[tuple[Inputs, Float[Tensor, "B L T C"], Bool[Tensor, "B T"]]]:
    """Of each text what it is read as, its stream at each place, and which tokens are real.

    Raises:
        InputError: no texts, a lone string, or not as many sources as texts.
    """
    if isinstance(texts, str | Tensor) or not len(texts):
        raise InputError("give a list of texts, even of one")
    if sources is not None and len(sources) != len(texts):
        raise InputError(f"{len(texts)} texts with {len(sources)} sources were given; give one source for each text")
    for number, text in enumerate(texts):
        inputs = inputs_of(model, text, None if sources is None else sources[number])
        recording = recording_of(model, inputs, places(model))
        found = torch.stack([recording[place] for place in places(model)], dim=1)
        real = torch.ones_like(inputs.ids, dtype=torch.bool) if inputs.mask is None else inputs.mask
        yield inputs, found, real


def one_text(model: Recording | Model, text: Text, source: Source | None, top: int, purpose: str) -> Recording:
    """A recording of the stream of one text.

    Raises:
        ConfigError: as in `reader`.
        InputError: top below 1, empty text, or more tokens than the context.
    """
    reader(model.model if isinstance(model, Recording) else model, purpose)
    if top < 1:
        raise InputError(f"top must be at least 1, but {top} was given")
    run = model.model if isinstance(model, Recording) else model
    return recording_of(model, text, places(run), source=source, first=True)


def claims_of(recording: Recording, read: Callable[[int, Tensor], Tensor]) -> Callable[[], Claims]:
    """What a lens suggests, for `check`: that a layer does to the likeliest answer what the lens shows.

    Args:
        recording: of the stream at every place.
        read: from the number of a place and its stream to logits.
    """

    @torch.no_grad()
    def claims() -> Claims:
        run, inputs = recording.model, recording.inputs.rows(0, 1)
        target = target_of(run, inputs, output=recording.logits[:1])
        said = [float(target(read(i, recording[place][:1]), inputs)[0]) for i, place in enumerate(places(run))]
        return of_lens(recording, target, said)

    return claims


def fingerprint(model: Model) -> str:
    """Of a model's config and weights: the SHA-256 of some numbers of each tensor, so that it takes no time.

    It tells models apart that were trained apart; it is no proof that nobody tampered with one.
    """
    digest = hashlib.sha256(json.dumps(config_to_dict(model.config), sort_keys=True).encode())
    for name, module in model.network.named_modules():
        blocks = module.__dict__.get("blocks")  # of weights that are kept quantised
        tensors = {**module._parameters} if blocks is None else {**module._parameters, "blocks": blocks.data}
        for part, tensor in tensors.items():
            if tensor is None:
                continue
            flat = tensor.detach().reshape(-1)
            some = flat[torch.arange(SAMPLED, device=flat.device) * (len(flat) - 1) // (SAMPLED - 1)]
            digest.update(f"{name}.{part}{tuple(tensor.shape)}".encode())
            digest.update(str(some.double().tolist()).encode())
    return digest.hexdigest()
