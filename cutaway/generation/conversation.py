"""A conversation with a model: turns in its chat template, kept within its context.

What was said is rendered anew at every turn, and the engine finds the beginning of it computed already, so that a turn
costs its own tokens.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from cutaway.errors import InputError
from cutaway.generation.engine import Engine
from cutaway.generation.request import Request, Token
from cutaway.generation.ticket import Ticket
from cutaway.generation.turn import PLAIN_STOP, check_format, turn_ids

LONGEST_ANSWER = 512  # tokens, where nobody says how many


class Conversation:
    """Turns with one model.

    Args:
        engine: what answers.
        system: what the model is told first, if anything.
        format: "template", the tokenizer's own; or "plain", for a model that has none: every message in a paragraph of
            its own, behind "User: " or "Assistant: ".
        max_new_tokens: of an answer at the most; None: as the checkpoint recommends, or 512, or half the context.
        seed: the i-th answer is drawn with seed + i.
        options: the others of `Request`: sampling, stop, tenant, speculate …

    Attributes:
        messages: {"role": …, "content": …} of what was said and is remembered, in order, the system's first.
        forgotten: messages that were dropped because the context was full.
        ticket: the engine's for the last answer.
        finish_reason: of the last answer; None before its end.

    Raises:
        ConfigError: an unknown format, or a model without a chat template.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        system: str | None = None,
        format: str = "template",
        max_new_tokens: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        model = engine.model
        check_format(model, format)
        self.engine, self.format, self.options = engine, format, options
        self.seed, self.turn, self._asked = seed, 0, max_new_tokens
        context = getattr(model.config, "context", 0)
        self.context = context or 2**62  # a recurrent network sees all
        longest = max_new_tokens or model.generation.max_new_tokens or LONGEST_ANSWER
        self.longest = longest if max_new_tokens else min(longest, max(1, self.context // 2))
        self.messages: list[dict[str, str]] = []
        self.forgotten = 0
        self.ticket: Ticket | None = None
        self.finish_reason: str | None = None
        self.system = system

    @property
    def system(self) -> str | None:
        """What the model is told first."""
        first = self.messages[:1]
        return first[0]["content"] if first and first[0]["role"] == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        rest = self.messages[self.system is not None :]
        self.messages = [{"role": "system", "content": text}, *rest] if text else rest

    def reset(self) -> None:
        """Forget what was said, but for the system's message."""
        self.messages = self.messages[: self.system is not None]
        self.forgotten = 0

    def with_engine(self, engine: Engine) -> Conversation:
        """The same conversation, as far as it went, with another model.

        Args:
            engine: what answers from now on.

        Raises:
            ConfigError: a model that cannot hold it, as it has no chat template.
        """
        other = Conversation(engine, format=self.format, max_new_tokens=self._asked, seed=self.seed, **self.options)
        other.messages, other.forgotten, other.turn = [*self.messages], self.forgotten, self.turn
        return other

    def undo(self) -> None:
        """Forget the last thing that was said, and its answer."""
        places = [place for place, message in enumerate(self.messages) if message["role"] == "user"]
        del self.messages[places[-1] if places else len(self.messages) :]

    def say(self, text: str) -> Generator[Token, None, None]:
        """Say something; the answer comes token by token, and is remembered as far as it was read.

        Args:
            text: what the user says.

        Raises:
            InputError: it alone, with the system's message, is longer than the context.
            ConfigError: the template refuses it.
        """
        before = [*self.messages], self.forgotten
        self.messages.append({"role": "user", "content": text})
        try:
            prompt = self._fitting()
            stop = self.options.get("stop")
            if self.format == "plain":
                stop = [*([stop] if isinstance(stop, str) else stop or []), PLAIN_STOP]
            options: Mapping[str, Any] = {**self.options, "stop": stop}
            room = max(1, min(self.longest, self.context - len(prompt)))
            request = Request(prompt=prompt, max_new_tokens=room, seed=self.seed + self.turn, **options)
            ticket = self.ticket = self.engine.submit(request)
        except BaseException:
            self.messages, self.forgotten = before
            raise
        self.turn, self.finish_reason = self.turn + 1, None
        said: list[str] = []
        try:
            for token in ticket:
                said.append(token.text)
                self.finish_reason = token.finish_reason
                yield token
        finally:  # also where the reader has read enough
            if not ticket.done:
                ticket.cancel()
                self.finish_reason = "cancelled"
            self.messages.append({"role": "assistant", "content": "".join(said).strip()})

    def _fitting(self) -> list[int]:
        """The conversation as ids, without the oldest turns where it is too long.

        Where it is, it is cut down to half the context, not by just one turn: what the engine holds of it is of no use
        once its beginning is another, and that should not happen at every turn.
        """
        ids = self._ids()
        if len(ids) + self.longest <= self.context:
            return ids
        first = int(self.system is not None)
        while len(self.messages) > first + 1 and len(ids) > self.context // 2:
            del self.messages[first]
            self.forgotten += 1
            while len(self.messages) > first + 1 and self.messages[first]["role"] != "user":
                del self.messages[first]  # an answer without its question
                self.forgotten += 1
            ids = self._ids()
        if len(ids) >= self.context:
            raise InputError(
                f"what was said has {len(ids):,} tokens, but this model's context is {self.context:,}; say it in parts"
            )
        return ids

    def _ids(self) -> list[int]:
        return turn_ids(self.engine.model, self.messages, format=self.format)
