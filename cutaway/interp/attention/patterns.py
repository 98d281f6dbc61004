"""Where heads look.

Shapes: L layers, H heads, T tokens.
"""

import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp.record import Recording, Text, recording_of
from cutaway.interp.results import Attention
from cutaway.models import Model, Recurrent


def attention(
    source: Recording | Model, text: Text = "", *, layer: int | None = None, head: int | None = None
) -> Attention:
    """Every head's pattern.

    Args:
        source: a model with a text, or a recording.
        text: text or ids; of a batch, the first row.
        layer: whose head to show large, from 0; None takes the layer of the sharpest.
        head: which of its heads, from 0; None takes the sharpest.

    Raises:
        ConfigError: a model without attention.
        InputError: empty text, more tokens than the context, or a layer or head that is not there.
    """
    model = source.model if isinstance(source, Recording) else source
    if isinstance(model.network, Recurrent):
        raise ConfigError("a recurrent model has no attention: look at its gates (layers.*.update) instead")
    recording = recording_of(source, text if isinstance(source, Recording) else model.ids(text)[:1], [PATTERNS])
    patterns = [recording[PATTERNS.replace("*", str(i))][0] for i in range(model.network.config.layers)]
    made = Attention(recording.tokens, torch.stack(patterns).float())
    return Attention(made.tokens, made.patterns, _choose(made, layer, head))


PATTERNS = "layers.*.attn.pattern"


def _choose(made: Attention, layer: int | None, head: int | None) -> tuple[int, int]:
    """The sharpest head, or the sharpest of those that the caller left open."""
    layers, heads = made.patterns.shape[:2]
    for name, value, count in (("layer", layer, layers), ("head", head, heads)):
        if value is not None and not 0 <= value < count:
            raise InputError(f"{name} {value} is not there: the model has {name}s 0 … {count - 1}")
    rows = slice(None) if layer is None else slice(layer, layer + 1)
    columns = slice(None) if head is None else slice(head, head + 1)
    best = Attention(made.tokens, made.patterns[rows, columns]).sharpest()
    return (layer or 0) + best[0], (head or 0) + best[1]
