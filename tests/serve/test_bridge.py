"""Waking those who answer: each token at once for a few, gathered in a crowd, and an end at once for everybody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from cutaway.serve.bridge import CROWD, Alarm, Bridge


@dataclass(eq=False)
class Told:
    """All that a bridge asks of a ticket."""

    news: bool = True
    ended: bool = False


def in_a_loop(count: int, test: Callable[[Bridge, list[Told], list[Alarm]], Awaitable[None]]) -> None:
    """Run a test with a bridge and so many tickets."""

    async def run() -> None:
        bridge = Bridge()
        tickets = [Told() for _ in range(count)]
        alarms = [Alarm(asyncio.get_running_loop()) for _ in tickets]
        cast(Any, bridge)._open = dict(zip(tickets, alarms, strict=True))
        try:
            await test(bridge, tickets, alarms)
        finally:
            bridge.stop()

    asyncio.run(run())


def test_of_a_few_each_is_woken_by_each_token() -> None:
    async def test(bridge: Bridge, tickets: list[Told], alarms: list[Alarm]) -> None:
        for _ in range(3):
            sleeps = [alarm.asleep() for alarm in alarms]
            cast(Any, bridge)._tell()
            assert all(sleep.done() for sleep in sleeps)

    in_a_loop(CROWD, test)


def test_in_a_crowd_tokens_are_gathered_but_for_the_first_and_the_last() -> None:
    async def test(bridge: Bridge, tickets: list[Told], alarms: list[Alarm]) -> None:
        first = [alarm.asleep() for alarm in alarms]
        cast(Any, bridge)._tell()
        assert all(sleep.done() for sleep in first)
        second = [alarm.asleep() for alarm in alarms]
        tickets[0].ended = True
        cast(Any, bridge)._tell()
        assert [sleep.done() for sleep in second] == [True] + [False] * CROWD
        await asyncio.wait_for(asyncio.gather(*second), 30)  # though no further step tells of anything

    in_a_loop(CROWD + 1, test)


def test_who_has_no_news_sleeps_on() -> None:
    async def test(bridge: Bridge, tickets: list[Told], alarms: list[Alarm]) -> None:
        tickets[1].news = False
        sleeps = [alarm.asleep() for alarm in alarms]
        cast(Any, bridge)._tell()
        assert [sleep.done() for sleep in sleeps] == [True, False]

    in_a_loop(2, test)


def test_an_engine_whose_step_fails_steps_once_more_though_nobody_wakes_it() -> None:
    again = threading.Event()

    class Broken:
        listeners: ClassVar[list[Callable[[], None]]] = []
        steps = 0
        bridge: Bridge

        def step(self) -> bool:
            self.steps += 1
            if self.steps == 1:
                cast(Any, self.bridge)._work.clear()  # whoever woke it for this step
                raise KeyError
            again.set()
            return False

    async def test(bridge: Bridge, tickets: list[Told], alarms: list[Alarm]) -> None:
        broken = Broken()
        broken.bridge = bridge
        bridge.add(cast(Any, broken))
        assert await asyncio.to_thread(again.wait, 30)

    in_a_loop(0, test)
