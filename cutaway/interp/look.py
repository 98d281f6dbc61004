"""One look at one text: surprisal, attention, the lens and the ledger of an answer, together.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp.about import about
from cutaway.interp.attention.patterns import attention
from cutaway.interp.inputs import Text, forward, inputs_of
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.numbers import ledger, needed
from cutaway.interp.lenses.logit import logit_lens
from cutaway.interp.receipt import Clock
from cutaway.interp.record import record
from cutaway.interp.results import Attention, Lens, Result, TokenScores
from cutaway.interp.target import at_position, name_of, target_of
from cutaway.interp.text.surprisal import surprisal
from cutaway.models import Model, Recurrent, Seq2Seq
from cutaway.models.model import Source

NO_STREAM = (
    "A recurrent model has neither attention nor a residual stream: it carries one state from token to token. "
    "Open a unit of the ledger to see which steps wrote it."
)


@dataclass(frozen=True)
class Look(Result):
    """What a model computed on one text. Prints as pictures in a terminal; `to_html` is a page of them.

    Attributes:
        text: what the model read; of an encoder–decoder the target.
        about: of the model: name, kind, parameters, and its shape in words.
        tokens: to be read.
        position: the token that was asked about, 0 … T - 1; None where there is one answer for a whole text.
        likeliest: the answers there with their probabilities, likeliest first; none where the model gives vectors.
        parts: name -> result: "surprisal", "attention", "encoder attention", "cross-attention", "lens", "ledger", as
            far as the model has them.
        missing: why parts that other models have are not there, a sentence each.
    """

    picture = "look"
    text: str
    about: dict[str, Any]
    tokens: list[str]
    position: int | None
    likeliest: list[tuple[str, float]]
    parts: dict[str, Result]
    missing: list[str]

    @property
    def surprisal(self) -> TokenScores | None:
        """Bits of each token, if the model predicts them."""
        found = self.parts.get("surprisal")
        return found if isinstance(found, TokenScores) else None

    @property
    def attention(self) -> Attention | None:
        """Every head's pattern, if the model has heads; of an encoder–decoder the target's own."""
        found = self.parts.get("attention")
        return found if isinstance(found, Attention) else None

    @property
    def lens(self) -> Lens | None:
        """What each layer would say, if the model has a stream that can be read so."""
        found = self.parts.get("lens")
        return found if isinstance(found, Lens) else None

    @property
    def ledger(self) -> Ledger:
        """The terms of the number that was asked about."""
        found = self.parts["ledger"]
        assert isinstance(found, Ledger)
        return found

    def to_json(self) -> dict[str, Any]:
        parts = {name: part.to_json() for name, part in self.parts.items() if part is not self.ledger}
        parts["ledger"] = self.ledger.to_json(depth=1, most=64)
        return {
            "text": self.text,
            "model": self.about,
            "tokens": self.tokens,
            "position": self.position,
            "likeliest": self.likeliest,
            "missing": self.missing,
            "receipt": self.receipt.to_json(),
            "parts": parts,
        }

    def page_data(self) -> dict[str, Any]:
        order = sorted(self.parts, key=lambda name: name not in ("surprisal", "ledger"))
        return super().page_data() | {"parts": {name: self.parts[name].page_data() for name in order}}

    def _title(self) -> str:
        return self.text if len(self.text) <= 60 else self.text[:59] + "…"


def look(
    model: Model,
    text: Text,
    *,
    source: Source | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    layer: int | None = None,
    head: int | None = None,
) -> Look:
    """Look at one text from every side that the model has.

    Args:
        model: of any kind.
        text: of several texts the first; of an encoder–decoder the target.
        source: what an encoder–decoder reads.
        token: the answer to open in the ledger: a next token as text or id, of other heads a label or a channel; None
            takes the likeliest.
        minus: another one whose logit is subtracted: why the one rather than the other.
        position: after which token, or of which where the model answers for each; -1 is the last, or the first gap.
        layer: whose attention to show large, from 0; None takes the one with the sharpest head.
        head: which head of it, from 0; None takes the sharpest.

    Returns:
        A `Look`: print it with rich, or take `.to_html()` or `.to_json()`.

    Raises:
        InputError: empty text or more than the context, a position, layer or head that is not there, or a token that
            is not one token.
        NonFinite: the model computes a NaN or an infinity.
    """
    options = {"source": source, "token": token, "minus": minus, "position": position, "layer": layer, "head": head}
    clock = Clock(model, "look", text, **options)
    recurrent = isinstance(model.network, Recurrent)
    if recurrent and (layer is not None or head is not None):
        raise InputError("a recurrent model has no attention, so there is no layer or head to choose; leave them out")
    inputs = inputs_of(model, text, source).rows(0, 1)
    recording = record(model, inputs, needed(model))
    with torch.no_grad():
        plain = forward(model, inputs).float()
    target = target_of(model, inputs, token=token, minus=minus, position=position, output=plain)
    parts: dict[str, Result] = {}
    missing = [NO_STREAM] if recurrent else []

    def add(name: str, make: Callable[[], Result]) -> None:
        try:
            parts[name] = make()
        except ConfigError as error:  # says why this kind of model has it not
            missing.append(f"{str(error)[:1].upper()}{str(error)[1:]}.")

    add("surprisal", lambda: surprisal(recording))
    if not recurrent:
        add("attention", lambda: attention(recording, layer=layer, head=head))
    if isinstance(model.network, Seq2Seq):
        add("encoder attention", lambda: attention(recording, part="encoder"))
        add("cross-attention", lambda: attention(recording, part="cross"))
    if not recurrent:
        add("lens", lambda: logit_lens(recording))
    asked = -1 if target.position is None else target.position
    parts["ledger"] = ledger(recording, position=asked, token=token, minus=minus)
    row = plain[0] if target.position is None else at_position(plain, inputs, target.position)[0]
    likeliest: list[tuple[str, float]] = []
    if row.ndim == 1 and len(row) > 1 and getattr(model.config, "head", "") not in ("none", "embedding"):
        chances, ids = row.softmax(-1).topk(min(5, len(row)))
        likeliest = [(name_of(model, i), p) for i, p in zip(ids.tolist(), chances.tolist(), strict=True)]
    return Look(
        text=text if isinstance(text, str) else model.tokenizer.decode(inputs.ids[0].tolist()),
        about=_header(model),
        tokens=recording.tokens,
        position=None if target.position is None else int(inputs.places(target.position)[0]),
        likeliest=likeliest,
        parts=parts,
        missing=missing,
        receipt=clock.receipt(
            difference=float((recording.logits - plain).abs().max()),
            gap=parts["ledger"].receipt.gap,
            bytes=recording.receipt.bytes,
        ),
    )


def _header(model: Model) -> dict[str, Any]:
    """What the header says of a model."""
    facts = about(model)
    return {name: getattr(facts, name) for name in ("name", "kind", "shape", "vocabulary", "parameters")}
