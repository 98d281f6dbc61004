"""What completions and chat completions do alike: hand prompts to the engine, and make an answer or events of tokens.

The kinds differ in their choices: what a choice tells of the tokens that come for it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from starlette.responses import Response

from cutaway import __version__
from cutaway.errors import CutawayError
from cutaway.generation import Request, Token
from cutaway.generation.best import best
from cutaway.serve.bridge import Stream
from cutaway.serve.events import Events, as_json, event, together
from cutaway.serve.options import blamed
from cutaway.serve.schema.generating import Generating
from cutaway.serve.server import Work


class Choice(Protocol):
    """One continuation of a prompt, told.

    Attributes:
        ended: whether its last token has been told.
    """

    ended: bool

    def whole(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """All of it, as a choice of an answer; without its index."""
        ...

    def events(self, tokens: Sequence[Token], last: bool) -> bytes:
        """More of it, as events; `last`: there is no more."""
        ...


class Answer:
    """A request while it is answered.

    Args:
        asked: what is asked.
        work: its place and model.
        kinds: what an answer, and an event of one, is called.
        prefix: of its id.
        drawn: continuations of each prompt; the best n of them are told.
        extra: more that an answer begins with.
    """

    def __init__(
        self,
        asked: Generating,
        work: Work,
        kinds: tuple[str, str],
        prefix: str,
        drawn: int,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.asked, self.work, self.drawn = asked, work, drawn
        self.n = asked.n or 1
        self.head: dict[str, Any] = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kinds[bool(asked.stream)],
            "created": int(time.time()),
            "model": work.loaded.name,
            "system_fingerprint": f"cutaway-{__version__}-{work.loaded.engine.backend.name.replace(' ', '-')}",
            **(extra or {}),
        }
        options = asked.stream_options
        self.counts = options is not None and options.include_usage
        self.streams: list[Stream] = []
        self.choices: list[Choice] = []  # of each prompt those drawn
        self._read = 0  # tokens of prompts

    def chunk(self, piece: dict[str, Any]) -> dict[str, Any]:
        """An event with a piece of a choice."""
        return {**self.head, "choices": [piece], **({"usage": None} if self.counts else {})}

    async def submit(self, make: Callable[[], Sequence[tuple[int, Request]]], prompt: str, form: str | None) -> None:
        """Hand prompts to the engine.

        Args:
            make: makes the request of each prompt, and how many tokens it has; done beside the event loop.
            prompt: the parameter that holds them.
            form: the one that says what the answer must be, if any.

        Raises:
            ApiError: what is wrong with one.
        """
        try:
            for read, request in await self.work.server.bridge.aside(make):
                self._read += read
                self.streams.append(await self.work.submit(request))
        except CutawayError as error:
            raise blamed(error, prompt, form) from None

    async def whole(self) -> bytes:
        """The answer, as JSON."""
        found: list[list[Token]] = [[] for _ in self.choices]

        async def read(number: int, stream: Stream) -> None:
            async for tokens in stream:
                for token in tokens:
                    found[number * self.drawn + token.sample].append(token)

        tasks = [asyncio.ensure_future(read(number, stream)) for number, stream in enumerate(self.streams)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # one has failed, or nobody waits any more
                task.cancel()
        told = []
        for first in range(0, len(self.choices), self.drawn):
            those = found[first : first + self.drawn]
            order = best([[token.logprob for token in one] for one in those], self.n)
            for number in order if self.drawn > self.n else range(self.n):
                piece = self.choices[first + number].whole(those[number])
                told.append({"index": len(told), **piece})
        return as_json({**self.head, "choices": told, "usage": self._usage()})

    async def events(self) -> AsyncGenerator[bytes]:
        """The answer's events, some at a time."""
        if len(self.streams) == 1:
            async for tokens in self.streams[0]:
                if data := self._of(0, tokens):
                    yield data
        else:
            async for number, tokens in together(self.streams):
                if data := self._of(number, tokens):
                    yield data
        # where nothing was to be written
        if data := b"".join(choice.events([], True) for choice in self.choices if not choice.ended):
            yield data
        if self.counts:
            yield event({**self.head, "choices": [], "usage": self._usage()})

    def _of(self, number: int, tokens: Sequence[Token]) -> bytes:
        """The events of more tokens of a stream."""
        first = number * self.drawn
        if len(tokens) == 1:
            return self.choices[first + tokens[0].sample].events(tokens, tokens[0].finish_reason is not None)
        its: dict[int, list[Token]] = {}
        for token in tokens:
            its.setdefault(token.sample, []).append(token)
        return b"".join(
            self.choices[first + sample].events(some, some[-1].finish_reason is not None)
            for sample, some in its.items()
        )

    def _usage(self) -> dict[str, int]:
        read, written = self._read, sum(stream.written for stream in self.streams)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def answered(work: Work, begin: Awaitable[Answer]) -> Response:
    """The response of a request, whole or as events; the work is closed when it is answered, or has failed.

    Args:
        work: its place and model.
        begin: hands it to the engine.
    """
    try:
        answer = await work.attended(begin)
        if answer.asked.stream:
            return Events(work, answer.events())
        body = await work.attended(answer.whole())
    except BaseException:
        work.close()
        raise
    work.close()
    return Response(body, media_type="application/json")
