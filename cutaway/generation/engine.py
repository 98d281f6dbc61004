"""The engine: many requests, one step at a time.

Shapes: W wanted rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Any

from cutaway.generation.backend import Backend
from cutaway.generation.request import Generation, Request, Token
from cutaway.models import Model


class Ticket:
    """What `Engine.submit` gives: the tokens of a request as they come.

    Iterating it steps the engine where no other thread does.

    Attributes:
        request: what was asked.
        prompt_tokens: of the prompt.
        cached_tokens: of these, how many were found computed already.
    """

    request: Request
    prompt_tokens: int
    cached_tokens: int

    def __iter__(self) -> Iterator[Token]:
        """The tokens, of n > 1 continuations as they come (`Token.sample`).

        Raises:
            CutawayError: what this request failed with.
        """
        raise NotImplementedError

    def cancel(self) -> None:
        """End it now, from any thread; its pages are free after the step that runs."""
        raise NotImplementedError

    def result(self) -> Generation:
        """Wait for the end; of several continuations the first (of a beam search the best)."""
        raise NotImplementedError

    def results(self) -> list[Generation]:
        """Wait for the end of all n."""
        raise NotImplementedError

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        raise NotImplementedError


class Engine:
    """Generates for many requests at a time.

    Args:
        model: what continues.
        backend: "auto", "native", "torch", or one of your own.
        pages: most pages of keys and values; None: what `memory` allows.
        memory: most bytes of keys and values; None: half of what is free.
        max_batch: most sequences computed at a time.
        chunk: most tokens of prompts computed in a step.
        cache: how keys and values are kept: "float32", "float16", "int8", or "auto".
        options: of the backend (threads, rounding).
    """

    def __init__(
        self,
        model: Model,
        *,
        backend: str | Backend = "auto",
        pages: int | None = None,
        memory: int | None = None,
        max_batch: int = 64,
        chunk: int = 512,
        cache: str = "auto",
        **options: Any,
    ) -> None:
        raise NotImplementedError

    def submit(self, request: Request) -> Ticket:
        """Take a request, from any thread.

        Raises:
            ConfigError: an option of the wrong type or out of range.
            InputError: a prompt that is no text, holds an id outside the vocabulary, or is longer than the context.
        """
        raise NotImplementedError

    def step(self) -> bool:
        """Compute one step of what there is; False: there was nothing."""
        raise NotImplementedError

    def run(self, until: Event) -> None:
        """Step, and wait where there is nothing to do, until the event is set (by a server's thread)."""
        raise NotImplementedError
