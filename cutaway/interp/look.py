"""One look at one text: surprisal, attention, the logit lens and the ledger of a next token, together.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cutaway.errors import InputError
from cutaway.interp.attention.patterns import attention
from cutaway.interp.inputs import Text, inputs_of
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.numbers import ledger, needed
from cutaway.interp.lenses.logit import logit_lens
from cutaway.interp.receipt import Clock
from cutaway.interp.record import record
from cutaway.interp.results import Attention, Lens, Result, TokenScores
from cutaway.interp.text.surprisal import surprisal
from cutaway.models import Decoder, Model, RecurrentConfig

NO_STREAM = (
    "A recurrent model has neither attention nor a residual stream: it carries one state from token to token. "
    "Open a unit of the ledger to see which steps wrote it."
)


@dataclass(frozen=True)
class Look(Result):
    """What a model computed on one text. Prints as pictures in a terminal; `to_html` is a page of them.

    Attributes:
        text: what the model read.
        about: of the model: name, kind, parameters, and its shape in words.
        position: the token after which the ledger's next token stands, 0 … T - 1.
        likeliest: the next tokens after that position with their probabilities, likeliest first.
        surprisal: bits of each token.
        attention: every head's pattern; None for a recurrent model.
        lens: what each layer would say; None for a recurrent model.
        missing: why a part is None; "" if none is.
        ledger: the terms of the chosen next token's logit.
        receipt: `difference` is that of the recorded run from a plain one, `milliseconds` of the whole look, `bytes` of
            what was recorded.
    """

    picture = "look"
    text: str
    about: dict[str, Any]
    position: int
    likeliest: list[tuple[str, float]]
    surprisal: TokenScores
    attention: Attention | None
    lens: Lens | None
    missing: str
    ledger: Ledger = field(repr=False)

    @property
    def tokens(self) -> list[str]:
        """The tokens, to be read."""
        return self.surprisal.tokens

    def to_json(self) -> dict[str, Any]:
        return self._head() | {
            "receipt": self.receipt.to_json(),
            "scores": self.surprisal.to_json(),
            "attention": self.attention and self.attention.to_json(),
            "lens": self.lens and self.lens.to_json(),
            "ledger": self.ledger.to_json(depth=1, most=64),
        }

    def to_html(self) -> str:
        """One page that holds everything and asks for nothing: no other file, no network."""
        from cutaway.interp.pictures.page import page

        results = (self.surprisal, self.ledger, self.attention, self.lens)
        parts = [(result.picture, result.page_data()) for result in results if result]
        title = self.text if len(self.text) <= 60 else self.text[:59] + "…"
        receipt = self.receipt.to_json() | {"error": self.ledger.error}
        return page([("look", self._head()), *parts, ("receipt", receipt)], title=" ".join(title.split()))

    def _head(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "model": self.about,
            "position": self.position,
            "likeliest": self.likeliest,
            "missing": self.missing,
        }


def look(
    model: Model,
    text: Text,
    *,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    layer: int | None = None,
    head: int | None = None,
) -> Look:
    """Look at one text from every side.

    Args:
        model: a decoder, or a recurrent model, which has no attention and no lens.
        text: text or ids; of a batch, the first row.
        token: the next token to open in the ledger, as text or id; None takes the likeliest.
        minus: another token whose logit is subtracted: why the one rather than the other.
        position: after which token; -1 is the last.
        layer: whose attention to show large, from 0; None takes the one with the sharpest head.
        head: which head of it, from 0; None takes the sharpest.

    Returns:
        A `Look`: print it with rich, or take `.to_html()` or `.to_json()`.

    Raises:
        InputError: empty text or more than the context, a position, layer or head that is not there, or a token that
            is not one token.
        ConfigError: an encoder.
        NonFinite: the model computes a NaN or an infinity.
    """
    clock = Clock(model, "look", text, token=token, minus=minus, position=position, layer=layer, head=head)
    model.speaker("look")
    ids = inputs_of(model, text).ids[:1]
    decoder = isinstance(model.network, Decoder)
    if not decoder and (layer is not None or head is not None):
        raise InputError("a recurrent model has no attention, so there is no layer or head to choose; leave them out")
    recording = record(model, ids, needed(model))
    opened = ledger(recording, position=position, token=token, minus=minus)
    position %= ids.shape[1]
    plain = model.logits(ids)
    chances, likeliest = plain[0, position].softmax(-1).topk(min(5, plain.shape[-1]))
    return Look(
        text=text if isinstance(text, str) else model.tokenizer.decode(ids[0].tolist()),
        about=_about(model),
        position=position,
        likeliest=[(model.tokenizer.token(i), p) for i, p in zip(likeliest.tolist(), chances.tolist(), strict=True)],
        surprisal=surprisal(recording),
        attention=attention(recording, layer=layer, head=head) if decoder else None,
        lens=logit_lens(recording) if decoder else None,
        missing="" if decoder else NO_STREAM,
        ledger=opened,
        receipt=clock.receipt(
            difference=float((recording.logits - plain).abs().max()), gap=opened.error, bytes=recording.receipt.bytes
        ),
    )


def _about(model: Model) -> dict[str, Any]:
    """What the header says of a model."""
    config = model.config
    if isinstance(config, RecurrentConfig):
        kind, shape = config.cell.upper(), f"{config.layers} layers × {config.hidden} units"
    else:
        kind, shape = config.kind, f"{config.layers} layers × {config.heads} heads, {config.width} channels"
    return {
        "name": model.source or "unsaved model",
        "kind": kind,
        "shape": shape,
        "vocabulary": config.vocab_size,
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
    }
