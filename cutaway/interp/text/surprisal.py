"""How surprising each token is.

Shapes: T tokens, V vocabulary.
"""

import math

from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import TokenScores
from cutaway.models import Model, Seq2Seq
from cutaway.models.model import Source


def surprisal(model: Recording | Model, text: Text = "", *, source: Source | None = None) -> TokenScores:
    """Bits of surprise at each token: -log2 of the probability that the model gave it. The first has none.

    Args:
        model: a model with a text, or a recording.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target.

    Raises:
        ConfigError: an encoder, which sees the token that it would be surprised by.
        InputError: empty text, or more tokens than the context.
    """
    run = model.model if isinstance(model, Recording) else model
    if not isinstance(run.network, Seq2Seq):
        run.speaker("surprisal")
    clock = Clock(run, "surprisal", model if isinstance(model, Recording) else text, source=source)
    recording = recording_of(model, text, ["logits"], source=source, first=True)
    ids = recording.ids[0]  # (T,)
    logprobs = recording.logits[0, :-1].double().log_softmax(-1)
    bits = logprobs.gather(1, ids[1:, None])[:, 0] / -math.log(2)
    receipt = clock.receipt(difference=recording.receipt.difference, bytes=recording.receipt.bytes)
    return TokenScores("surprisal", "bits", recording.tokens, ids.tolist(), [None, *bits.tolist()], receipt=receipt)
