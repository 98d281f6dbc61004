"""What the studio's routes share: the thread that computes, texts being studied, results that are open in a page."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import RLock
from typing import Any, Literal, TypeAlias, TypeVar

from starlette.requests import Request as HttpRequest

from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.results import Result
from cutaway.interp.study import Study
from cutaway.serve.errors import ApiError
from cutaway.serve.models import Loaded
from cutaway.serve.server import Server, server_of
from cutaway.serve.studio.kept import Kept, held_by, placeless
from cutaway.training.trainings import Trainings

Answer = TypeVar("Answer")
Lane: TypeAlias = Literal["long", "lesson", "quick"]
STUDIES = 6  # texts that are kept with their recordings
ROOM = 2**30  # bytes that these may take together, but for the newest
LEVELS = 64  # of ledgers, below their numbers, that are kept open


class Studio:
    """State of the studio, of one server.

    Attributes:
        server: whose models it shows.
        folder: whose runs and models it shows.
        trainings: that were started here, in a folder of it; they end with the server, after saving.
        found: names of what was found there.
        steps: names of steps of runs that were asked for.
        names: place -> the name under which it is opened, for as long as the server runs.
        results: that are open in pages.
        watching: pages that watch a training.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        server.models.leaves = self.forget
        self.trainings = Trainings(folder / "trainings")
        self.found: set[str] = set()
        self.steps: set[str] = set()
        self.names: dict[str, str] = {}
        self.results = Kept()
        self.watching = 0
        self._thread = ThreadPoolExecutor(1, "studio")  # two analyses at a time would only take each other's cores
        self._lessons = ThreadPoolExecutor(1, "studio-lessons")  # but a slider is followed beside a long one
        self._quick = ThreadPoolExecutor(1, "studio-quick")
        self._lock = RLock()  # of the studies
        self._levels: OrderedDict[tuple[str, ...], Ledger] = OrderedDict()
        self._studies: OrderedDict[tuple[Any, ...], Study] = OrderedDict()

    def submit(self, job: Callable[[], None], lane: Lane = "long") -> None:
        """Compute something, after what was asked for before; a lesson after other lessons, and what is short at once.

        Args:
            job: what to do.
            lane: "long", "lesson" or "quick".
        """
        {"long": self._thread, "lesson": self._lessons, "quick": self._quick}[lane].submit(job)

    async def quick(self, function: Callable[[], Answer]) -> Answer:
        """Do something short beside what computes."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, function)

    def study(self, loaded: Loaded, text: str | tuple[int, ...], source: str | None) -> Study:
        """A text, or ids, before a model; the same one again while it is kept."""
        key = _key(loaded, text, source)
        with self._lock:
            found = self._studies.pop(key, None)
        if found is None:
            found = Study(loaded.model, text, source)
        with self._lock:
            self._studies[key] = found
            for other in [one for one in self._studies if one[0] == loaded.name and one[1] is not loaded]:
                del self._studies[other]  # of a model that was let go meanwhile
            sizes = {one: sum(held_by(study).values()) for one, study in self._studies.items()}
            while len(self._studies) > STUDIES or (len(self._studies) > 1 and sum(sizes.values()) > ROOM):
                del sizes[self._studies.popitem(last=False)[0]]
        return found

    def recorded(self, loaded: Loaded, text: str | tuple[int, ...], source: str | None) -> Study | None:
        """A text that is kept with its recording, so that its numbers open at once; None: there is none."""
        with self._lock:
            found = self._studies.get(_key(loaded, text, source))
        return found if found is not None and found.recorded else None

    def forget(self, name: str) -> None:
        """Let go of what is kept of a model, which is let go itself."""
        with self._lock:
            for key in [key for key in self._studies if key[0] == name]:
                del self._studies[key]
        self.results.forget(name)

    def keep(self, result: Result) -> dict[str, Any]:
        """Keep a result open, and say by which name it is found: {"id", "result"}."""
        if not self.private:
            result = placeless(result, str(self.folder.resolve()))
        return {"id": self.results.add(result), "result": result}

    def put(self, name: str, result: Result) -> dict[str, Any]:
        """Another result in the place of one that is open."""
        self.results.put(name, result)
        return {"id": name, "result": result}

    def kept(self, name: str) -> Result:
        """A result that is open.

        Raises:
            ApiError: 404; it was let go.
        """
        return self.results.get(name)

    def level(self, name: str, path: Sequence[str]) -> Ledger:
        """A level of a ledger that is open, from the deepest above it that is known.

        Raises:
            ApiError: 400; the result is no ledger. 404; it was let go.
        """
        found = self.kept(name)
        if not isinstance(found, Ledger):
            raise ApiError(
                400, "this result is no ledger, so it has no terms to open", code="invalid_value", param="id"
            )
        for depth in range(len(path), 0, -1):
            if (known := self._levels.get((name, *path[:depth]))) is not None:
                found = known
                break
        else:
            depth = 0
        for place in range(depth, len(path)):
            found = found.expand(path[place])
            self.keep_level(name, path[: place + 1], found)
        return found

    def keep_level(self, name: str, path: Sequence[str], level: Ledger) -> None:
        """Keep a level open."""
        for key in [key for key in self._levels if key[0] not in self.results]:
            del self._levels[key]
        while len(self._levels) >= LEVELS:
            self._levels.popitem(last=False)
        self._levels[(name, *path)] = level

    @property
    def private(self) -> bool:
        """Whether nobody but this machine's users asks, who may know where things lie."""
        return self.server.settings.token is None and self.server.settings.keys is None

    def places(self) -> dict[str, str]:
        """Where models lie, by name; empty where others than this machine's users ask."""
        if not self.private:
            return {}
        sources = list(self.server.models.sources.items())
        return {name: str(Path(source).resolve()) if Path(source).exists() else source for name, source in sources}

    def stop(self) -> None:
        """Begin nothing new, and let what is being trained save and end."""
        for pool in (self._thread, self._lessons, self._quick):
            pool.shutdown(wait=False, cancel_futures=True)
        self.trainings.close()


def _key(loaded: Loaded, text: str | tuple[int, ...], source: str | None) -> tuple[Any, ...]:
    return loaded.name, loaded, text, source


def studio_of(http: HttpRequest) -> Studio:
    """The studio of the server that a request came to."""
    server = server_of(http)
    assert server.studio is not None
    return server.studio
