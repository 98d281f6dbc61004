"""Limits that are counted while a request comes in: its body, and keys that were wrong."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import Counter
from collections.abc import Callable

from starlette.types import Message, Receive

from cutaway.serve.errors import ApiError

SLOWEST = 1024  # bytes of a body a second, when `idle` has passed
WRONG = 10  # keys from one address in a minute, before whoever comes from there waits
WAITING = 16  # requests from one address that wait at a time
ADDRESSES = 10_000  # remembered at the most


class Body:
    """A request's body as it comes in, no larger and no slower than is allowed.

    Args:
        receive: where it comes from.
        idle: seconds in which it must come on.
        longest: seconds in which all of it must come.

    Attributes:
        most: bytes that it may have.
        fault: what was wrong with it; the answer, whatever a route makes of it.
        whole: nothing more of it comes.
    """

    def __init__(self, receive: Receive, idle: float, longest: float = math.inf) -> None:
        self._receive, self._idle, self._longest = receive, idle, longest
        self.most = 0
        self.fault: ApiError | None = None
        self.whole = False
        self._came, self._began = 0, time.monotonic()

    async def receive(self) -> Message:
        """The next part.

        Raises:
            ApiError: 408 or 413.
        """
        if self.whole:
            return await self._receive()  # which says when the client goes
        if self.fault is not None:
            raise self.fault
        passed = time.monotonic() - self._began
        rest, left = self._longest - passed, min(self._idle, self._idle + self._came / SLOWEST - passed)
        try:
            async with asyncio.timeout(max(0.0, min(left, rest))):
                message = await self._receive()
        except TimeoutError:
            how, seconds = (
                ("was not complete after", self._longest) if rest <= left else ("did not come on within", self._idle)
            )
            self.fault = ApiError(408, f"the request's body {how} {seconds:g} s")
            raise self.fault from None
        self._came += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)
        if self._came > self.most:
            self.fault = too_large(self.most)
            raise self.fault
        return message


def too_large(most: int) -> ApiError:
    """The answer to a body of more bytes than that."""
    return ApiError(413, f"the request's body is larger than {most:,} bytes, which is this server's limit")


class Failures:
    """Wrong keys, by the address that they came from: whoever guesses is slowed, and so is nobody elsewhere.

    Right keys from the same address wait too, but are let in: shutting an address out would let anyone behind a proxy
    shut out everybody else behind it.

    Args:
        clock: seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._wrong: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()

    def add(self, address: str) -> int:
        """Count one; how many there were from this address in this minute."""
        self._turn()
        place = _network(address)
        if place in self._wrong or len(self._wrong) < ADDRESSES:
            self._wrong[place] += 1
        return self._wrong[place]

    def many(self, address: str) -> bool:
        """Whether there were so many that who comes from there must wait."""
        self._turn()
        return self._wrong[_network(address)] >= WRONG or len(self._wrong) >= ADDRESSES

    def enter(self, address: str) -> None:
        """Begin to wait; `leave` ends it.

        Raises:
            ApiError: 429 where too many wait already.
        """
        place = _network(address)
        if self._waiting[place] >= WAITING:
            raise ApiError(429, "too many wrong keys came from this address; wait before trying again", retry=30)
        self._waiting[place] += 1

    def leave(self, address: str) -> None:
        """End waiting."""
        place = _network(address)
        self._waiting[place] -= 1
        if not self._waiting[place]:
            del self._waiting[place]

    def _turn(self) -> None:
        if self._clock() - self._began >= 60:
            self._began = self._clock()
            self._wrong.clear()


def _network(address: str) -> str:
    """What one client can choose addresses from at will: of IPv6 the first 64 bits."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(found) if found.version == 4 else str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
