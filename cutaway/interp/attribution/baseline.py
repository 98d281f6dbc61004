"""What stands in place of tokens that are taken away.

Shapes: N places (the tokens or frames of the source, then those of the text), C channels.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.attribution.question import Question, looked_up, scale_of
from cutaway.interp.inputs import Inputs, Text
from cutaway.models.model import Source

Baseline: TypeAlias = Literal["mean", "zero", "pad", "mask"]
BASELINES = ("mean", "zero", "pad", "mask")


@torch.no_grad()
def baseline_of(
    question: Question,
    kind: Baseline | str = "mean",
    reference: Text | None = None,
    reference_source: Source | None = None,
) -> Float[Tensor, "N C"]:
    """The vectors that stand in place of the tokens; special tokens and padding stay.

    Args:
        question: of whose text.
        kind: "mean" of all token vectors (of sound: of its frames), "zero", or the vector of the padding or mask token.
        reference: another text of as many tokens, whose vectors are taken instead; of an encoder–decoder a target.
        reference_source: likewise of what it reads.

    Raises:
        ConfigError: an unknown kind, a token that the tokenizer does not have, or one in place of sound; a
            reference_source for a model that reads none.
        InputError: a reference of another length.
    """
    if kind not in BASELINES:
        raise ConfigError(unknown("baseline", str(kind), BASELINES))
    if reference_source is not None and "source" not in question.sides:
        raise ConfigError("reference_source is for an encoder–decoder; this model reads no source")
    references = {"source": reference_source, "text": reference}
    found = []
    for side, count in zip(question.sides, question.counts, strict=True):
        if references[side] is None:
            found.append(_typical(question, side, kind))
            continue
        vectors = _other(question, side, references[side])
        if len(vectors) != count:
            raise InputError(
                f"the reference for the {side} has {len(vectors)} tokens, but the {side} has {count}; "
                "give one of the same length"
            )
        found.append(vectors)
    free = question.free[:, None].to(question.vectors.device)
    return torch.where(free, torch.cat(found), question.vectors)


def _other(question: Question, side: str, given: Any) -> Float[Tensor, "N C"]:
    """The vectors of another text or source."""
    model = question.model
    if side == "text":
        return looked_up(model, (given.ids if isinstance(given, Inputs) else model.ids(given))[0])
    ids = model.source_ids(given)
    if not ids.is_floating_point():
        return looked_up(model, ids[0])
    network: Any = model.network
    return network.encoder.listen(ids.to(network.embed_tokens.weight.dtype))[0]


def _typical(question: Question, side: str, kind: str) -> Float[Tensor, "N C"]:
    """One vector at every place of a side."""
    like, model = question.embedded(side), question.model
    if kind == "zero":
        return torch.zeros_like(like)
    if question.ids(side) is None:
        if kind != "mean":
            raise ConfigError(f"the baseline {kind} is a token, but this model listens; take mean or zero")
        return like.mean(dim=0).expand_as(like)
    if kind == "mean":
        return (model.network.embed_tokens.weight.mean(dim=0) * scale_of(model)).expand_as(like).to(like)
    tokenizer = model.tokenizer if side == "source" else model.tokenizer.target or model.tokenizer
    id = tokenizer.pad if kind == "pad" else tokenizer.mask
    if id is None:
        raise ConfigError(f"the tokenizer has no {kind} token to put in place of others; take mean or zero")
    return looked_up(model, torch.tensor([id], device=like.device)).expand_as(like)
