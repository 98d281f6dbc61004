"""What the studio's routes share: the thread that computes, texts being studied, results that are open in a page."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.results import Result
from cutaway.interp.study import Study
from cutaway.serve.errors import ApiError
from cutaway.serve.models import Loaded
from cutaway.serve.server import Server, server_of
from cutaway.training.trainings import Trainings

Answer = TypeVar("Answer")
RESULTS = 96  # that stay open at a time; of more the one that was asked for longest ago is let go
STUDIES = 6  # texts that are kept with their recordings
LEVELS = 64  # of ledgers, below their numbers, that are kept open


class Studio:
    """State of the studio, of one server.

    Attributes:
        server: whose models it shows.
        folder: whose runs and models it shows.
        trainings: that were started here, in a folder of it; they end with the server, after saving.
        found: names of what was found there.
        steps: names of steps of runs that were asked for.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.trainings = Trainings(folder / "trainings")
        self.found: set[str] = set()
        self.steps: set[str] = set()
        self._thread = ThreadPoolExecutor(1, "studio")  # two analyses at a time would only take each other's cores
        self._quick = ThreadPoolExecutor(1, "studio-quick")
        self._results: OrderedDict[str, Result] = OrderedDict()
        self._levels: OrderedDict[tuple[str, ...], Ledger] = OrderedDict()
        self._studies: OrderedDict[tuple[Any, ...], Study] = OrderedDict()

    def submit(self, job: Callable[[], None], *, beside: bool = False) -> None:
        """Compute something, after what was asked for before; or what is short beside it."""
        (self._quick if beside else self._thread).submit(job)

    async def quick(self, function: Callable[[], Answer]) -> Answer:
        """Do something short beside what computes."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, function)

    def study(self, loaded: Loaded, text: str | tuple[int, ...], source: str | None) -> Study:
        """A text, or ids, before a model; the same one again while it is kept. To be called in the studio's thread."""
        key = _key(loaded, text, source)
        found = self._studies.pop(key, None)
        if found is None:
            for other in [one for one in self._studies if one[0] == loaded.name and one[1] != loaded.created]:
                del self._studies[other]  # of a model that was let go meanwhile
            while len(self._studies) >= STUDIES:
                self._studies.popitem(last=False)
            found = Study(loaded.model, text, source)
        self._studies[key] = found
        return found

    def recorded(self, loaded: Loaded, text: str | tuple[int, ...], source: str | None) -> Study | None:
        """A text that is kept with its recording, so that its numbers open at once; None: there is none."""
        found = self._studies.get(_key(loaded, text, source))
        return found if found is not None and found.recorded else None

    def forget(self, name: str) -> None:
        """Let go of what is kept of a model."""
        for key in [key for key in self._studies if key[0] == name]:
            del self._studies[key]

    def keep(self, result: Result) -> dict[str, Any]:
        """Keep a result open, and say by which name it is found: {"id", "result"}."""
        name = secrets.token_urlsafe(9)
        while len(self._results) >= RESULTS:
            self._results.popitem(last=False)
        self._results[name] = result
        return {"id": name, "result": result}

    def put(self, name: str, result: Result) -> dict[str, Any]:
        """Another result in the place of one that is open."""
        self._results[name] = result
        return {"id": name, "result": result}

    def kept(self, name: str) -> Result:
        """A result that is open.

        Raises:
            ApiError: 404; it was let go.
        """
        if name not in self._results:
            message = "this result is no longer open here: the studio keeps the last ones; compute it again"
            raise ApiError(404, message, code="result_gone")
        self._results.move_to_end(name)
        return self._results[name]

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
        while len(self._levels) >= LEVELS:
            self._levels.popitem(last=False)
        self._levels[(name, *path)] = level

    def places(self) -> dict[str, str]:
        """Where models lie, by name; empty where others than this machine's users ask."""
        server = self.server
        if server.settings.token is not None or server.settings.keys is not None:
            return {}
        sources = server.models.sources.items()
        return {name: str(Path(source).resolve()) if Path(source).exists() else source for name, source in sources}

    def stop(self) -> None:
        """Begin nothing new, and let what is being trained save and end."""
        for pool in (self._thread, self._quick):
            pool.shutdown(wait=False, cancel_futures=True)
        self.trainings.close()


def _key(loaded: Loaded, text: str | tuple[int, ...], source: str | None) -> tuple[Any, ...]:
    return loaded.name, loaded.created, text, source


def studio_of(http: HttpRequest) -> Studio:
    """The studio of the server that a request came to."""
    server = server_of(http)
    assert server.studio is not None
    return server.studio
