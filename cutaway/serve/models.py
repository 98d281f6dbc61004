"""The models of a server: which names there are, which are loaded, and who uses them.

Names come from the command line alone; a request chooses among them and can name nothing else. All models together take
at most the server's memory: at the start as many are loaded as fit, the others when they are first asked for, and the
one that nobody has used for longest makes room, never one that is in use. One model is loaded at a time, in a thread
beside the event loop; all who wait for it wait together. What failed to load is tried again some time later.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import CutawayError, DamagedFile, InputError, MissingExtra, unknown
from cutaway.files import holds, inside, read_json
from cutaway.generation import Engine
from cutaway.generation.memory import available_bytes
from cutaway.generation.native.library import available
from cutaway.generation.select import why_not_native
from cutaway.models import Model, load_model
from cutaway.models.adapters import CONFIG
from cutaway.models.hub import fetch, is_repository
from cutaway.serve.adapters import adapter_bytes, adapters_of, open_adapter
from cutaway.serve.bridge import Bridge
from cutaway.serve.errors import ApiError
from cutaway.serve.keys import ANYONE, Caller
from cutaway.serve.settings import Settings
from cutaway.serve.sizes import (
    LEAST,
    Sizes,
    estimated,
    for_requests,
    forget_file,
    give_back,
    resident,
    spoken,
    token_bytes,
    weights,
    work,
)

if TYPE_CHECKING:
    from cutaway.tasks import TaskModel

log = logging.getLogger("cutaway.serve")
AGAIN = 15.0  # seconds after which a model that could not be loaded is tried again
REST = 64 << 20  # bytes that the program grows by when it has begun to answer
TASK = "task.json"  # in a task's folder (cutaway.tasks.trained)
USUAL = 2048  # tokens of a text, where nobody says how many are to be held
SHARE = 0.8  # of the memory that is free is taken, where nobody says how much


@dataclass(eq=False)
class Loaded:
    """A model that is in memory.

    Attributes:
        name: in requests.
        model: opened; its `source` is the name, so that no message tells where it lies.
        engine: what computes it.
        sizes: what it takes.
        task: what it was made for, where it lies in a task's folder (`cutaway task train`).
        created: when it was loaded, in seconds since 1970.
        base: what an adapter stands on; None: it is a model by itself.
        adapter: the name by which the base's engine knows it; None: the engine is its own.
        users: requests that use it now; of a base also those of its adapters.
        used: when one did last, by `time.monotonic`.
    """

    name: str
    model: Model
    engine: Engine
    sizes: Sizes
    base: Loaded | None = None
    adapter: str | None = None
    task: TaskModel | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    users: int = 0
    used: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        """Let go of it, after the step that runs: what is dropped here is free at once."""
        if self.adapter is not None:
            self.engine.remove_adapter(self.adapter)
        else:
            self.engine.close()
        del self.engine, self.model, self.base, self.task


class Models:
    """What a server can answer with.

    Args:
        settings: names and sources, the memory, and the options of engines.

    `begin` may open the first model in a thread before there is an event loop; `bind` says what steps the engines.

    Attributes:
        sources: name -> source.
        adapters: name -> what stands beside the weights of one of them.
        loaded: those that are in memory.
        program: bytes that the process took before any model was loaded.
        budget: bytes for all models.
        failed: name -> what whoever asks for it is told, and until when (`time.monotonic`).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sources: dict[str, str] = dict(settings.models)  # the studio adds what it finds
        self.adapters = adapters_of(settings)
        self.loaded: dict[str, Loaded] = {}
        self.failed: dict[str, tuple[ApiError, float]] = {}
        self.program = resident() + REST
        most = settings.memory if settings.memory is not None else int(SHARE * available_bytes()) + self.program
        self.budget = most - self.program - for_requests(settings)
        self._lock = asyncio.Lock()  # of whoever makes room
        self._tasks: dict[str, asyncio.Task[None]] = {}  # models that are being loaded
        self._reserved: dict[str, int] = {}  # for them
        self._paths: dict[str, Path] = {}  # where those lie that wait for room
        self._leaving = 0  # bytes of models that are being closed
        self._known: dict[str, int] = {}  # what they need, from those that were opened before
        self._early: Future[Loaded] | None = None
        self._change = asyncio.Event()  # a model is used no more

    def bind(self, bridge: Bridge) -> None:
        """Let this one step the engines."""
        self._bridge = bridge

    def begin(self) -> None:
        """Open the first model now, in a thread, while the program has other things to do."""
        if not self.sources:
            return
        self._early = early = Future()

        def work() -> None:
            try:
                name = next(iter(self.sources))
                early.set_result(self._fitted(name, self._path(name)))
            except BaseException as error:
                early.set_exception(error)

        threading.Thread(target=work, name="first", daemon=True).start()

    def check_sources(self) -> None:
        """Refuse what cannot be loaded, as far as that can be seen without loading it.

        Raises:
            InputError: there is no such file or folder, or the first model takes more memory than there is.
        """
        for number, (name, source) in enumerate(self.sources.items()):
            path = Path(source)
            if not path.exists() and not is_repository(source):
                raise InputError(
                    f"{source} does not exist; give a run folder, a model folder, a .gguf file or a name on the "
                    "Hugging Face hub (owner/name)"
                )
            must = number == 0 or self.settings.memory is not None
            if must and path.exists() and (needed := self._needed(name, path)) > self.budget:
                raise InputError(_too_large(name, needed, self.budget))
        for adapter in self.adapters.values():
            if not adapter.folder.is_dir():
                raise InputError(f"{adapter.folder} is no folder; give that of an adapter in PEFT's format")
            if not (adapter.folder / CONFIG).is_file():
                raise InputError(f"{adapter.folder} holds no {CONFIG}; give the folder of an adapter in PEFT's format")

    def check(self, name: str, caller: Caller = ANYONE) -> None:
        """Refuse a name that does not exist, or not for this caller.

        Raises:
            ApiError: 404 with the names that there are.
        """
        known = [one for one in self.names if caller.may_use(one)]
        if name not in known:
            raise ApiError(404, unknown("model", name, known), code="model_not_found", param="model")

    @property
    def names(self) -> list[str]:
        """All that a request may name: models, then adapters."""
        return [*self.sources, *self.adapters]

    async def use(self, name: str) -> Loaded:
        """A model, loaded if it is not; give it back with `release`. Waits until there is room for it.

        Raises:
            ApiError: 404 with the names that there are; 500 or 503 where it cannot be loaded.
        """
        self.check(name)
        base = await self.use(self.adapters[name].base) if name in self.adapters else None
        try:
            while name not in self.loaded:
                await self._load(name)
        except BaseException:
            if base is not None:
                self.release(base)
            raise
        found = self.loaded[name]
        found.users += 1
        return found

    def release(self, loaded: Loaded) -> None:
        """One request less uses it."""
        loaded.users -= 1
        loaded.used = time.monotonic()
        if not loaded.users:
            self._change.set()
        if loaded.base is not None:
            self.release(loaded.base)

    async def start(self) -> None:
        """Load as many as fit, in order.

        Raises:
            Exception: what the first failed with; of the others it is logged, and they are tried again when asked for.
        """
        for number, name in enumerate(tuple(self.sources)):  # the studio may find more meanwhile
            try:
                if self._early is not None and not number:
                    self._add(await asyncio.wrap_future(self._early))
                else:
                    path = await self._bridge.aside(lambda name=name: self._path(name))
                    self._add(await self._bridge.aside(lambda name=name, path=path: self._fitted(name, path)))
            except _Short as short:
                self._known[name] = short.needed
                if not number:
                    raise InputError(_too_large(name, short.needed, self.budget)) from None
            except (Exception, MemoryError) as error:
                if not number:
                    raise
                self._note(name, error)

    @property
    def free(self) -> int:
        """Bytes that nothing has taken yet."""
        taken = sum(one.sizes.total for one in self.loaded.values()) + sum(self._reserved.values())
        return self.budget - taken - self._leaving

    async def unload(self, loaded: Loaded) -> None:
        """Take a model that nobody uses out of memory, and the adapters that stand on it."""
        those = [*(other for other in self.loaded.values() if other.base is loaded), loaded]
        for one in those:  # all before anything is waited for: from here on nobody begins to use them
            del self.loaded[one.name]
        self._leaving += (size := sum(one.sizes.total for one in those))
        await asyncio.shield(asyncio.create_task(self._close(those, size)))  # though whoever wants the room may leave

    async def _close(self, those: Sequence[Loaded], size: int) -> None:
        try:
            for one in those:
                if one.adapter is None:
                    self._bridge.remove(one.engine)
                await self._bridge.aside(one.close)
            await self._bridge.aside(_let_go)
        finally:
            self._leaving -= size
            self._change.set()

    # loading

    async def _load(self, name: str) -> None:
        """Make room and load, or wait for whoever does, or until there may be room."""
        if (task := self._tasks.get(name)) is None:
            self._known_to_fail(name)
            async with self._lock:
                if name in self.loaded:
                    return
                if (task := self._tasks.get(name)) is None:
                    self._known_to_fail(name)
                    task = await self._begin(name)
        if task is None:  # waited for without the lock: what is in use may need it to be done
            await self._change.wait()
        else:
            await asyncio.shield(task)  # it goes on for others when one that waits for it leaves

    async def _begin(self, name: str) -> asyncio.Task[None] | None:
        """The task that loads it; None: models that are in use take the memory."""
        try:
            path = self._paths.get(name) or await self._bridge.aside(lambda: self._path(name))
        except (Exception, MemoryError) as error:
            raise self._note(name, error) from error
        needed = self._needed(name, path)
        if not await self._make_room(name, needed):
            self._paths[name] = path
            return None
        self._reserved[name] = needed
        if name in self.adapters:  # its base stays, though whoever asked may leave
            self.loaded[self.adapters[name].base].users += 1
        task = self._tasks[name] = asyncio.create_task(self._finish(name, path))
        return task

    async def _finish(self, name: str, path: Path) -> None:
        try:
            await self._open(name, path)
        except _Short as short:  # whoever waits makes more room
            self._known[name] = short.needed
        except (Exception, MemoryError) as error:
            raise self._note(name, error) from error
        finally:
            del self._tasks[name]
            self._reserved.pop(name, None)
            if name in self.adapters:
                self.release(self.loaded[self.adapters[name].base])

    async def _make_room(self, name: str, needed: int) -> bool:
        """Unload those that were not used for longest, until so many bytes are free; False: too many are in use."""
        most = self.budget - (self.loaded[self.adapters[name].base].sizes.total if name in self.adapters else 0)
        if needed > most:
            raise self._note(name, _TooLarge(_too_large(name, needed, most)))
        while self.free < needed:
            idle = sorted((one for one in self.loaded.values() if not one.users), key=lambda one: one.used)
            if self.free + sum(one.sizes.total for one in idle) < needed:
                self._change.clear()
                return False
            log.info("unloading %s: %s makes room for %s", idle[0].name, spoken(idle[0].sizes.total), name)
            await self.unload(idle.pop(0))
        return True

    async def _open(self, name: str, path: Path) -> None:
        self._reserved.pop(name, None)
        room = self.free
        self._reserved[name] = room  # all that is free, until it is known what it takes
        try:
            made = await self._bridge.aside(lambda: self._opened(name, path, room))
        finally:
            del self._reserved[name]
        self._add(made)

    def _add(self, made: Loaded) -> None:
        self.loaded[made.name] = made
        self.failed.pop(made.name, None)
        if made.adapter is None:
            self._bridge.add(made.engine)

    # in a thread

    def _path(self, name: str) -> Path:
        """Where a model lies; one from the hub is fetched."""
        if name in self.adapters:
            return self.adapters[name].folder
        source = self.sources[name]
        return fetch(source) if not Path(source).exists() and is_repository(source) else Path(source)

    def _needed(self, name: str, path: Path) -> int:
        """Bytes without which a model is not loaded: known from before, or told from its files."""
        if name in self._known:
            return self._known[name]
        if name in self.adapters:
            return adapter_bytes(self.adapters[name])
        return estimated(path, native=available()[0], dequantise=self.settings.dequantise) + LEAST

    def _fitted(self, name: str, path: Path) -> Loaded:
        """Open a model at the start.

        Raises:
            _Short: it takes more than there is.
        """
        if (needed := self._needed(name, path)) > self.free:
            raise _Short(needed)
        return self._opened(name, path, self.free)

    def _opened(self, name: str, path: Path, room: int) -> Loaded:
        """Open a model within so many bytes.

        Raises:
            _Short: it takes more.
        """
        settings = self.settings
        if name in self.adapters:
            base = self.loaded[self.adapters[name].base]
            options = {"max_batch": settings.max_batch, **settings.engine}
            model, engine, sizes, own = open_adapter(name, self.adapters[name], base, options)
            return Loaded(name, model, engine, sizes, base, own)
        if not path.exists():
            raise InputError(f"{path} does not exist; give a folder, a .gguf file or a name on the hub")
        task = None
        if path.is_dir() and holds(path, TASK):
            from cutaway.tasks import open_task  # which few servers need

            task = open_task(path)
        model = load_model(path, quantised=not settings.dequantise and available()[0]) if task is None else task.model
        model.source = name
        native = settings.engine.get("backend") != "torch" and why_not_native(model) is None
        sizes = Sizes(weights(model, native=native), 0, work(model, settings.max_batch, native=native))
        if each := token_bytes(model, str(settings.engine.get("cache", "auto")), native=native):
            context = min(model.config.context * each, max(LEAST, self.budget - sizes.total))
            needed = max(LEAST, min(context, settings.cache_memory or context))  # a text of the whole context has room
            if sizes.total + needed > room:
                raise _Short(sizes.total + needed)
            usual = settings.max_batch * min(model.config.context, USUAL) * each
            pages = settings.cache_memory or max(needed, min(usual, self._share(name, room - sizes.total)))
            sizes = replace(sizes, pages=min(pages, room - sizes.total))
        elif sizes.total > room:
            raise _Short(sizes.total)
        options: dict[str, Any] = dict(settings.engine)
        engine = Engine(model, max_batch=settings.max_batch, memory=sizes.pages or None, **options)
        if native:
            forget_file(model)
        give_back()
        return Loaded(name, model, engine, sizes, task=task)

    def _share(self, name: str, room: int) -> int:
        """Bytes for keys and values: a share of what the models leave free that still fit."""
        count = 1
        room = max(LEAST, room - sum(adapter_bytes(one) for one in self.adapters.values() if one.base == name))
        for other, source in self.sources.items():
            if other != name and other not in self.loaded and Path(source).exists():
                needed = self._needed(other, Path(source))
                if needed <= room - LEAST:
                    room, count = room - needed, count + 1
        return room // count

    def _known_to_fail(self, name: str) -> None:
        error, until = self.failed.get(name, (None, 0.0))
        if error is not None and time.monotonic() < until:
            raise error.with_traceback(None)  # it is raised again and again, and would keep all that were refused

    def _note(self, name: str, error: BaseException) -> ApiError:
        """What whoever asks for a model is told that could not be loaded; the log says all."""
        if isinstance(error, ApiError):
            return error
        own = isinstance(error, CutawayError | MemoryError | OSError)
        log.error("the model %s cannot be loaded: %s", name, error, exc_info=None if own else error)
        told = _told(name, error)
        self._paths.pop(name, None)
        self.failed[name] = told, time.monotonic() + AGAIN
        return told


class _Short(Exception):
    """A model takes so many bytes, and they are not there."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


class _TooLarge(InputError):
    """More than there is for all models."""


def _told(name: str, error: BaseException) -> ApiError:
    """Without a path, or anything else that is not the caller's business."""
    status, reason = 500, "the server's log says why"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        status, reason = 503, "the server's disk is full"
    elif isinstance(error, MemoryError):
        status, reason = 503, "there is not enough memory for it now"
    elif isinstance(error, _TooLarge):
        status, reason = 503, str(error)
    elif isinstance(error, DamagedFile):
        reason = "its file is damaged; the server's log says where"
    elif isinstance(error, MissingExtra):
        reason = "the server lacks a library for it; its log says which"
    elif isinstance(error, InputError | OSError):
        status, reason = 503, "it cannot be read or fetched now; the server's log says why"
    return ApiError(status, f"the model {name} cannot be loaded: {reason}", code="model_unavailable", retry=AGAIN)


def _too_large(name: str, needed: int, budget: int) -> str:
    return (
        f"{name} takes {spoken(needed)}, but {spoken(max(budget, 0))} are there for models; give at least "
        f"{spoken(needed - budget + 1e6)} more with --memory, or a smaller or quantised model"
    )


def task_record(path: Path) -> Mapping[str, Any] | None:
    """What a task's folder says of itself; None: it is of no task, or does not lie here, or cannot be read."""
    try:
        found = read_json(inside(path, TASK)) if path.is_dir() and holds(path, TASK) else None
    except (CutawayError, OSError):
        return None
    return found if isinstance(found, dict) else None


def _let_go() -> None:
    """Return the memory of what was dropped."""
    if (constrain := sys.modules.get("cutaway.generation.constrain")) is not None:
        constrain.let_go()
    gc.collect()  # what there was at the start is frozen, and not looked through
    give_back()
