"""Which choosers run a request."""

from __future__ import annotations

from functools import partial

import numpy as np

from cutaway.errors import ConfigError
from cutaway.generation.beams import Beams
from cutaway.generation.choosing import Chooser
from cutaway.generation.constrain import Constrainer
from cutaway.generation.drafts import Drafted, Drafter
from cutaway.generation.prepare import Prepared
from cutaway.generation.request import Request
from cutaway.generation.required import Required
from cutaway.generation.sampler import Sampler
from cutaway.models import Model


def make_choosers(request: Request, prepared: Prepared, model: Model) -> tuple[list[Chooser], int]:
    """What chooses for a request: for each of its n continuations, or one for all of them.

    Returns:
        The choosers, and how many sequences they run together at the most.

    Raises:
        ConfigError: options that do not fit each other, or an invalid form.
    """
    held = None if prepared.form is None else Constrainer(model, prepared.form)
    if prepared.beams > 1:
        if request.speculate is not None:
            raise ConfigError("a beam search guesses nothing ahead; give beams or speculate")
        kind = partial(Required, phrases=prepared.phrases, tokenizer=model.tokenizer) if prepared.phrases else Beams
        search = kind(
            prepared.plan,
            prepared.count,
            prepared.ends,
            prepared.beams,
            n=request.n,
            length_penalty=prepared.length_penalty,
            early_stopping=prepared.early_stopping,
            renormalise=prepared.renormalise,
            logprobs=request.logprobs,
            constraint=None if held is None else held.start(),
        )
        return [search], prepared.beams
    drafter = None
    if isinstance(request.speculate, Model):
        drafter = _drafter(request.speculate, model)
    elif request.speculate not in (None, "lookup"):
        raise ConfigError(f'speculate must be "lookup" or a draft model, but {request.speculate!r:.60} was given')
    made: list[Chooser] = []
    for index in range(request.n):
        constraint, random = None if held is None else held.start(), generator(request.seed, index)
        if drafter is not None:
            made.append(Drafted(prepared.plan, random, drafter, constraint))
        else:
            made.append(Sampler(prepared.plan, random, constraint, request.speculate == "lookup"))
    return made, request.n


def generator(seed: int, index: int) -> np.random.Generator:
    """What a request's continuation of this number is drawn with."""
    return np.random.default_rng([seed, index])


def _drafter(draft: Model, target: Model) -> Drafter:
    """The draft with its backend: kept on the draft as long as neither changes."""
    state = draft.fingerprint(), target.fingerprint()
    if draft.drafter is None or draft.drafter[0] != state:
        draft.drafter = state, Drafter(draft, target)
    return draft.drafter[1]
