"""Where heads look.

Shapes: L layers, H heads, T tokens.
"""

from dataclasses import replace

import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import Attention
from cutaway.models import Model, Recurrent
from cutaway.models.model import Source


def attention(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | None = None,
    layer: int | None = None,
    head: int | None = None,
) -> Attention:
    """Every head's pattern.

    Args:
        model: a model with a text, or a recording.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target, whose patterns these are.
        layer: whose head to show large, from 0; None takes the layer of the sharpest.
        head: which of its heads, from 0; None takes the sharpest.

    Raises:
        ConfigError: a model without attention.
        InputError: empty text, more tokens than the context, or a layer or head that is not there.
    """
    run = model.model if isinstance(model, Recording) else model
    if isinstance(run.network, Recurrent):
        raise ConfigError("a recurrent model has no attention: look at its gates (layers.*.update) instead")
    clock = Clock(run, "attention", model if isinstance(model, Recording) else text, layer=layer, head=head)
    recording = recording_of(model, text, [PATTERNS], source=source, first=True)
    patterns = [recording[PATTERNS.replace("*", str(i))][0] for i in range(run.network.config.layers)]
    stacked = torch.stack(patterns).float()
    receipt = clock.receipt(difference=recording.receipt.difference, bytes=recording.receipt.bytes)
    made = Attention(recording.tokens, stacked, receipt=receipt)
    return replace(made, chosen=_choose(made, layer, head))


PATTERNS = "layers.*.attn.pattern"


def _choose(made: Attention, layer: int | None, head: int | None) -> tuple[int, int]:
    """The sharpest head, or the sharpest of those that the caller left open."""
    layers, heads = made.patterns.shape[:2]
    for name, value, count in (("layer", layer, layers), ("head", head, heads)):
        if value is not None and not 0 <= value < count:
            raise InputError(f"{name} {value} is not there: the model has {name}s 0 … {count - 1}")
    rows = slice(None) if layer is None else slice(layer, layer + 1)
    columns = slice(None) if head is None else slice(head, head + 1)
    best = replace(made, patterns=made.patterns[rows, columns]).sharpest()
    return (layer or 0) + best[0], (head or 0) + best[1]
