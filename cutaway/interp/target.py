"""The number that an analysis asks about: a logit, a difference of two, or a probability, at one place.

Shapes: B texts, T tokens, V what the model chooses among (tokens, labels, or channels of a vector).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.inputs import Inputs, forward
from cutaway.models import Model, Seq2SeqConfig
from cutaway.models.heads import width_of

Quantity = Literal["logit", "logprob", "prob"]
WORDS = ("causal_lm", "masked_lm")  # heads that choose among tokens


@dataclass(frozen=True)
class Target:
    """One number of a model's output for each text.

    Attributes:
        what: to be read, such as "logit of “ Paris” minus that of “ Rome” after “ is” (position 5)".
        position: of each text, as `Inputs.places` takes it; None where there is one output for a whole text.
        chosen: which of V.
        other: which is subtracted; None: nothing is.
        quantity: "logit", "logprob" (nats) or "prob".
    """

    what: str
    position: int | None
    chosen: int
    other: int | None = None
    quantity: Quantity = "logit"

    def __call__(self, output: Float[Tensor, "B ..."], inputs: Inputs) -> Float[Tensor, " B"]:
        """The number of each text, (B,), in the dtype of the output; gradients pass."""
        rows = output if self.position is None else at_position(output, inputs, self.position)
        rows = rows if rows.ndim == 2 else rows[:, None]  # (B, V)
        if self.quantity != "logit":
            rows = rows.log_softmax(-1) if self.quantity == "logprob" else rows.softmax(-1)
        return rows[:, self.chosen] if self.other is None else rows[:, self.chosen] - rows[:, self.other]


def at_position(output: Float[Tensor, "B T ..."], inputs: Inputs, position: int) -> Float[Tensor, "B ..."]:
    """What stands at one position of each text."""
    return output[torch.arange(len(output), device=output.device), inputs.places(position).to(output.device)]


def target_of(
    model: Model,
    inputs: Inputs,
    *,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    output: Tensor | None = None,
) -> Target:
    """Which number is asked about.

    Args:
        model: what computes it.
        inputs: of which the first text chooses the likeliest.
        token: a next token as text or id; with a head for labels a label or its number, with one that makes vectors a
            channel; None takes the likeliest.
        minus: another one, which is subtracted: why the one rather than the other.
        position: after which token, or of which token where the model answers for each; -1 is the last, or of a model
            that fills gaps the first gap.
        quantity: "logit", "logprob" or "prob".
        output: of the model for these inputs, if it is known.

    Raises:
        ConfigError: an unknown quantity, or a probability where there are only vectors.
        InputError: a position outside the text, or a token or label that is none.
    """
    head = getattr(model.config, "head", "causal_lm")
    vectors = head in ("none", "embedding")
    if quantity not in ("logit", "logprob", "prob"):
        raise ConfigError(unknown("quantity", str(quantity), ["logit", "logprob", "prob"]))
    if quantity != "logit" and (vectors or head == "replaced_token"):
        raise ConfigError(f"a model with a head for {head} gives no probabilities to ask for; leave quantity at logit")
    whole = head in ("sequence_classification", "embedding")
    place: int | None = None if whole else _place(model, inputs, position, head)
    if token is None:
        output = _plain(model, inputs) if output is None else output
        row = output if place is None else at_position(output, inputs, place)
        token = int(row.reshape(len(row), -1)[0].argmax())
    chosen, name = choice_of(model, token, head)
    other = None
    said = {"logit": "channel" if vectors else "logit", "logprob": "log-probability", "prob": "probability"}[quantity]
    what = f"{said} {'' if vectors else 'of '}{name}"
    if minus is not None:
        other, other_name = choice_of(model, minus, head)
        what += f" minus that of {other_name}"
    if place is not None:
        at, tokens = int(inputs.places(place)[0]), model.tokenizer.target or model.tokenizer
        word = "after" if head == "causal_lm" else "at"
        what += f" {word} “{tokens.token(int(inputs.ids[0, at]))}” (position {at})"
    return Target(what, place, chosen, other, quantity)


@torch.no_grad()
def _plain(model: Model, inputs: Inputs) -> Tensor:
    return forward(model, inputs.rows(0, 1))


def _place(model: Model, inputs: Inputs, position: int, head: str) -> int:
    if head == "masked_lm" and position == -1 and model.tokenizer.mask is not None:
        gaps = (inputs.ids[0] == model.tokenizer.mask).nonzero().flatten()
        if len(gaps):
            return int(gaps[0])
    inputs.places(position)  # it must be there
    return position


def name_of(model: Model, number: int) -> str:
    """What a model calls one of its answers: a token, a label, or a number where there is no name."""
    head = getattr(model.config, "head", "causal_lm")
    if head in WORDS:
        return (model.tokenizer.target or model.tokenizer).token(number)
    labels = _labels(model, head)
    return labels[number] if labels else str(number)


def _labels(model: Model, head: str) -> list[str]:
    return list(getattr(model.config, "labels", ()) or {"span_extraction": ("start", "end")}.get(head, ()))


def choice_of(model: Model, given: str | int, head: str) -> tuple[int, str]:
    """The number of a token, label or channel, and how it is called."""
    if head in WORDS:
        number = (model.tokenizer.target or model.tokenizer).id(given) if isinstance(given, str) else given
        count, kind = model.config.vocab_size, "token ids"
    else:
        labels = _labels(model, head)
        if isinstance(given, str):
            if given not in labels:
                if not labels:
                    raise InputError(f"a head for {head} has numbers, not names: give one as a whole number")
                raise InputError(unknown("label", given, labels))
            given = labels.index(given)
        number, kind = given, "labels" if labels else "channels"
        width = model.config.width if isinstance(model.config, Seq2SeqConfig) else width_of(model.config)
        count = len(labels) or (1 if head == "replaced_token" else width)
    if not 0 <= number < count:
        raise InputError(f"{kind} must lie in 0 … {count - 1}, but {number} was given")
    name = name_of(model, number)
    return number, f"“{name}”" if kind != "channels" else name
