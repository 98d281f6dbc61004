"""What the model would say at each layer.

Shapes: T tokens, V vocabulary.
"""

import math

import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import Lens, LensCell
from cutaway.models import Decoder, Encoder, Model, Recurrent
from cutaway.models.model import Source


@torch.no_grad()
def logit_lens(model: Recording | Model, text: Text = "", *, source: Source | None = None, top: int = 5) -> Lens:
    """Read the residual stream of every layer as if it were the last (nostalgebraist 2020, "interpreting GPT").

    The last row is the model's own output, bit for bit.

    Args:
        model: a decoder that predicts the next token, an encoder that fills gaps or an encoder–decoder, with a text,
            or a recording of one.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target.
        top: how many tokens of each cell to name.

    Raises:
        ConfigError: a recurrent model, which has no residual stream; a head that names no tokens.
        InputError: top below 1, empty text, or more tokens than the context.
    """
    run = model.model if isinstance(model, Recording) else model
    network = run.network
    if isinstance(network, Recurrent):
        raise ConfigError("the logit lens reads a residual stream, which a recurrent model does not have")
    if isinstance(network, Encoder) and network.config.head != "masked_lm":
        raise ConfigError(
            "the logit lens reads tokens out of an encoder through a head for masked_lm, which this has not"
        )
    if isinstance(network, Decoder):
        run.speaker("the logit lens")
    if top < 1:
        raise InputError(f"top must be at least 1, but {top} was given")
    clock = Clock(run, "logit_lens", model if isinstance(model, Recording) else text, top=top)
    count = network.config.layers
    places = ["layers.0.resid_pre", *(f"layers.{i}.resid_post" for i in range(count))]
    recording = recording_of(model, text, places, source=source, first=True)
    rows = []
    for place in places:
        logits = network.read_out(recording[place])[0].float()  # (T, V)
        probabilities = logits.softmax(-1)
        entropy = -(probabilities * logits.log_softmax(-1)).sum(-1) / math.log(2)
        values, ids = probabilities.topk(min(top, probabilities.shape[-1]))
        rows.append(
            [
                LensCell([(run.tokenizer.token(i), p) for i, p in zip(ids_, values_, strict=True)], bits)
                for ids_, values_, bits in zip(ids.tolist(), values.tolist(), entropy.tolist(), strict=True)
            ]
        )
    receipt = clock.receipt(difference=recording.receipt.difference, bytes=recording.receipt.bytes)
    return Lens(recording.tokens, ["embedding", *(f"layer {i}" for i in range(count))], rows, receipt=receipt)
