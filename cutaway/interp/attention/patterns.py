"""Where heads look.

Shapes: L layers, H heads, T queries, S keys.
"""

from dataclasses import replace

from cutaway.interp.attention.parts import heads_of
from cutaway.interp.claims import Claims
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import Attention
from cutaway.interp.suggest import of_attention
from cutaway.interp.target import target_of
from cutaway.models import Model
from cutaway.models.model import Source

PATTERNS = "layers.*.attn.pattern"


def attention(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | None = None,
    part: str | None = None,
    layer: int | None = None,
    head: int | None = None,
) -> Attention:
    """Every head's pattern.

    Args:
        model: a model with a text, or a recording.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target.
        part: of an encoder–decoder whose patterns: "decoder" (where the target looks at itself, also if None),
            "encoder" (the source at itself) or "cross" (the target at the source, (L, H, T, S)).
        layer: whose head to show large, from 0; None takes the layer of the sharpest.
        head: which of its heads, from 0; None takes the sharpest.

    Raises:
        ConfigError: a model without attention, or without that part.
        InputError: empty text, more tokens than the context, or a layer or head that is not there.
    """
    run = model.model if isinstance(model, Recording) else model
    heads = heads_of(run, part)
    heads.check(layer, head)
    given = model if isinstance(model, Recording) else text
    clock = Clock(run, "attention", given, source=source, part=part, layer=layer, head=head)
    recording = recording_of(model, text, [heads.name("*", "pattern")], source=source, first=True)
    receipt = clock.receipt(difference=recording.receipt.difference, bytes=recording.receipt.bytes)
    keys, queries = heads.keys(recording), heads.queries(recording)

    def claims() -> Claims:
        names = [heads.name(layer, "pattern") for layer in range(heads.shape[0])]
        target = target_of(run, recording.inputs, output=recording.logits)
        whole = heads.part == "encoder"
        return of_attention(recording, target, names, keys or queries, whole=whole)

    made = Attention(
        queries, heads.patterns(recording).float(), keys=keys, causal=heads.causal, receipt=receipt, claims=claims
    )
    return replace(made, chosen=choose(made, layer, head))


def choose(made: Attention, layer: int | None, head: int | None) -> tuple[int, int]:
    """The sharpest head, or the sharpest of those that the caller left open."""
    rows = slice(None) if layer is None else slice(layer, layer + 1)
    columns = slice(None) if head is None else slice(head, head + 1)
    asked = made.patterns[rows, columns]
    best = Attention(made.tokens, asked, keys=made.keys, causal=made.causal, receipt=made.receipt).sharpest()
    return (layer or 0) + best[0], (head or 0) + best[1]
