"""Places: which requests are computed now, which wait, and when the others may come again.

A request takes as many places as sequences are computed for it. Each model has `max_batch` of them; beyond these,
requests worth `queue` places may wait, over all models. Whose turn it is decides the tenant that has the fewest places
now, and among these the one that waited longest; within a tenant those that came first. No request overtakes a large
one of its model for ever. Where all places to wait are taken, and one tenant holds more of them than another that
comes would, the last of its waiting requests is sent away instead: nobody can keep the others out.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from cutaway.serve.errors import ApiError
from cutaway.serve.settings import Settings

ENDS = 64  # requests whose ends tell how fast there is room
LONGEST = 120.0  # seconds that anyone is told to wait


@dataclass(eq=False)
class Place:
    """What one request takes.

    Attributes:
        model: whose places they are.
        tenant: who asks.
        weight: how many.
        state: of "waits", "runs", "over".
    """

    model: str
    tenant: str
    weight: int
    state: str = "waits"
    refused: ApiError | None = None
    _turn: asyncio.Event = field(default_factory=asyncio.Event)

    async def turn(self) -> None:
        """Wait until the request may run.

        Raises:
            ApiError: 429, it was sent away for another.
        """
        await self._turn.wait()
        if self.refused is not None:
            raise self.refused

    def call(self, state: str, refused: ApiError | None = None) -> None:
        """Its turn, or the end of its waiting (the queue's to call)."""
        self.state, self.refused = state, refused
        self._turn.set()


class Queue:
    """Lets requests in, up to a limit of those that run and those that wait. Used by the event loop alone.

    Args:
        settings: `max_batch` places of each model run, `queue` wait.
    """

    def __init__(self, settings: Settings) -> None:
        self._most, self._room = settings.max_batch, settings.queue
        self._running: dict[str, int] = {}  # model -> places taken
        self._held: dict[str, int] = {}  # tenant -> places taken
        self._waiting: dict[str, deque[Place]] = {}  # by tenant, the one longest without a turn first
        self._ends: deque[tuple[float, int]] = deque(maxlen=ENDS)
        self.refuses: ApiError | None = None  # what everybody is told, while models are loaded or the server stops

    @property
    def waiting(self) -> int:
        """Places that requests wait for."""
        return sum(place.weight for places in self._waiting.values() for place in places)

    @property
    def running(self) -> int:
        """Places taken."""
        return sum(self._running.values())

    @property
    def taken(self) -> int:
        """Places of all requests."""
        return self.running + self.waiting

    def take(self, model: str, tenant: str, weight: int = 1) -> Place:
        """A place, whose `turn()` is to be waited for; give it back with `leave`, whatever happens.

        Args:
            model: whose.
            tenant: who asks.
            weight: sequences that are computed for it; what is more than all counts as all.

        Raises:
            ApiError: 429 where too many wait, 503 where the server takes nothing.
        """
        if self.refuses is not None:
            raise self.refuses.with_traceback(None)  # one for all: else it would keep what each was refused with
        place = Place(model, tenant, max(1, min(weight, self._most)))
        self._waiting.setdefault(tenant, deque()).append(place)
        self._admit()
        while place.state == "waits" and self.waiting > self._room:
            last = self._waiting[self._greediest(tenant)][-1]
            self._forget(last)
            refused = self._refusal(last)
            if last is place:
                raise refused
            last.call("over", refused)
        return place

    def leave(self, place: Place) -> None:
        """Give a place back; of one that waits, wait no more. May be called twice."""
        state, place.state = place.state, "over"
        if state == "runs":
            self._count(place, -place.weight)
            self._ends.append((time.monotonic(), place.weight))
            self._admit()
        elif state == "waits":
            self._forget(place)
            self._admit()  # it may have stood before others

    def retry(self, weight: int = 1) -> float:
        """Seconds after which so many places may be free, as fast as requests ended lately."""
        if len(self._ends) < 2:
            return 1.0
        seconds = max(time.monotonic() - self._ends[0][0], 1e-3)
        ended = sum(weight for _, weight in self._ends)
        return min(LONGEST, max(1.0, (self.waiting + weight - self._room) * seconds / ended))

    def _refusal(self, place: Place) -> ApiError:
        message = (
            f"the server is busy: places for {self.running} texts are taken and {self.waiting} wait, of at most "
            f"{self._room}; try again later"
        )
        return ApiError(429, message, code="busy", retry=self.retry(place.weight))

    def _greediest(self, comer: str) -> str:
        """The tenant that waits for the most places; the one that comes, if no other waits for more."""
        sizes = {tenant: sum(place.weight for place in places) for tenant, places in self._waiting.items()}
        most = max(sizes, key=lambda tenant: sizes[tenant])
        return most if sizes[most] > sizes[comer] else comer

    def _admit(self) -> None:
        """Give turns, as long as there are places for those whose turn it is."""
        full: set[str] = set()
        while (found := self._next(full)) is not None:
            taken = self._running.get(found.model, 0)
            if taken and taken + found.weight > self._most:
                full.add(found.model)
                continue
            self._forget(found)
            if found.tenant in self._waiting:  # to the end of the row
                self._waiting[found.tenant] = self._waiting.pop(found.tenant)
            self._count(found, found.weight)
            found.call("runs")

    def _next(self, full: set[str]) -> Place | None:
        """Whose turn it is, among those whose model has places."""
        best: Place | None = None
        for places in self._waiting.values():
            first = next((place for place in places if place.model not in full), None)
            if first and (best is None or self._held.get(first.tenant, 0) < self._held.get(best.tenant, 0)):
                best = first
        return best

    def _forget(self, place: Place) -> None:
        places = self._waiting[place.tenant]
        places.remove(place)
        if not places:
            del self._waiting[place.tenant]

    def _count(self, place: Place, more: int) -> None:
        for counts, name in ((self._running, place.model), (self._held, place.tenant)):
            counts[name] = counts.get(name, 0) + more
            if not counts[name]:
                del counts[name]
