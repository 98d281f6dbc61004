"""Making a ledger: which logit, of which run, and whose sum it is.

How a decoder's logit unfolds is in `unfold_decoder`, a recurrent model's in `unfold_recurrent`. Both add up what was
recorded, and a `Ledger` whose terms do not add up cannot be made.

Shapes: T tokens, C channels (of a recurrent model its hidden units), V vocabulary.
"""

from __future__ import annotations

import torch

from cutaway.errors import InputError
from cutaway.interp.inputs import Text, inputs_of
from cutaway.interp.ledger import unfold_decoder, unfold_recurrent
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.record import Recording, recording_of
from cutaway.models import Decoder, Model


@torch.no_grad()
def ledger(
    source: Recording | Model,
    text: Text = "",
    *,
    position: int = -1,
    token: str | int | None = None,
    minus: str | int | None = None,
) -> Ledger:
    """Open the logit of one next token.

    Args:
        source: a model with a text; or a recording, whose run (with its edits, if it was edited) is opened.
        text: text or ids; of a batch, the first row.
        position: after which token; -1 is the last.
        token: which next token, as text or id; None takes the likeliest.
        minus: another token whose logit is subtracted: why the one rather than the other.

    Returns:
        The terms in float64. For a model in float32 their sum is within 1e-4 of the logit, in float64 within 1e-9.

    Raises:
        InputError: a position outside the text, or a token that is not one token.
        ConfigError: an encoder.
        LedgerError: the terms do not add up.
    """
    model = source.model if isinstance(source, Recording) else source
    network = model.speaker("a ledger")
    ids = (source.ids if isinstance(source, Recording) else inputs_of(model, text).ids)[:1]
    length = ids.shape[1]
    if not -length <= position < length:
        raise InputError(f"position {position} is outside the text of {length} tokens (-{length} … {length - 1})")
    position %= length
    chosen = None if token is None else _token(model, token)
    other = None if minus is None else _token(model, minus)

    kind = unfold_decoder if isinstance(network, Decoder) else unfold_recurrent
    names = [name for name in kind.NAMES if ".mlp" not in name or getattr(model.config, "mlp", True)]
    recording = recording_of(source, ids, [*names, "logits"])
    logits = recording["logits"][0, position].double()  # (V,)
    chosen = int(logits.argmax()) if chosen is None else chosen
    total = logits[chosen]
    direction = network.lm_head.weight[chosen].double()  # (C,), what reads the last state
    what = f"logit of “{model.tokenizer.token(chosen)}”"
    if other is not None:
        total = total - logits[other]
        direction = direction - network.lm_head.weight[other].double()
        what += f" minus that of “{model.tokenizer.token(other)}”"
    what += f" after “{recording.tokens[position]}” (position {position})"
    terms, openers = kind.unfold(network, recording, position, direction, float(total))  # pyright: ignore[reportArgumentType]  # kind fits network
    return Ledger(what, tuple(terms), float(total), openers, receipt=recording.receipt)


def _token(model: Model, token: str | int) -> int:
    if isinstance(token, str):
        return model.tokenizer.id(token)
    if not 0 <= token < model.config.vocab_size:
        raise InputError(f"token ids must lie in 0 … {model.config.vocab_size - 1}, but {token} was given")
    return token
