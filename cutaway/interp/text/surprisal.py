"""How surprising each token is.

Shapes: T tokens, V vocabulary.
"""

import math

from cutaway.interp.record import Recording, Text
from cutaway.interp.results import TokenScores
from cutaway.models import Model


def surprisal(source: Recording | Model, text: Text = "") -> TokenScores:
    """Bits of surprise at each token: -log2 of the probability that the model gave it. The first has none.

    Args:
        source: a model with a text, or a recording.
        text: text or ids; of a batch, the first row.

    Raises:
        ConfigError: an encoder, which sees the token that it would be surprised by.
        InputError: empty text, or more tokens than the context.
    """
    model = source.model if isinstance(source, Recording) else source
    model.speaker("surprisal")
    ids = (source.ids if isinstance(source, Recording) else model.ids(text))[0]  # (T,)
    logits = source.logits[:1] if isinstance(source, Recording) else model.logits(ids)  # (1, T, V)
    logprobs = logits[0, :-1].double().log_softmax(-1)
    bits = logprobs.gather(1, ids[1:, None])[:, 0] / -math.log(2)
    tokens = [model.tokenizer.token(i) for i in ids.tolist()]
    return TokenScores("surprisal", "bits", tokens, ids.tolist(), [None, *bits.tolist()])
