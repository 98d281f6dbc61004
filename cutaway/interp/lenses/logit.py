"""What the model would say at each layer.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.errors import ConfigError, unknown
from cutaway.interp.inputs import Text
from cutaway.interp.lenses.said import table
from cutaway.interp.lenses.stream import claims_of, layer_names, one_text, places, reader
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import Lens
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress

PARTS = ("stream", "attn_out", "mlp_out", "cross_attn_out")


@torch.no_grad()
def logit_lens(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | None = None,
    top: int = 5,
    part: str = "stream",
    token: str | int | None = None,
    progress: OnProgress | None = None,
) -> Lens:
    """Read the residual stream of every layer as if it were the last (nostalgebraist 2020, "interpreting GPT").

    The last row of the stream is the model's own output, bit for bit.

    Args:
        model: a decoder that predicts the next token, an encoder that fills gaps or an encoder–decoder (whose decoder
            is read), with a text, or a recording of one.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target.
        top: how many tokens of each cell to name.
        part: "stream"; or what each layer's "attn_out", "mlp_out" or "cross_attn_out" would say alone, which the norm
            brings to the size of a whole stream: a direction, not an amount (for amounts see the ledger).
        token: whose rank and probability each cell tells, as text or id; None: the one that came next.
        progress: told after each row.

    Raises:
        ConfigError: a recurrent model, which has no residual stream; a head that names no tokens; an unknown part.
        InputError: top below 1, a token that is none, empty text, or more tokens than the context.
    """
    run = model.model if isinstance(model, Recording) else model
    network = reader(run, "the logit lens")
    if part not in PARTS:
        raise ConfigError(unknown("part", part, PARTS))
    shown = model if isinstance(model, Recording) else text
    clock = Clock(
        run, "logit_lens", shown, source=source, top=top, part=None if part == "stream" else part, token=token
    )
    recording = one_text(model, text, source, top, "the logit lens")
    names, read, claims = layer_names(run), places(run), claims_of(recording, lambda _, x: network.read_out(x))
    if part != "stream":
        claims, names, read = None, names[1:], [f"layers.{i}.{part}" for i in range(run.config.layers)]
        recording = recording_of(recording, text, read)
    last = len(read) - 1 if part == "stream" else -1

    def said(place: int, at: slice) -> Tensor:
        return recording.logits[0, at] if place == last else network.read_out(recording[read[place]][:1, at])[0]

    found = table(recording, said, len(read), top, token, progress)
    receipt = clock.receipt(difference=recording.receipt.difference, bytes=recording.receipt.bytes)
    return Lens(recording.tokens, names, **found, receipt=receipt, claims=claims if not recording.edits else None)  # pyright: ignore[reportArgumentType]
