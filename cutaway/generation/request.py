"""What is asked of the engine, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cutaway.errors import ConfigError, unknown
from cutaway.models import OFF, Model, Tap
from cutaway.models.model import Source

FinishReason = Literal["length", "stop", "end", "cancelled"]
EarlyStopping = bool | Literal["never"]  # of a beam search
Alternatives = tuple[tuple[int, float], ...]  # likeliest first: (id, log-probability)
Score = tuple[float, Alternatives]  # of a token that was given: its log-probability, and the likeliest in its place


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it. What is left at None is as the checkpoint recommends, where it does.

    Attributes:
        prompt: text or ids; an empty one begins a new text. Of an encoder–decoder what `Model.source_ids` takes.
        sampling: option -> value of those of `Sampling`, None where the caller says nothing; top_k 0 is none.
        max_new_tokens: how many tokens at the most; None: as recommended, or 100. 0 only reads the prompt, for its
            `prompt_logprobs`.
        stop: end before any of these strings; they may span tokens; None: as recommended.
        seed: the same seed and prompt give the same tokens, whatever is computed beside them.
        n: continuations of the one prompt, which is computed once; the i-th is drawn with (seed, i).
        logprobs: how many of the likeliest tokens are told beside each that was chosen.
        prompt_logprobs: tell the log-probability of each token of the prompt (of an encoder–decoder's target), and
            beside it so many of the likeliest; None: do not. The prompt is then computed anew, whatever is found of it.
        target: text or ids that an encoder–decoder's target begins with, behind its first token; of a model of sound,
            ids among which that token is are all of it (Whisper is told before it what was said before).
        tenant: whose request it is. Nothing computed for one tenant is ever used for another, not even to be faster.
        adapter: which of the adapters that the engine holds is computed beside the weights; None: none. What was
            computed with one is never used for another.
        tap: reads or replaces activations, of the prompt and then of each new token.
        beams: above 1, search with this many hypotheses instead of drawing (see `beams`); the best n are told.
        length_penalty: a hypothesis' score is its log-probability over its length to this power (beam search).
        early_stopping: when a beam search is over: True: as soon as there are so many whole texts as beams; False: when
            the others could not be better if they ended now; "never": not at any length.
        speculate: how to guess tokens ahead: "lookup", or a smaller model of the same tokens, a draft; None: not at
            all. It changes no probability.
        schema: the text is JSON that this JSON Schema allows; of these four at most one (see `constrain`).
        regex: the text matches this regular expression.
        grammar: the text is of this grammar.
        choices: the text is one of these.
        phrases: strings that the text will hold, as whole words, found by a beam search that makes room for them (see
            `required`); it has as many beams as that takes.
    """

    prompt: Source
    sampling: Mapping[str, Any] = field(default_factory=dict)
    max_new_tokens: int | None = None
    stop: str | Sequence[str] | None = None
    seed: int = 0
    n: int = 1
    logprobs: int = 0
    prompt_logprobs: int | None = None
    target: str | Sequence[int] = ()
    tenant: str = ""
    adapter: str | None = None
    tap: Tap = OFF
    beams: int | None = None
    length_penalty: float | None = None
    early_stopping: EarlyStopping | None = None
    speculate: Literal["lookup"] | Model | None = None
    schema: Mapping[str, Any] | str | None = None
    regex: str | None = None
    grammar: str | None = None
    choices: Sequence[str] | None = None
    phrases: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check what is a number.

        Raises:
            ConfigError: of the wrong type or out of range.
        """
        scored = self.prompt_logprobs is not None
        for name, least in (("max_new_tokens", 1 - scored), ("beams", 1), ("prompt_logprobs", 0)):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)
        for name, least in (("seed", 0), ("n", 1), ("logprobs", 0)):
            check_whole(name, getattr(self, name), least)
        penalty = self.length_penalty
        number = isinstance(penalty, int | float) and not isinstance(penalty, bool)
        if penalty is not None and not (number and -100 <= penalty <= 100):
            raise ConfigError(f"length_penalty must be a number in -100 … 100, but {penalty!r} was given")
        if self.early_stopping is not None and self.early_stopping not in (True, False, "never"):
            raise ConfigError(f'early_stopping must be true, false or "never", but {self.early_stopping!r} was given')
        if isinstance(self.speculate, str) and self.speculate != "lookup":
            raise ConfigError(unknown("way to guess ahead:", self.speculate, ["lookup"]))


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token.

    Attributes:
        id: in the vocabulary.
        text: what it adds to the text; "" while a character or a stop string is incomplete.
        logprob: natural log of its probability under the model, before any sampling option.
        finish_reason: None until the last one.
        top: the likeliest tokens in its place, as many as were asked for.
        sample: which of a request's n continuations it is of.
    """

    id: int
    text: str
    logprob: float
    finish_reason: FinishReason | None = None
    top: Alternatives = ()
    sample: int = 0


@dataclass(frozen=True)
class Generation:
    """A continued prompt.

    Attributes:
        prompt: what was given, text or ids.
        text: the continuation alone, up to a stop string.
        ids: the generated tokens.
        logprobs: of each under the model.
        finish_reason: "length" (max_new_tokens), "stop" (a stop string), "end" (the model ended the text, or what it is
            held to is complete) or "cancelled".
        seed: what was drawn with.
        top: beside each token the likeliest ones, where they were asked for.
        guessed: tokens that were guessed ahead.
        acceptance: of these, the share that was right; None: none were guessed.
        prompt_tokens: of the prompt, or of an encoder–decoder's target before the first generated one.
        cached_tokens: of these, how many were found computed already.
        prompt_ids: the prompt as the model read it, where `prompt_logprobs` were asked for.
        prompt_logprobs: of each of them; of the first, which nothing predicts, None.
    """

    prompt: str | list[int]
    text: str
    ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    seed: int
    top: list[Alternatives] = field(default_factory=list)
    guessed: int = field(default=0, compare=False)
    acceptance: float | None = field(default=None, compare=False)
    prompt_tokens: int = field(default=0, compare=False)
    cached_tokens: int = field(default=0, compare=False)
    prompt_ids: list[int] = field(default_factory=list)
    prompt_logprobs: list[Score | None] = field(default_factory=list)


def check_whole(name: str, value: int, least: int) -> None:
    """Refuse what is no whole number from `least` up.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise ConfigError(f"{name} must be at least {least} and a whole number below 2^63, but {value!r} was given")
