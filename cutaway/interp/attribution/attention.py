"""Attribution by attention and its gradient.

Shapes: H heads, T tokens, S source tokens, N places (source, then text).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, unknown
from cutaway.interp.attribution.question import Attribution, Question, question_of
from cutaway.interp.attribution.spans import Grain
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, replace
from cutaway.interp.target import Quantity
from cutaway.models import Model, Recurrent
from cutaway.models.model import Source

HOW = ("relevance", "sum")


def attention_x_gradient(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    grain: Grain | str = "token",
    how: str = "relevance",
) -> Attribution:
    """Each pattern times the gradient of a number with respect to it: what attention to a token adds to the number.

    "relevance" carries it through the layers (Chefer et al. 2021, Generic Attention-model Explainability): what is
    negative is left out, heads are averaged, each layer adds its part to what the layers before have gathered, and the
    row of the asked position is read. These scores are never negative. "sum" adds up pattern × gradient over layers,
    heads and queries, signs kept: to first order what the number would lose if nobody looked at the token.

    Args:
        model: any model with attention, with a text; or a recording, whose run (with its edits) is explained.
        text: of several texts the first.
        source: what an encoder–decoder reads; its tokens (or frames) get scores too.
        token: which output is explained, as in `target_of`; None takes the likeliest.
        minus: another output, which is subtracted: why the one rather than the other.
        position: after or at which token.
        quantity: "logit", "logprob" or "prob".
        grain: "token", "word" or "sentence"; a word's score is the sum of its tokens'.
        how: "relevance" or "sum".

    Raises:
        ConfigError: a recurrent model, which has no attention, or an unknown option.
        InputError: as in `target_of`.
    """
    given = {"source": source, "token": token, "minus": minus, "position": position, "quantity": quantity}
    run = model.model if isinstance(model, Recording) else model
    if isinstance(run.network, Recurrent):
        raise ConfigError("a recurrent model has no attention; take integrated_gradients or occlusion instead")
    if how not in HOW:
        raise ConfigError(unknown("how", str(how), HOW))
    shown = model if isinstance(model, Recording) else text
    clock = Clock(run, "attention_x_gradient", shown, **given, grain=grain, how=how)
    question = question_of(model, text, **given)
    question.units(grain)
    names = [name for name in run.network.tap_names() if name.endswith("attn.pattern")]
    recording = replace(question.model, question.inputs, question.edits, names, gradients=question.target)
    assert recording.gradients is not None
    parts = {name: (recording[name][0] * recording.gradients[name][0]).cpu() for name in names}  # (H, T, S) each
    scores = question.finite(_added(question, parts) if how == "sum" else _carried(question, parts))
    value = float(question.many(question.vectors[None]))
    receipt = clock.receipt(bytes=recording.receipt.bytes, difference=recording.receipt.difference)
    return question.result("attention × gradient", scores, grain, receipt, value=value)


def _added(question: Question, parts: dict[str, Tensor]) -> Float[Tensor, " N"]:
    like = next(iter(parts.values()))
    sides = {side: like.new_zeros(count) for side, count in zip(question.sides, question.counts, strict=True)}
    for name, part in parts.items():
        side = "source" if name.startswith("encoder.") or ".cross_attn." in name else "text"
        sides[side] = sides[side] + part.sum(dim=(0, 1))
    return torch.cat(list(sides.values()))


def _carried(question: Question, parts: dict[str, Tensor]) -> Float[Tensor, " N"]:
    """Chefer's rules 5, 6 and 9 to 11; rows are what looks, columns what has been gathered of each token."""
    means = {name: part.clamp(min=0).mean(dim=0) for name, part in parts.items()}
    read, count = question.counts[0], question.counts[-1]
    like = next(iter(means.values()))
    source, own = torch.eye(read).to(like), torch.eye(count).to(like)
    of_source = like.new_zeros(count, read)  # what the text has gathered of the source
    for name, mean in means.items():
        if name.startswith("encoder."):
            source = source + mean @ source
        elif ".cross_attn." in name:
            of_source = of_source + _normed(own).T @ mean @ _normed(source)
        else:
            own = own + mean @ own
            of_source = of_source + mean @ of_source if len(question.sides) > 1 else of_source
    rows = _asked(question).to(like)
    text = rows @ own
    return text if len(question.sides) == 1 else torch.cat((rows @ of_source, text))


def _normed(gathered: Float[Tensor, "T T"]) -> Float[Tensor, "T T"]:
    """What was gathered beside itself, each row to a sum of 1, and itself."""
    itself = torch.eye(len(gathered)).to(gathered)
    beside = gathered - itself
    return beside / beside.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(beside.dtype).tiny) + itself


def _asked(question: Question) -> Float[Tensor, " T"]:
    """How much each token's row counts for the answer; they sum to 1."""
    real = question.real[sum(question.counts[:-1]) :]
    if question.target.position is not None:
        weights = torch.zeros(len(real))
        weights[int(question.inputs.places(question.target.position)[0])] = 1
        return weights
    places = real.nonzero().flatten()
    pooling = getattr(question.model.config, "pooling", "mean")
    if pooling in ("cls", "last"):
        places = places[:1] if pooling == "cls" else places[-1:]
    weights = torch.zeros(len(real))
    weights[places] = 1 / len(places)
    return weights
