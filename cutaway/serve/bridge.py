"""Between the engines, which step in one thread, and the coroutines that answer requests.

One thread steps all engines in turn: two that compute at the same time would only take each other's cores. After each
step it wakes the event loop once, whatever the number of requests; the loop hands each one its new tokens. Nothing here
looks at a clock: whoever has nothing to do sleeps until somebody wakes him.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cutaway.generation import Engine, Request, Ticket, Token
from cutaway.generation.reading import Reading

log = logging.getLogger("cutaway.serve")
Result = TypeVar("Result")
GATHER, CROWD = 0.02, 8  # seconds that a token may wait for the next one where more than so many answers are written
MANY = 8192  # tokens of texts that take longer to look through than the event loop may wait
BESIDE = 4  # threads that prepare requests
FORMS = 2  # and those that are held to a form, which may take seconds: they keep no others waiting
TASKS = 2  # and those in which tasks prepare, wait for the engine, and look for reasons


class Bridge:
    """Steps engines, and tells coroutines what came of it. Made within the event loop that it serves."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._engines: list[Engine] = []
        self._open: dict[Ticket | Reading, Alarm] = {}
        self._work, self._over = threading.Event(), threading.Event()
        self._told = False  # the loop was woken and has not yet looked
        self._later: asyncio.TimerHandle | None = None
        self._beside = ThreadPoolExecutor(BESIDE, "beside")
        self._forms = ThreadPoolExecutor(FORMS, "forms")
        self._tasks = ThreadPoolExecutor(TASKS, "tasks")
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    def add(self, engine: Engine) -> None:
        """Step this engine too."""
        engine.listeners.append(self._changed)
        self._engines = [*self._engines, engine]
        self._changed()

    def remove(self, engine: Engine) -> None:
        """Step it no more."""
        self._engines = [other for other in self._engines if other is not engine]
        if self._changed in engine.listeners:
            engine.listeners.remove(self._changed)

    async def submit(self, engine: Engine, request: Request) -> Stream:
        """Hand a request to an engine; preparing it (tokens, forms) is done beside the event loop.

        Cancelled meanwhile, it ends the request too.

        Raises:
            CutawayError: as `Engine.submit`.
        """
        form = (request.schema, request.regex, request.grammar, request.choices)
        pool = self._beside if all(one is None for one in form) else self._forms
        made = self._loop.run_in_executor(pool, engine.submit, request)
        try:
            ticket = await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(_forget)
            raise
        alarm = self._open[ticket] = Alarm(self._loop)
        return Stream(self, ticket, alarm)

    async def read(
        self, engine: Engine, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None
    ) -> Reading:
        """Have texts read (`Engine.read`) and wait for all; many are looked through beside the event loop.

        Raises:
            CutawayError: as `Engine.read`.
        """

        def begin() -> Reading:
            return engine.read([list(text) for text in texts], types=types)

        if sum(map(len, texts)) < MANY:
            return await self.finish(begin())
        made = self._loop.run_in_executor(self._beside, begin)
        try:
            reading = await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(_forget)
            raise
        return await self.finish(reading)

    async def finish(self, reading: Reading) -> Reading:
        """Wait for texts to be read (`Engine.read`); cancelling the waiting cancels the reading."""
        alarm = self._open[reading] = Alarm(self._loop)
        try:
            while not reading.ended:
                await alarm.asleep()
        finally:
            self.close(reading)
        return reading

    async def aside(self, function: Callable[[], Result]) -> Result:
        """Do something that takes longer than the event loop may wait."""
        return await self._loop.run_in_executor(self._beside, function)

    async def task(self, function: Callable[[], Result]) -> Result:
        """Do something that waits for the engine in between (see `tasking`); few at a time, the others wait."""
        return await self._loop.run_in_executor(self._tasks, function)

    def close(self, one: Ticket | Reading) -> None:
        """Nobody waits for this any more: it is cancelled where it runs."""
        self._open.pop(one, None)
        if not one.ended:
            one.cancel()

    @property
    def running(self) -> int:
        """Requests that have not ended."""
        return len(self._open)

    def stop(self) -> None:
        """End the thread after the step that runs, and wait for nothing that is prepared."""
        self._over.set()
        self._work.set()
        for pool in (self._beside, self._forms, self._tasks):
            pool.shutdown(wait=False, cancel_futures=True)
        self._thread.join()

    # the thread's side

    def _run(self) -> None:
        failed: Engine | None = None
        while not self._over.is_set():
            self._work.clear()
            worked = False
            for engine in self._engines:
                try:
                    worked = engine.step() or worked
                    failed = None if failed is engine else failed
                except Exception:  # a step's failures belong to their requests; this one is a bug
                    log.exception("a step failed")
                    worked, failed = worked or failed is not engine, engine  # the next one may be another
            if not worked:
                self._work.wait()

    def _changed(self) -> None:
        if threading.current_thread() is not self._thread:  # which tells of its own steps here, too
            self._work.set()
        if not self._told:
            self._told = True
            try:
                self._loop.call_soon_threadsafe(self._tell)
            except RuntimeError:  # the loop is closed: nobody waits
                self._told = False

    def _tell(self) -> None:
        """Wake those for whom there is news; in a crowd tokens are gathered, as each event takes time off the cores."""
        self._told = False
        now, waits = self._loop.time(), False
        gather = GATHER if len(self._open) > CROWD else 0.0
        for one, alarm in self._open.items():
            if not one.news:
                continue
            if one.ended or alarm.rung + gather <= now:
                alarm.rung = now
                alarm.ring()
            else:
                waits = True
        if waits and self._later is None:
            self._later = self._loop.call_later(GATHER, self._tell_later)

    def _tell_later(self) -> None:
        self._later = None
        self._tell()


def _forget(made: asyncio.Future[Ticket] | asyncio.Future[Reading]) -> None:
    """End a request that nobody waited for until it was taken."""
    if not made.cancelled() and made.exception() is None:
        made.result().cancel()


class Alarm:
    """Wakes one coroutine: `asyncio.Event` without what several would need, as it rings for every token.

    Args:
        loop: of the coroutine.

    Attributes:
        rung: when it was last told of news, by the loop's clock.
    """

    __slots__ = ("_loop", "_sleeper", "rung")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self.rung = loop, 0.0
        self._sleeper: asyncio.Future[None] | None = None

    def asleep(self) -> asyncio.Future[None]:
        """To be awaited by whoever has just looked and found nothing, with no other await between the two."""
        self._sleeper = self._loop.create_future()
        return self._sleeper

    def ring(self) -> None:
        """Wake it, if it sleeps; called in the event loop."""
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)


class Stream:
    """The tokens of one request, for a coroutine. Close it, or iterate it to its end.

    Attributes:
        ticket: the engine's.
        written: tokens handed out.
        times: when the first and the last of them were, by `time.monotonic`; None: none was.
    """

    def __init__(self, bridge: Bridge, ticket: Ticket, alarm: Alarm) -> None:
        self._bridge, self.ticket, self._alarm = bridge, ticket, alarm
        self._error: Exception | None = None
        self.written = 0
        self.times: tuple[float, float] | None = None

    async def __aiter__(self) -> AsyncIterator[list[Token]]:
        """New tokens as they come, several where they came together.

        Raises:
            Exception: what the request failed with, or was stopped with.
        """
        try:
            while True:
                if self._error is not None:
                    raise self._error
                ended = self.ticket.ended  # asked first: the other thread may tell a last token and end it meanwhile
                if fresh := self.ticket.take():
                    now = time.monotonic()
                    self.times = (self.times or (now,))[0], now
                    self.written += len(fresh)
                    yield fresh
                elif ended:
                    if self.ticket.error is not None:
                        raise self.ticket.error
                    return
                else:
                    await self._alarm.asleep()
        finally:
            self.close()

    def stop(self, error: Exception) -> None:
        """End the request, and let whoever iterates it fail with this."""
        self._error = error
        self.close()
        self._alarm.ring()

    def close(self) -> None:
        """End the request if it runs: not one step more is computed for it."""
        self._bridge.close(self.ticket)
