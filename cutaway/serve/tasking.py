"""Tasks' models behind the server: inference in a thread of its own, which waits for the engine instead of stepping it.

A task (`cutaway.tasks`) is written for a program that waits for its answers. Here it runs in one of the bridge's few
threads for tasks, with an engine that hands texts and prompts to the one thread that computes, and sleeps until they
are done. So rows of many requests are computed together, the deadline and a client that leaves end what runs, and no
other thread steps an engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.generation import Engine, Generation, Request
from cutaway.serve.errors import ApiError
from cutaway.serve.server import Work

if TYPE_CHECKING:
    from cutaway.tasks import Answer, Example, TaskModel

Result = TypeVar("Result")
LOOK = 1.0  # seconds after which a waiting thread looks whether its request is still there


class TaskEngine:
    """What a task takes for the engine of its model. Made in the event loop, used in another thread.

    Args:
        work: of the request, whose model is loaded.
    """

    def __init__(self, work: Work) -> None:
        self._work, self._loop = work, asyncio.get_running_loop()
        self.model = work.loaded.model
        self._left = work.server.settings.max_tokens

    def read(self, texts: Sequence[Any], *, types: Sequence[Sequence[int]] | None = None) -> Readable:
        """As `Engine.read`."""
        return Readable(self, texts, types)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """As `Engine.embed`."""
        from cutaway.models.embedding import framed_texts

        return torch.stack(self.read(framed_texts(self.model, texts)).results())

    def submit(self, request: Request, *, lazy: bool = False) -> Writable:
        """As `Engine.submit`.

        Raises:
            ApiError: 400 where more tokens would be written for this request than the server allows.
        """
        new = request.max_new_tokens or 0
        if new * request.n > self._left:
            most = self._work.server.settings.max_tokens
            raise ApiError(
                400,
                f"the answers to all inputs may take more than {most:,} tokens, which is what this server writes for a "
                "request; send them in parts",
                code="too_many_inputs",
                param="inputs",
            )
        self._left -= new * request.n
        return Writable(self, self.wait(self._work.submit(request)))

    def wait(self, wanted: Coroutine[Any, Any, Result]) -> Result:
        """The result of a coroutine of the event loop, for this thread.

        Raises:
            ApiError: the deadline has come, the client has gone, or the server stops.
        """
        future: Future[Result] = asyncio.run_coroutine_threadsafe(wanted, self._loop)
        while True:
            try:
                return future.result(LOOK)
            except TimeoutError:
                if future.done():
                    raise
                if self._work.over:
                    future.cancel()
                    raise self._work.error or ApiError(499, "the client has gone", code="cancelled") from None

    def soon(self, function: Callable[[], None]) -> None:
        """Have the event loop do something."""
        with suppress(RuntimeError):  # it is closed: nothing runs
            self._loop.call_soon_threadsafe(function)

    def reading(self, texts: Sequence[Any], types: Sequence[Sequence[int]] | None) -> list[Tensor]:
        """What the head makes of each text."""
        reading = self._work.loaded.engine.read(texts, types=types)
        self._work.prompt_tokens += reading.tokens
        self.wait(self._work.attended(self._work.server.bridge.finish(reading)))
        return reading.results()


class Readable:
    """Texts that will be read: as `Reading`, whose results are waited for."""

    def __init__(self, engine: TaskEngine, texts: Sequence[Any], types: Sequence[Sequence[int]] | None) -> None:
        self._engine, self._texts, self._types = engine, texts, types

    def results(self) -> list[Tensor]:
        """Wait for all."""
        return self._engine.reading(self._texts, self._types) if self._texts else []


class Writable:
    """A prompt that is continued: as `Ticket`, whose results are waited for."""

    def __init__(self, engine: TaskEngine, stream: Any) -> None:
        self._engine, self._stream = engine, stream

    def results(self) -> list[Generation]:
        """Wait for all continuations."""

        async def all_of() -> None:
            async for _ in self._stream:
                pass

        self._engine.wait(all_of())
        return self._stream.ticket.results()

    def cancel(self) -> None:
        """Write no more of it."""
        self._engine.soon(self._stream.close)

    def result(self) -> Generation:
        """Wait for the first, which is the best of a search."""
        return self.results()[0]


def task_of(work: Work) -> TaskModel:
    """The task's model that a request is answered by, with the engine that waits.

    Raises:
        ApiError: 400; the model is of no task.
    """
    made = work.loaded.task
    if made is None:
        raise ApiError(
            400,
            f"{work.loaded.name} is of no task; /v1/tasks lists those that are (cutaway task train makes them)",
            code="model_not_suitable",
            param="model",
        )
    return replace(made, engine=cast(Engine, TaskEngine(work)))


async def in_thread(work: Work, function: Callable[[], Result]) -> Result:
    """Run a task's code in a thread for tasks, as long as its request lives."""
    return await work.attended(work.server.bridge.task(function))


async def answers(work: Work, inputs: Sequence[Any], task: str) -> list[Answer]:
    """What a task's model answers to texts, where a route of its kind of head is asked.

    Args:
        work: of the request.
        inputs: texts; ids of tokens are refused, as tasks read texts.
        task: the name of the task that the route answers for.

    Raises:
        ApiError: 400; it is of another task, or an input is none.
    """
    made = task_of(work)
    if made.task.name != task:
        message = f"{work.loaded.name} was made for the task {made.task.name}; ask /v1/tasks/predict"
        raise ApiError(400, message, code="model_not_suitable", param="model")
    if not all(isinstance(text, str) for text in inputs):
        message = f"{work.loaded.name} is a task's model, which reads texts; give them as text, not as token ids"
        raise ApiError(400, message, code="unsupported_value", param="input")
    check(work, inputs, "input")
    return await in_thread(work, lambda: made.predict(examples_of(made, inputs, "input")))


def examples_of(made: TaskModel, inputs: Sequence[Any], param: str) -> list[Example]:
    """Inputs as examples of a task.

    Raises:
        ApiError: 400; one is none, named by its number.
    """
    answered = [role.name for role in made.task.roles if role.answer]
    examples = []
    for number, given in enumerate(inputs, 1):
        if isinstance(given, Mapping) and (known := [name for name in given if name in answered]):
            message = (
                f"input {number} gives {known[0]!r:.100}, which is what the task {made.task.name} answers; leave it out"
            )
            raise ApiError(400, message, code="invalid_value", param=param)
        try:
            examples.append(made.example(given, f"input {number}"))
        except CutawayError as error:
            raise ApiError(400, f"{error!s:.1000}", code="invalid_value", param=param) from None
    return examples


def check(work: Work, inputs: Sequence[Any], param: str) -> None:
    """Refuse too many inputs, or too long ones.

    Raises:
        ApiError: 400, with both numbers.
    """
    settings = work.server.settings
    if len(inputs) > settings.max_inputs:
        raise ApiError(
            400,
            f"{param} holds {len(inputs):,}, but this server reads {settings.max_inputs:,} in a request; send them in "
            "parts",
            code="too_many_inputs",
            param=param,
        )
    if (characters := sum(map(_length, inputs))) > settings.max_prompt:
        raise ApiError(
            400,
            f"{param} holds {characters:,} characters, but this server reads {settings.max_prompt:,} in a request; "
            "send them in parts",
            code="string_above_max_length",
            param=param,
        )


def _length(value: Any) -> int:
    """Characters in an input."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_length, value)) + sum(map(_length, value.values()))
    return sum(map(_length, value)) if isinstance(value, list) else 0
