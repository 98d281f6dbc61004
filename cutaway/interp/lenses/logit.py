"""What the model would say at each layer.

Shapes: T tokens, V vocabulary.
"""

import math

import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp.record import Recording, Text, recording_of
from cutaway.interp.results import Lens, LensCell
from cutaway.models import Decoder, Encoder, Model, Recurrent


@torch.no_grad()
def logit_lens(source: Recording | Model, text: Text = "", *, top: int = 5) -> Lens:
    """Read the residual stream of every layer as if it were the last (nostalgebraist 2020, "interpreting GPT").

    The last row is the model's own output, bit for bit.

    Args:
        source: a decoder that predicts the next token, or an encoder that fills gaps, with a text, or a recording of
            one.
        text: text or ids; of a batch, the first row.
        top: how many tokens of each cell to name.

    Raises:
        ConfigError: a recurrent model, which has no residual stream; a head that names no tokens.
        InputError: top below 1, empty text, or more tokens than the context.
    """
    model = source.model if isinstance(source, Recording) else source
    network = model.network
    if isinstance(network, Recurrent):
        raise ConfigError("the logit lens reads a residual stream, which a recurrent model does not have")
    if isinstance(network, Encoder) and network.config.head != "masked_lm":
        raise ConfigError(
            "the logit lens reads tokens out of an encoder through a head for masked_lm, which this has not"
        )
    if isinstance(network, Decoder):
        model.speaker("the logit lens")
    if top < 1:
        raise InputError(f"top must be at least 1, but {top} was given")
    count = network.config.layers
    places = ["layers.0.resid_pre", *(f"layers.{i}.resid_post" for i in range(count))]
    recording = recording_of(source, text if isinstance(source, Recording) else model.ids(text)[:1], places)
    rows = []
    for place in places:
        logits = network.read_out(recording[place])[0].float()  # (T, V)
        probabilities = logits.softmax(-1)
        entropy = -(probabilities * logits.log_softmax(-1)).sum(-1) / math.log(2)
        values, ids = probabilities.topk(min(top, probabilities.shape[-1]))
        rows.append(
            [
                LensCell([(model.tokenizer.token(i), p) for i, p in zip(ids_, values_, strict=True)], bits)
                for ids_, values_, bits in zip(ids.tolist(), values.tolist(), entropy.tolist(), strict=True)
            ]
        )
    return Lens(recording.tokens, ["embedding", *(f"layer {i}" for i in range(count))], rows)
