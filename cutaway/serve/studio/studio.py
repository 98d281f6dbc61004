"""What the studio's routes share: the thread that computes, texts being studied, results that are open in a page."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from cutaway.interp.results import Result
from cutaway.interp.study import Study
from cutaway.serve.errors import ApiError
from cutaway.serve.models import Loaded
from cutaway.serve.server import Server, server_of

Answer = TypeVar("Answer")
RESULTS = 96  # that stay open at a time; of more the one that was asked for longest ago is let go
STUDIES = 6  # texts that are kept with their recordings


class Studio:
    """State of the studio, of one server.

    Attributes:
        server: whose models it shows.
        folder: whose runs and models it shows.
        found: names of what was found there.
        steps: names of steps of runs that were asked for.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.found: set[str] = set()
        self.steps: set[str] = set()
        self._thread = ThreadPoolExecutor(1, "studio")  # two analyses at a time would only take each other's cores
        self._quick = ThreadPoolExecutor(1, "studio-quick")
        self._results: OrderedDict[str, Result] = OrderedDict()
        self._studies: OrderedDict[tuple[Any, ...], Study] = OrderedDict()

    def submit(self, job: Callable[[], None]) -> None:
        """Compute something, after what was asked for before."""
        self._thread.submit(job)

    async def quick(self, function: Callable[[], Answer]) -> Answer:
        """Do something short beside what computes."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, function)

    def study(self, loaded: Loaded, text: str | tuple[int, ...], source: str | None) -> Study:
        """A text, or ids, before a model; the same one again while it is kept. To be called in the studio's thread."""
        key = (loaded.name, loaded.created, text, source)
        found = self._studies.pop(key, None)
        if found is None:
            for other in [one for one in self._studies if one[0] == loaded.name and one[1] != loaded.created]:
                del self._studies[other]  # of a model that was let go meanwhile
            while len(self._studies) >= STUDIES:
                self._studies.popitem(last=False)
            found = Study(loaded.model, text, source)
        self._studies[key] = found
        return found

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

    def stop(self) -> None:
        """Begin nothing new."""
        for pool in (self._thread, self._quick):
            pool.shutdown(wait=False, cancel_futures=True)


def studio_of(http: HttpRequest) -> Studio:
    """The studio of the server that a request came to."""
    server = server_of(http)
    assert server.studio is not None
    return server.studio
