"""How fast a generation was, for people and for machines."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from cutaway.generation.engine import Engine
from cutaway.generation.request import Generation, Token
from cutaway.generation.ticket import Ticket


class Watch:
    """Times tokens and counts them; it starts when it is made.

    Attributes:
        first: seconds until the first new token; None before it.
        seconds: until the last one.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.first, self.seconds = engine, None, 0.0
        self._start, self._prompts, self._searched = time.perf_counter(), [0, 0, 0], False
        self._texts, self._new, self._guessed = 0, 0, []

    def tokens(self, tokens: Iterable[Token]) -> Iterator[Token]:
        """The same, timed."""
        for token in tokens:
            self.seconds = time.perf_counter() - self._start
            self.first = self.seconds if self.first is None else self.first
            yield token

    def results(self, ticket: Ticket) -> list[Generation]:
        """All that a ticket gives, counted; to be asked once of each."""
        for _ in self.tokens(ticket):  # those that nobody has read
            pass
        made = ticket.results()
        self.seconds = time.perf_counter() - self._start
        self._texts += len(made)
        self._searched |= ticket.beams > 1  # which tells all of its tokens at its end
        self._new += sum(len(one.ids) for one in made)
        self._guessed += [one.acceptance for one in made if one.acceptance is not None]
        counts = (1, ticket.prompt_tokens, ticket.cached_tokens)
        self._prompts = [a + b for a, b in zip(self._prompts, counts, strict=True)]
        return made

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        guessed = self._guessed
        _, read, cached = self._prompts
        return {
            "prompt_tokens": read,
            "cached_tokens": cached,
            "new_tokens": self._new,
            "first_token_s": self.first and round(self.first, 4),
            "seconds": round(self.seconds, 4),
            "tokens_per_s": round(self._rate, 2),
            "acceptance": round(sum(guessed) / len(guessed), 4) if guessed else None,
            "backend": self.engine.backend.name,
        }

    def __str__(self) -> str:
        found = self.to_json()
        prompts = f"{self._prompts[0]} prompts" if self._prompts[0] > 1 else "a prompt"
        parts = [f"{prompts} of {found['prompt_tokens']:,} tokens"]
        if found["cached_tokens"]:
            parts[0] += f" ({found['cached_tokens']:,} found computed)"
        if self.first is not None:
            parts.append(f"the first new token after {self.first:.2f} s")
        parts.append(f"{self._new:,} new tokens in {self.seconds:.2f} s, {self._rate:,.0f} a second")
        if found["acceptance"] is not None:
            parts.append(f"{found['acceptance']:.0%} of the guesses right")
        return f"{'; '.join(parts)}; {self.engine.backend.name}: {self.engine.backend.reason}"

    @property
    def _rate(self) -> float:
        """New tokens a second: behind the first, where one text comes token by token, else over all the time."""
        alone = self._texts == 1 and not self._searched
        if alone and self.first is not None and self._new > 1 and self.seconds > self.first:
            return (self._new - 1) / (self.seconds - self.first)
        return self._new / self.seconds if self.seconds else 0.0
