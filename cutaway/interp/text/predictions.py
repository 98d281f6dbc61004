"""What a model gave every token of a text before it saw it.

Shapes: B copies, T tokens, N tokens predicted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp.inputs import Inputs, Text, forward, inputs_of
from cutaway.interp.record import Recording, first_broken, recording_of
from cutaway.interp.text.exam import names_tokens
from cutaway.models import ActiveTap, Encoder, Model
from cutaway.models.model import Source

LOGITS = 2**24  # numbers of one batch's output, at the most


@dataclass(frozen=True)
class Predictions:
    """Of one text.

    Attributes:
        tokens: all of them, to be read.
        ids: (T,) int64, all of them.
        at: (N,) int64, which were predicted: of T all but the first, or with `masked` all but the special ones.
        logprobs: (N, V) float64, nats of each token of the vocabulary, there.
        difference: of the logits from a plain run's, where something was replaced.
        bytes: recorded.
    """

    tokens: list[str]
    ids: Int[Tensor, " T"]
    at: Int[Tensor, " N"]
    logprobs: Float[Tensor, "N V"]
    difference: float = 0.0
    bytes: int = 0

    @property
    def bits(self) -> Float[Tensor, " N"]:
        """Of surprise at each token that was predicted."""
        return -self.logprobs.gather(1, self.ids[self.at, None])[:, 0] / torch.tensor(2.0).double().log()

    @property
    def entropy(self) -> Float[Tensor, " N"]:
        """Bits of surprise to be expected there."""
        return torch.special.entr(self.logprobs.exp()).sum(-1) / torch.tensor(2.0).double().log()

    def spread(self, values: Tensor) -> list[float | None]:
        """A number for every token, None where it was not predicted."""
        spread: list[float | None] = [None] * len(self.tokens)
        for place, value in zip(self.at.tolist(), values.tolist(), strict=True):
            spread[place] = value
        return spread


def predictions(
    model: Recording | Model, text: Text, *, source: Source | Sequence[str] | None, masked: bool, purpose: str
) -> Predictions:
    """What was given to the tokens of a text, of several texts the first.

    Args:
        model: a model with a text, or a recording, whose edits stay in force.
        text: what is read.
        source: what an encoder–decoder reads.
        masked: of an encoder that fills gaps, hide each token in turn.
        purpose: what it is for, as the beginning of a sentence.

    Raises:
        ConfigError: an encoder without `masked`, another model with it, or a head that names no tokens.
        InputError: empty text, or more tokens than the context.
        NonFinite: the model computes a NaN or an infinity.
    """
    run = model.model if isinstance(model, Recording) else model
    names_tokens(run, purpose)
    if masked != isinstance(run.network, Encoder):
        raise ConfigError(
            "masked is for encoders that fill gaps; this model predicts each token from those before it: leave it out"
            if masked
            else f"{purpose} needs what comes before a token, but an encoder sees the token itself; masked=True hides "
            "each in turn (pseudo-log-likelihood)"
        )
    if not masked:
        recording = recording_of(model, text, ["logits"], source=source, first=True)
        ids, receipt = recording.ids[0], recording.receipt
        logprobs = recording.logits[0, :-1].double().log_softmax(-1)
        at = torch.arange(1, len(ids), device=ids.device)
        return Predictions(recording.tokens, ids, at, logprobs, receipt.difference, receipt.bytes)
    inputs = (model.inputs if isinstance(model, Recording) else inputs_of(run, text, source)).rows(0, 1)
    edits = model.edits if isinstance(model, Recording) else {}
    return _hidden_in_turn(run, inputs, ActiveTap(edits=edits))


@torch.no_grad()
def _hidden_in_turn(model: Model, inputs: Inputs, tap: ActiveTap) -> Predictions:
    """Each token out of all others (Salazar et al. 2020, "Masked Language Model Scoring")."""
    ids = inputs.ids[0]
    special = torch.tensor(sorted(model.tokenizer.special.values()), device=ids.device)
    real = torch.ones_like(ids, dtype=torch.bool) if inputs.mask is None else inputs.mask[0]
    at = (real & ~torch.isin(ids, special)).nonzero()[:, 0]
    if not len(at):
        raise InputError("the text has no token but special ones; give one with words")
    rows = max(1, LOGITS // (len(ids) * model.config.vocab_size))
    found = []
    for chosen in at.split(rows):
        copies = inputs.repeat(len(chosen))
        own = torch.arange(len(chosen), device=ids.device)
        hidden = copies.ids.clone()
        hidden[own, chosen] = model.tokenizer.mask or 0
        output = forward(model, replace(copies, ids=hidden), tap)[own, chosen]
        if not output.isfinite().all():
            raise NonFinite(f"{first_broken(model, inputs, {})} holds a NaN or an infinity, and so do the logits")
        found.append(output.double().log_softmax(-1))
    tokens = [model.tokenizer.token(i) for i in ids.tolist()]
    return Predictions(tokens, ids, at, torch.cat(found))
