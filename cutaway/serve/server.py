"""A running server: its settings, models, keys and queue, and the work of one request."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from starlette.requests import Request as HttpRequest

from cutaway.generation import Request
from cutaway.generation.prepare import shown
from cutaway.serve.bridge import Bridge, Stream
from cutaway.serve.errors import ApiError
from cutaway.serve.keys import ANYONE, Caller
from cutaway.serve.metrics import Metrics
from cutaway.serve.models import Loaded, Models
from cutaway.serve.queue import Queue
from cutaway.serve.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from cutaway.serve.studio.studio import Studio

log = logging.getLogger("cutaway.serve")
Result = TypeVar("Result")
DEADLINE = "cutaway-deadline"  # a header: seconds in which the answer is wanted
LOADING = ApiError(503, "the models are being loaded; try again in a moment", code="loading", retry=1)
STOPPING = ApiError(503, "the server is stopping; try again later, or another one", code="stopping", retry=5)


class Server:
    """What all requests share. Made within the event loop.

    Args:
        settings: what it was told at its start.
        models: those of the settings, where some are being opened already.

    Attributes:
        studio: what its pages share, where there is one.
        works: requests that are being answered.
        bodies: bytes of the bodies of all requests.
        ready: it answers: its models are loaded, and it does not stop.
    """

    def __init__(self, settings: Settings, models: Models | None = None) -> None:
        self.settings = settings
        self.bridge = Bridge()
        self.models = models or Models(settings)
        self.models.bind(self.bridge)
        self.studio: Studio | None = None
        self.queue = Queue(settings)
        self.queue.refuses = LOADING
        self.metrics = Metrics(self)
        self.started = time.time()
        self.works: set[Work] = set()
        self.bodies = 0
        self.recordings = 0  # that are being heard
        self._none = asyncio.Event()
        self._none.set()

    @property
    def ready(self) -> bool:
        """Whether requests are answered now."""
        return self.queue.refuses is None

    async def begin(self, http: HttpRequest, model: str, *, weight: int = 1) -> Work:
        """Take a place and a model for a request, whose body was read; whoever gets the work closes it.

        Args:
            http: the request.
            model: the name in it.
            weight: sequences that are computed for it at a time: prompts times continuations.

        Raises:
            ApiError: no such model (404), no right to it (403), no place (429), a server that stops or a model that
                cannot be loaded (503), the deadline (504).
        """
        caller = caller_of(http)
        if not caller.may_use(model):
            message = f"the key {caller.name} may not use {model!r:.100}"
            raise ApiError(403, message, code="model_not_allowed", param="model")
        self.models.check(model, caller)
        work = Work(self, http, model, weight)
        try:
            await work.attended(work.place.turn())
            work.loaded = await self._model(work)
        except BaseException:
            work.close()
            raise
        return work

    async def _model(self, work: Work) -> Loaded:
        try:
            return await work.attended(self.models.use(work.model))
        except ApiError as error:
            if error.code != "deadline":
                raise
            message = f"the model {work.model} could not be loaded in time: those that are in use take the memory"
            raise ApiError(503, f"{message}; try again later", code="no_room", retry=self.queue.retry()) from None

    async def load(self) -> None:
        """Load what fits, and answer from then on.

        Raises:
            Exception: what the first model failed with.
        """
        await self.models.start()
        if self.queue.refuses is LOADING:
            self.queue.refuses = None

    @property
    def draining(self) -> bool:
        """Whether it is about to stop."""
        return self.queue.refuses is STOPPING

    def drain(self) -> None:
        """Take no new requests."""
        self.queue.refuses = STOPPING

    async def drained(self) -> None:
        """Wait until no request is left."""
        await self._none.wait()

    def end_all(self) -> None:
        """End all requests with an error that says that the server stops."""
        for work in tuple(self.works):
            work.end(STOPPING)

    def entered(self, work: Work) -> None:
        """One request more is answered."""
        self.works.add(work)
        self._none.clear()

    def left(self, work: Work) -> None:
        """It is answered."""
        self.works.discard(work)
        if not self.works:
            self._none.set()

    def heard(self) -> None:
        """One recording less is being heard."""
        self.recordings -= 1

    def stop(self) -> None:
        """End the threads."""
        if self.studio is not None:
            self.studio.stop()
        self.bridge.stop()


class Work:
    """One request while it is answered: its place, its model, its streams, its deadline. `close` gives all back.

    When the client goes away or the deadline comes, its streams and whatever is `attended` end at once with `error`;
    for streams no further step is computed.

    Attributes:
        loaded: the model.
        caller: who asks.
        model: its name in the request.
        weight: places that it takes.
        began: when it came, by `time.monotonic`.
        deadline: when its answer must be complete, by the event loop's clock.
        error: what ended it before its time, if anything did.
        prompt_tokens: read for it, of all its streams; a route that reads texts in another way sets it.
        cached_tokens: of these, how many were found computed already.
        completion_tokens: written for it.
        sent: all of a stream of events was, but for its last mark.
        closing: what else is to be done when it is closed.
    """

    loaded: Loaded

    def __init__(self, server: Server, http: HttpRequest, model: str, weight: int = 1) -> None:
        seconds = _deadline(http, server.settings.deadline)
        self.server, self.http, self.caller, self.model = server, http, caller_of(http), model
        adapter = server.models.adapters.get(model)  # which the engine of its base computes
        self.place = server.queue.take(adapter.base if adapter else model, self.caller.tenant, weight)
        self.weight, self.began, self.error = self.place.weight, time.monotonic(), None
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.streams: list[Stream] = []
        self.sent = False
        self.closing: Callable[[], None] | None = None
        self._waited: set[asyncio.Future[Any]] = set()
        self._closed = False
        loop = asyncio.get_running_loop()
        self.deadline = loop.time() + seconds
        late = f"the answer was not complete after {seconds:g} s, its deadline; ask for less, or for more time"
        self._alarm = loop.call_at(self.deadline, self.end, ApiError(504, late, code="deadline"))
        self._watch = loop.create_task(self._until_gone())
        server.entered(self)
        cast(dict[str, Any], http.scope)["work"] = self

    async def submit(self, request: Request) -> Stream:
        """Hand a request to the model's engine, in the name of the caller.

        Raises:
            CutawayError: as `Engine.submit`.
            ApiError: the deadline has come, or the client is gone.
        """
        request = replace(request, adapter=self.loaded.adapter)
        stream = await self.attended(self.server.bridge.submit(self.loaded.engine, request))
        self.streams.append(stream)
        if self.error is not None:
            stream.stop(self.error)
        return stream

    async def read(self, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> list[Tensor]:
        """What the model's head makes of texts, read whole together with those of other requests.

        Args:
            texts: ids of each.
            types: of each token, which of two texts it is of; None: all are of one.
        """
        self.prompt_tokens += sum(map(len, texts))
        reading = await self.attended(self.server.bridge.read(self.loaded.engine, texts, types))
        return reading.results()

    async def attended(self, wanted: Awaitable[Result]) -> Result:
        """Wait for something, as long as the client waits too and the deadline has not come; else it is cancelled.

        Raises:
            ApiError: 504 at the deadline; 499 (which nobody reads) when the client has gone; 503 when the server stops.
        """
        task = asyncio.ensure_future(wanted)
        if self.error is not None:
            task.cancel()
        self._waited.add(task)
        try:
            return await task  # cancelled itself, this cancels the task and waits for its end
        except asyncio.CancelledError:
            if self.error is None or (own := asyncio.current_task()) is None or own.cancelling():
                raise
            raise self.error from None
        finally:
            self._waited.discard(task)

    @property
    def over(self) -> bool:
        """Whether it was ended or closed."""
        return self._closed or self.error is not None

    def end(self, error: ApiError) -> None:
        """End it now, with an error."""
        if self.error is None and not self._closed:
            self.error = error
            for stream in self.streams:
                stream.stop(error)
            for task in tuple(self._waited):
                task.cancel()

    def close(self) -> None:
        """Cancel what still runs and give the place and the model back; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._alarm.cancel()
        self._watch.cancel()
        for stream in self.streams:
            stream.close()
        if self.streams:  # a route may have counted what it told; this is what was computed
            self.prompt_tokens = sum(stream.ticket.prompt_tokens for stream in self.streams)
            self.cached_tokens = sum(stream.ticket.cached_tokens for stream in self.streams)
            self.completion_tokens = sum(stream.written for stream in self.streams)
        try:
            if self.server.settings.log_texts:
                self._log_texts()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if hasattr(self, "loaded"):
            self.server.models.release(self.loaded)
        self.caller.spend(self.prompt_tokens + self.completion_tokens)
        self.server.queue.leave(self.place)
        if self.closing is not None:
            self.closing()
        self.server.metrics.answered(self)
        self.server.left(self)

    def _log_texts(self) -> None:
        """Write down what was asked and answered, which was asked for at the start."""
        for stream in self.streams:
            prompt = shown(stream.ticket.request.prompt)
            text = prompt if isinstance(prompt, str) else self.loaded.model.tokenizer.decode(prompt)
            log.info("%s was asked: %s", self.model, text)
            for answer in stream.ticket.texts():
                log.info("%s answered: %s", self.model, answer)

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def _until_gone(self) -> None:
        """End it when the client goes away."""
        while (await self.http.receive())["type"] != "http.disconnect":
            pass
        if self.sent:
            return  # an answer that has been sent whole looks like a client that has gone
        self.end(ApiError(499, "the client has gone", code="cancelled"))


def _deadline(http: HttpRequest, most: float) -> float:
    """The seconds that a request allows, at most the server's.

    Raises:
        ApiError: the header is no number above 0.
    """
    given = http.headers.get(DEADLINE)
    if given is None:
        return most
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ApiError(
            400,
            f"the header Cutaway-Deadline must be a number of seconds above 0, not {given!r:.50}",
            code="invalid_value",
        )
    return min(seconds, most)


def server_of(http: HttpRequest) -> Server:
    """The server that a request came to."""
    return cast(Server, http.app.state.server)


def caller_of(http: HttpRequest) -> Caller:
    """Who sent a request; the guard has found out."""
    return cast(dict[str, Any], http.scope).get("caller", ANYONE)
