"""How likely a model finds what follows a context: many of them at a time, through the generation engine.

An encoder that fills gaps has no likelihood of a text; its pseudo-log-likelihood, each token hidden in turn, ranks
sentences all the same (Salazar et al. 2020, "Masked Language Model Scoring").
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cutaway.errors import ConfigError, NonFinite
from cutaway.evaluation.boundaries import Cut
from cutaway.generation import Engine, Request, Ticket
from cutaway.interp.text.predictions import predictions
from cutaway.models import Decoder, Encoder, Model, Seq2Seq

AHEAD = 4  # requests that wait for each that is computed


@dataclass(frozen=True)
class Likelihood:
    """Of one continuation.

    Attributes:
        logprobs: natural log of the probability of each of its tokens, after those before it.
        greedy: whether each of them is the likeliest in its place.
        cut: whether the beginning of the context was left out, as the model does not see so much.
    """

    logprobs: tuple[float, ...]
    greedy: bool
    cut: bool = False

    @property
    def logprob(self) -> float:
        """Of the whole continuation."""
        return math.fsum(self.logprobs)


def likelihoods(engine: Engine, cuts: Iterable[Cut]) -> Iterator[Likelihood]:
    """How likely each continuation is, in their order; any number of them, in little memory.

    Args:
        engine: of a model that predicts the next token.
        cuts: contexts and continuations; of one that is too long the last tokens are read.

    Raises:
        ConfigError: a model that does not predict the next token.
        NonFinite: it computes a NaN or an infinity.
    """
    model = engine.model
    model.speaker("a likelihood")
    context = model.config.context if isinstance(model.network, Decoder) else None
    waiting: deque[tuple[Ticket, Cut, bool]] = deque()
    try:
        for given in cuts:
            kept = given.within(context)
            request = Request(kept.ids, max_new_tokens=0, prompt_logprobs=1)
            waiting.append((engine.submit(request), kept, kept is not given))
            if len(waiting) >= AHEAD * engine.max_batch:
                yield _read(*waiting.popleft())
        while waiting:
            yield _read(*waiting.popleft())
    finally:
        for ticket, _, _ in waiting:
            ticket.cancel()


def _read(ticket: Ticket, kept: Cut, shortened: bool) -> Likelihood:
    scores = [score for score in ticket.result().prompt_logprobs[kept.start :] if score is not None]
    if not all(math.isfinite(logprob) for logprob, _ in scores):
        raise NonFinite("the model computes a NaN, or gives a token of a text no probability at all")
    greedy = all(logprob >= top[0][1] for logprob, top in scores)
    return Likelihood(tuple(logprob for logprob, _ in scores), greedy, shortened)


def pseudo_likelihoods(model: Model, sentences: Sequence[str]) -> Iterator[Likelihood]:
    """The pseudo-log-likelihood of each sentence: the sum over its tokens, each hidden in turn.

    Raises:
        ConfigError: an encoder that does not fill gaps.
        NonFinite: it computes a NaN or an infinity.
    """
    for sentence in sentences:
        found = predictions(model, sentence.strip(), source=None, masked=True, purpose="a pseudo-likelihood")
        right = found.ids[found.at]
        logprobs = found.logprobs.gather(1, right[:, None])[:, 0]
        yield Likelihood(tuple(logprobs.tolist()), bool((found.logprobs.argmax(-1) == right).all()))


def refuse(model: Model, kind: str) -> None:
    """Refuse a model that cannot answer this kind of questions.

    Args:
        model: what is to be evaluated.
        kind: of a suite, or "texts".

    Raises:
        ConfigError: says what it is, and what it could be asked.
    """
    name = model.source or "this model"
    if isinstance(model.network, Seq2Seq):
        raise ConfigError(
            f"{name} is an encoder–decoder: it gives a target a probability after a source, and a text alone none; "
            "measure what it writes"
        )
    if isinstance(model.network, Encoder) and kind != "pairs":
        raise ConfigError(
            f"{name} is an encoder: it fills gaps, and gives no text a probability, so of {kind} nothing is measured; "
            "minimal pairs are ranked by its pseudo-log-likelihood"
        )
    if not isinstance(model.network, Encoder):
        model.speaker("an evaluation")
