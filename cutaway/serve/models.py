"""The models of a server: which names there are, which are loaded, and who uses them.

Names come from the command line alone; a request chooses among them and can name nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from cutaway.errors import unknown
from cutaway.generation import Engine
from cutaway.generation.native.library import available
from cutaway.models import Model, load_model
from cutaway.serve.bridge import Bridge
from cutaway.serve.errors import ApiError
from cutaway.serve.settings import Settings


@dataclass(eq=False)
class Loaded:
    """A model that is in memory.

    Attributes:
        name: in requests.
        model: opened; its `source` is the name, so that no message tells where it lies.
        engine: what computes it.
        created: when it was loaded, in seconds since 1970.
        users: requests that use it now.
        used: when one did last, by `time.monotonic`.
    """

    name: str
    model: Model
    engine: Engine
    created: int = field(default_factory=lambda: int(time.time()))
    users: int = 0
    used: float = 0.0


class Models:
    """What a server can answer with.

    Args:
        settings: names and sources, and the options of engines.
        bridge: what steps their engines.
    """

    def __init__(self, settings: Settings, bridge: Bridge) -> None:
        self.settings, self._bridge = settings, bridge
        self.sources: Mapping[str, str] = dict(settings.models)
        self.loaded: dict[str, Loaded] = {}
        self._lock = asyncio.Lock()

    async def use(self, name: str) -> Loaded:
        """A model, loaded if it is not; give it back with `release`.

        Raises:
            ApiError: 404 with the names that there are; 503 where it cannot be loaded now.
        """
        if name not in self.sources:
            raise ApiError(404, unknown("model", name, self.sources), code="model_not_found", param="model")
        async with self._lock:
            if name not in self.loaded:
                self.loaded[name] = await self._bridge.aside(lambda: self._load(name))
                self._bridge.add(self.loaded[name].engine)
        found = self.loaded[name]
        found.users += 1
        return found

    def release(self, loaded: Loaded) -> None:
        """One request less uses it."""
        loaded.users -= 1
        loaded.used = time.monotonic()

    def _load(self, name: str) -> Loaded:
        settings = self.settings
        model = load_model(self.sources[name], quantised=not settings.dequantise and available()[0])
        model.source = name
        return Loaded(name, model, Engine(model, max_batch=settings.max_batch, **dict(settings.engine)))  # pyright: ignore[reportArgumentType]
