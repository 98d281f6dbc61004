"""From the ids of a continuation to its text, a token at a time: whole characters, and an end before a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cutaway.errors import ConfigError
from cutaway.generation.request import FinishReason
from cutaway.tokenizers import Tokenizer


class StopStrings:
    """Lets text through until one of the stop strings is complete; holds back what may become one.

    Args:
        stops: the strings.

    Raises:
        ConfigError: one that is no text, or empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        for stop in stops:
            if not isinstance(stop, str):
                raise ConfigError(f"stop must be text or several texts, but {stop!r} was given")
        if "" in stops:
            raise ConfigError("a stop string is empty, which would stop at once; leave it out or give some text")
        self.stops, self.held, self.hit = stops, "", False

    def add(self, text: str) -> str:
        """The text that is safe to show now."""
        if not self.stops:
            return text
        self.held += text
        places = [self.held.find(stop) for stop in self.stops]
        found = [place for place in places if place >= 0]
        if found:
            shown, self.held, self.hit = self.held[: min(found)], "", True
            return shown
        longest = max(
            (n for stop in self.stops for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0
        )
        shown, self.held = self.held[: len(self.held) - longest], self.held[len(self.held) - longest :]
        return shown

    def rest(self) -> str:
        """What was held back and did not become a stop string."""
        shown, self.held = self.held, ""
        return shown


class Decoding(Protocol):
    """What a tokenizer's `stream()` gives."""

    def add(self, id: int) -> str: ...
    def finish(self) -> str: ...


class Writer:
    """Writes one continuation.

    Args:
        tokenizer: of its ids.
        stops: end before any of these.
        ends: the ids that end a text; their own text is not shown.
        most: how many tokens there may be.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], ends: frozenset[int], most: int) -> None:
        self._decoder: Decoding = tokenizer.stream()
        self._stops, self._ends, self.left = StopStrings(stops), ends, most

    def add(self, id: int, finish: FinishReason | None = None) -> tuple[str, FinishReason | None]:
        """The text that a token adds, and why the text ends with it, if it does.

        Args:
            id: of the token.
            finish: why it ends here anyway.
        """
        self.left -= 1
        if id in self._ends:
            return self._stops.add(self._decoder.finish()) + self._stops.rest(), "end"
        text = self._stops.add(self._decoder.add(id))
        if self._stops.hit:
            return text, "stop"
        if finish is None and self.left:
            return text, None
        text += self._stops.add(self._decoder.finish())
        return text + self._stops.rest(), "stop" if self._stops.hit else finish or "length"
