"""What the lessons of loss and gradient ask a model for: of each kind what its own training would.

Shapes: B texts (one), T tokens, V outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.inputs import Inputs, Text, forward
from cutaway.interp.lessons.worked import given_to, model_of, names_of, place_in
from cutaway.interp.record import Recording
from cutaway.interp.target import choice_of, name_of
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.training.losses import IGNORE

KINDS = {"causal_lm": "next", "masked_lm": "masked", "sequence_classification": "label", "token_classification": "tag"}


@dataclass(frozen=True)
class Asked:
    """What a model is asked for.

    Attributes:
        kind: "next" token, "masked" token, "label" of the text, "tag" of a token.
        inputs: what it reads; of a masked token with a gap in its place.
        targets: (B, T) int64, -100 where nothing is asked; of labels (B,).
        place: the position that is looked at; None of a whole text.
        target: what should be answered there.
        name: that, to be read.
        tokens: of the text as it was given.
        places: positions that may be looked at.
        own: whether the text is read as it stands, so that a ledger of it opens the same numbers.
    """

    kind: str
    inputs: Inputs
    targets: Tensor
    place: int | None
    target: int
    name: str
    tokens: list[str]
    places: list[int]
    own: bool = True

    def scores(self, model: Recording | Model) -> Tensor:
        """(V,) float64: the logits that the answer is read from."""
        if isinstance(model, Recording) and self.own:
            output = model.logits[:1]
        else:
            with torch.no_grad():
                output = forward(model_of(model), self.inputs)
        row = output[0] if self.place is None else output[0, self.place]
        return row.detach().double()


def asked_of(
    model: Recording | Model,
    text: Text,
    source: Source | Sequence[str] | None,
    position: int | None = None,
    target: str | int | None = None,
) -> Asked:
    """What a model is asked for at a position of a text.

    Args:
        model: that predicts tokens or labels.
        text: of several texts the first.
        source: what an encoder–decoder reads.
        position: None: the last that has an answer; of a masked token one in the middle.
        target: the label that should be answered, where it is labels; None: the model's own answer.

    Raises:
        ConfigError: a model that is trained in another way.
        InputError: nothing can be asked there.
    """
    run = model_of(model)
    head = str(getattr(run.config, "head", "causal_lm"))
    if head not in KINDS or getattr(run.config, "labelling", "one") != "one":
        what = "for several labels at once" if head in KINDS else f"for {head}"
        raise ConfigError(f"a model with a head {what} is not trained by the cross-entropy of one answer")
    inputs = given_to(model, text, source)
    tokens, count = names_of(run, inputs.ids[0]), inputs.ids.shape[1]
    kind = KINDS[head]
    if kind == "next":
        if count < 2:
            raise InputError(
                "there is nothing to ask for: a text needs two tokens, so that one of them can be predicted"
            )
        place = place_in(count - 2 if position is None else position, count)
        if place == count - 1:
            raise InputError(f"no token follows position {place}, the last: ask for one of 0 … {count - 2}")
        targets = torch.full_like(inputs.ids, IGNORE)
        targets[:, :-1] = inputs.ids[:, 1:]
        wanted = int(targets[0, place])
        return Asked(kind, inputs, targets, place, wanted, name_of(run, wanted), tokens, list(range(count - 1)))
    if kind == "masked":
        return _masked(run, inputs, tokens, position)
    with torch.no_grad():
        output: Any = model.logits[:1] if isinstance(model, Recording) else forward(run, inputs)
    place = None if kind == "label" else place_in(-1 if position is None else position, count)
    row = output[0] if place is None else output[0, place]
    wanted = int(row.argmax()) if target is None else choice_of(run, target, head)[0]
    targets = torch.tensor([wanted], device=inputs.ids.device)
    if place is not None:
        targets = torch.full_like(inputs.ids, IGNORE)
        targets[0, place] = wanted
    places = [] if place is None else list(range(count))
    return Asked(kind, inputs, targets, place, wanted, name_of(run, wanted), tokens, places)


def _masked(run: Model, inputs: Inputs, tokens: list[str], position: int | None) -> Asked:
    gap = run.tokenizer.mask
    if gap is None:
        raise ConfigError("this model's tokenizer has no token for a gap")
    special = set(run.tokenizer.special.values())
    places = [i for i, id in enumerate(inputs.ids[0].tolist()) if id not in special]
    if not places:
        raise InputError("there is nothing to ask for: the text has no token that could be hidden")
    place = places[len(places) // 2] if position is None else place_in(position, inputs.ids.shape[1])
    if place not in places:
        raise InputError(f"position {place} holds a special token, which is not asked for: take one of {places}")
    wanted = int(inputs.ids[0, place])
    ids, targets = inputs.ids.clone(), torch.full_like(inputs.ids, IGNORE)
    ids[0, place], targets[0, place] = gap, wanted
    return Asked(
        "masked", replace(inputs, ids=ids), targets, place, wanted, name_of(run, wanted), tokens, places, False
    )
