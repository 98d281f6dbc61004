"""How a Whisper is told what to write: the tokens that its targets begin with (Radford et al. 2022, section 2.3).

    <|startofprev|> what was said before <|startoftranscript|> <|en|> <|transcribe|> <|notimestamps|> …

The names of these tokens are those of its tokenizer. A model that has none of them writes what it hears, and cannot be
told anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.generation.request import Alternatives
from cutaway.models import Model, Seq2Seq
from cutaway.models.generation_config import usable

Job = Literal["transcribe", "translate"]
LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")  # the second is what older tokenizers call it
WITHOUT_TIMES, BEFORE = "<|notimestamps|>", "<|startofprev|>"


@dataclass(frozen=True)
class Speech:
    """What a model can be told.

    Attributes:
        start: the token that every target begins with.
        languages: code -> its token; empty where a model knows but one.
        jobs: of "transcribe" and "translate" (into English) those that it can be told -> token.
        without_times: the token that says so, if there is one.
        before: the token before what was said before, if there is one.
        no_speech: the token that says that nobody speaks, if there is one.
        room: most tokens of what was said before.
    """

    start: int
    languages: dict[str, int]
    jobs: dict[str, int]
    without_times: int | None
    before: int | None
    no_speech: int | None
    room: int

    def target(self, language: str | None, job: Job, said: Sequence[int] = ()) -> list[int]:
        """What a target begins with, `start` in its place.

        Args:
            language: its code; None for a model that knows but one.
            job: what to write.
            said: ids of what was said before.

        Raises:
            ConfigError: a language or a job that the model does not know.
            InputError: more was said before than there is room for.
        """
        if len(said) > self.room:
            raise InputError(f"what was said before has {len(said)} tokens, but this model takes {self.room}")
        if said and self.before is None:
            raise ConfigError("this model cannot be told what was said before")
        if language is not None and language not in self.languages:
            if not self.languages:
                raise ConfigError("this model knows one language and cannot be told another; leave it out")
            raise ConfigError(unknown("language", language, self.languages))
        told = [] if language is None else [self.languages[language]]
        if job in self.jobs:
            told.append(self.jobs[job])
        elif job == "translate":
            raise ConfigError("this model writes what it hears, and cannot translate it")
        last = [] if self.without_times is None else [self.without_times]
        first = [] if not said or self.before is None else [self.before, *said]
        return [*first, self.start, *told, *last]

    def heard(self, alternatives: Alternatives) -> tuple[str | None, float]:
        """The likeliest language, and the probability that nobody speaks.

        Args:
            alternatives: to the first token behind `start`, likeliest first.
        """
        codes = {id: code for code, id in self.languages.items()}
        language = next((codes[id] for id, _ in alternatives if id in codes), None)
        return language, sum(math.exp(logprob) for id, logprob in alternatives if id == self.no_speech)


def speech(model: Model) -> Speech:
    """What a model that listens can be told.

    Raises:
        ConfigError: it does not listen.
    """
    network = model.network
    if not isinstance(network, Seq2Seq) or model.mel is None:
        raise ConfigError(f"{model.source or 'this model'} does not listen; give one that does, such as a Whisper")
    special, size = model.tokenizer.special, network.config.vocab_size
    found = {token: id for token, id in special.items() if id < size}
    languages = {match[1]: id for token, id in found.items() if (match := LANGUAGE.fullmatch(token))}
    jobs = {job: found[f"<|{job}|>"] for job in ("transcribe", "translate") if f"<|{job}|>" in found}
    if model.generation.raw.get("is_multilingual") is False:  # its tokenizer has the others' tokens all the same
        languages, jobs = {}, {}
    advised = usable([model.generation.decoder_start_token_id], size)
    return Speech(
        start=advised[0] if advised else network.config.start_id,
        languages=languages,
        jobs=jobs,
        without_times=found.get(WITHOUT_TIMES),
        before=found.get(BEFORE),
        no_speech=next((found[name] for name in NO_SPEECH if name in found), None),
        room=max(0, network.config.context // 2 - 1),
    )
