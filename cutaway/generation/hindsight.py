"""An answer looked at afterwards: what the model gave each of its tokens, and what it would rather have written."""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.errors import InputError
from cutaway.generation.engine import Engine
from cutaway.generation.request import Alternatives, Request
from cutaway.generation.ticket import Ticket

TOP = 50


@dataclass(frozen=True)
class Weighed:
    """One token of an answer.

    Attributes:
        id: in the vocabulary.
        logprob: natural log of its probability under the model, before any sampling option.
        rank: 1 where it was the likeliest; None where it is not among those of `top`.
        top: the likeliest in its place.
    """

    id: int
    logprob: float
    rank: int | None
    top: Alternatives


def weighed(engine: Engine, ticket: Ticket, *, top: int = TOP) -> list[Weighed]:
    """The tokens of an answer, each with what the model gave it; the prompt and the answer are read once more.

    Args:
        engine: what wrote it.
        ticket: of the answer, which must be complete; of several the first.
        top: how many of the likeliest are told beside each token.

    Raises:
        InputError: nothing was written.
    """
    written = ticket.result().ids
    if not written:
        raise InputError("the answer has no tokens")
    ids = [*ticket.prompt_ids, *written]
    asked = ticket.request
    request = Request(ids, max_new_tokens=0, prompt_logprobs=top, tenant=asked.tenant, adapter=asked.adapter)
    read = engine.submit(request).result()
    found = []
    for id, score in zip(written, read.prompt_logprobs[-len(written) :], strict=True):
        assert score is not None  # only the first token of all has none
        logprob, likeliest = score
        ranks = (rank for rank, (other, _) in enumerate(likeliest, 1) if other == id)
        found.append(Weighed(id, logprob, next(ranks, None), likeliest))
    return found
