"""The engine: many requests, computed together, one step at a time.

A step takes one token of each sequence that generates (more where some are guessed ahead) and pieces of the prompts
that are still to be computed, at most `chunk` tokens of these, so that a long prompt does not hold up the others (or
twice as many, where far more prompts wait than texts are written).
Requests are let in in the order of their coming, tenant by tenant, while there are pages; when pages run out, the
request that was let in last goes back to wait and is computed again from its tokens.

One thread at a time steps; others submit, cancel and iterate. `lane.py` holds what happens within a step.

Shapes: W wanted rows, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from itertools import count
from threading import Condition, Lock, get_ident
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import Closed, ConfigError, InputError, unknown
from cutaway.generation.backend import Backend
from cutaway.generation.choosers import make_choosers
from cutaway.generation.job import Adapted, Continuation, Job, Sequence
from cutaway.generation.lane import Lane
from cutaway.generation.memory import Memory, megabytes, pages_in
from cutaway.generation.prepare import prepare
from cutaway.generation.reading import LIMIT, Reading, Readings, ids_of
from cutaway.generation.request import Request
from cutaway.generation.select import choose_backend, records
from cutaway.generation.speculate import Lookup
from cutaway.generation.text import Writer
from cutaway.generation.ticket import Ticket
from cutaway.generation.torch_backend import TorchBackend
from cutaway.models import OFF, Decoder, Model
from cutaway.models.embedding import framed_texts
from cutaway.models.heads import probabilities
from cutaway.models.quantised import blocks_in, floats_in

GUESSES = 1 + Lookup.MOST  # rows of a sequence in a step
CLOSED = "the engine was closed; load the model anew"
KEPT = 256 << 20  # bytes of pages kept for later requests, where nobody says how many


class Engine:
    """Generates for many requests at a time.

    Args:
        model: what continues.
        backend: "auto", "native", "torch", or one of your own.
        pages: most pages of keys and values; None: what `memory` allows.
        memory: most bytes of keys and values; None: half of what is free.
        keep: most pages kept for later requests though no sequence uses them; None: 256 MB of them.
        max_batch: most sequences computed at a time.
        chunk: most tokens of prompts computed in a step; twice as many where far more prompts wait than texts are
            written.
        cache: how keys and values are kept: "float32", "float16", "int8", or "auto".
        options: of the backend (threads, rounding).

    Raises:
        ConfigError: an option out of range, or a backend that cannot compute this model; says why.
    """

    def __init__(
        self,
        model: Model,
        *,
        backend: str | Backend = "auto",
        pages: int | None = None,
        memory: int | None = None,
        keep: int | None = None,
        max_batch: int = 64,
        chunk: int = 512,
        cache: str = "auto",
        **options: Any,
    ) -> None:
        if max_batch < 1 or chunk < 1:
            raise ConfigError(f"max_batch and chunk must be at least 1, but {max_batch} and {chunk} were given")
        self.model, self.max_batch, self.chunk = model, max_batch, chunk
        self.backend = choose_backend(model, backend, cache=cache, **options) if isinstance(backend, str) else backend
        self._limits, self._options = (pages, memory, keep), {"cache": cache, **options}
        self._adapters: dict[str, Adapted] = {}
        self._adapter_numbers = count(1)
        self.numbers = count()  # of sequences
        self._lanes = [self._lane(self.backend)]
        self._others: dict[tuple[bool, int], Lane] = {}  # of those beside the first, by what they are for
        self._whole = _depends_on_length(model)
        self._admissions = count(1)
        self._inbox: deque[Job] = deque()
        self._waiting: dict[str, deque[tuple[Job, Lane]]] = {}  # by tenant, the one to be served next first
        self._jobs: dict[Ticket, tuple[Job, Lane]] = {}
        self._cancelled: deque[Ticket] = deque()
        self._readings = Readings(model)
        self._stepping, self._change = Lock(), Condition()
        self.listeners: list[Callable[[], None]] = []  # called, by any thread, when there is work or news
        self._stepper: int | None = None  # the thread that steps
        self.closed = False
        self.read_tokens = self.written = self.cached = 0  # tokens since it was made

    # what others call, from any thread

    def submit(self, request: Request, *, lazy: bool = False) -> Ticket:
        """Take a request.

        Args:
            request: what to generate.
            lazy: compute it only while somebody waits for its next token.

        Raises:
            ConfigError: an option of the wrong type or out of range.
            InputError: a prompt that is no text, holds an id outside the vocabulary, or is longer than the context; or
                a request that needs more pages than there are; or an adapter that the engine does not hold.
            Closed: the engine was closed.
        """
        model, lane = self._open()
        adapter = None if request.adapter is None else self._adapters.get(request.adapter)
        if request.adapter is not None and adapter is None:
            raise InputError(unknown("adapter", request.adapter, self._adapters))
        prepared = prepare(model, request)
        choosers, width = make_choosers(request, prepared, model)
        ticket = Ticket(self, request, list(prepared.ids), lazy, prepared.beams)
        told = request.n // len(choosers)  # a search tells all of them
        continuations = []
        for number, chooser in enumerate(choosers):
            writers = [Writer(model.tokenizer, prepared.stops, prepared.ends, prepared.count) for _ in range(told)]
            continuations.append(Continuation(chooser, writers, number * told))
        continuations[0].sequences.append(Sequence(next(self.numbers), prepared.ids, len(prepared.ids)))
        whole = request.tap is not OFF or (self._whole is not None and len(prepared.ids) > self._whole)
        job = Job(request, prepared, ticket, continuations, whole, width, adapter)
        self._fits(job, lane)
        if lazy:
            ticket.later = job
        else:
            self._inbox.append(job)
            if self.closed and not ticket.ended:  # meanwhile, and nobody steps any more
                ticket.end(Closed(CLOSED))
            self.changed()
        return ticket

    def add_adapter(self, name: str, model: Model) -> None:
        """Hold an adapter, which requests name (`Request.adapter`).

        Where the backend can (native kernels low-rank parts of matrices, torch any), rows with it are computed beside
        those of others, in the same step; else it gets a backend of its own, on the same weights.

        Args:
            name: by which requests ask for it.
            model: this engine's own with an adapter (`cutaway.models.adapters.load_adapter`).

        Raises:
            ConfigError: a name that is taken, or a model with other weights.
            Closed: the engine was closed.
        """
        base, _ = self._open()
        if not name or name in self._adapters:
            raise ConfigError(f"the engine holds an adapter {name!r} already" if name else "an adapter needs a name")
        theirs = {parameter.data_ptr() for parameter in model.network.parameters()}  # any may be the adapter's own
        if model.adapter is None or theirs.isdisjoint(p.data_ptr() for p in base.network.parameters()):
            raise ConfigError("an engine takes adapters of its own model alone: load_adapter(engine.model, folder)")
        number = next(self._adapter_numbers)
        with self._stepping:
            self._open()
            beside = self.backend.adapt(number, model.network)
            self._adapters = {**self._adapters, name: Adapted(model, number, beside)}

    def remove_adapter(self, name: str) -> None:
        """Hold an adapter no more.

        Raises:
            ConfigError: there is no such adapter, or requests with it have not ended.
        """
        if name not in self._adapters:
            raise ConfigError(unknown("adapter", name, self._adapters))
        with self._stepping:
            self._absorb()
            adapter = self._adapters[name]
            if any(job.adapter is adapter for job, _ in self._jobs.values()):
                raise ConfigError(f"the adapter {name!r} is in use; end its requests first")
            self._adapters = {other: held for other, held in self._adapters.items() if other != name}
            self.backend.adapt(adapter.number, None)
            for edits in (False, True):
                if (lane := self._others.pop((edits, adapter.number), None)) is not None:
                    self._lanes.remove(lane)

    def computes_beside(self, name: str) -> bool:
        """Whether rows with this adapter are computed in one step with those of others; else it has its own pages."""
        return self._adapters[name].beside

    @property
    def adapters(self) -> Mapping[str, Model]:
        """The model with each adapter, by name."""
        return {name: adapter.model for name, adapter in self._adapters.items()}

    def read(self, texts: Many[str] | Many[list[int]], *, types: Many[Many[int]] | None = None) -> Reading:
        """Take texts to be read whole, by a network that does not write; `results()` has what its head makes of each.

        Args:
            texts: as text or ids.
            types: of each token, which of two texts it is of; None: all are of one.

        Raises:
            ConfigError: a network that writes.
            InputError: a lone string, or a text that is empty or longer than the context.
        """
        model, _ = self._open()
        return self._read(ids_of(model, texts), types)

    def embed(self, texts: Many[str]) -> Float[Tensor, "N C"]:
        """One vector for each text, (N, C), as `cutaway.models.embed` with other requests in between.

        Raises:
            ConfigError: the model makes no vectors.
            InputError: a lone string, no texts, or an empty one.
        """
        model, _ = self._open()
        return torch.stack(self._read(framed_texts(model, texts)).results())

    def classify(self, texts: Many[str]) -> Float[Tensor, "N L"]:
        """The probability of each of `model.config.labels` for each text, (N, L).

        Raises:
            ConfigError: the model tells no labels, or numbers in their place.
            InputError: a lone string, no texts, or one that is empty or longer than the context.
        """
        model, _ = self._open()
        if getattr(model.config, "head", None) != "sequence_classification":
            raise ConfigError(f"{model.source or 'the model'} has no labels for texts; load one that classifies")
        if not texts:
            raise InputError("give a list of texts, even of one")
        return probabilities(torch.stack(self.read(texts).results()), model.config)  # pyright: ignore[reportArgumentType]

    def _read(self, ids: Many[list[int]], types: Many[Many[int]] | None = None) -> Reading:
        reading = Reading(self, ids, types)
        self._readings.add(reading)
        if self.closed and not reading.ended:  # meanwhile, and nobody steps any more
            reading.end(Closed(CLOSED))
        self.changed()
        return reading

    def _open(self) -> tuple[Model, Lane]:
        """The model and where it is computed: whoever asks holds them, though another thread may close meanwhile."""
        model, lane = getattr(self, "model", None), next(iter(self._lanes), None)
        if self.closed or model is None or lane is None:
            raise Closed(CLOSED)
        return model, lane

    def close(self) -> None:
        """Let go of the model, of keys and values, native memory and threads, after the step that runs.

        Requests that run or wait end with an error (`Closed`), later ones are refused. May be called twice.
        """
        self.closed = True
        with self._stepping:
            self._absorb()
            for lane in self._lanes:
                lane.backend.end()
            if self._lanes:
                del self.model, self.backend, self._readings.model
            self._lanes.clear()
            self._others.clear()
            self._adapters = {}
        self.changed()

    def cancel(self, ticket: Ticket) -> None:
        """End a request; its pages are free at once, or after the step that runs."""
        if ticket.later is not None:  # it was never begun
            ticket.later = None
            ticket.end()
        if ticket.done:
            return
        self._cancelled.append(ticket)
        if self._stepping.acquire(blocking=False):
            try:
                self._absorb()
            finally:
                self._stepping.release()
        self.changed()

    def pull(self, ticket: Ticket | Reading, *, whole: bool = False) -> None:
        """Wait until a ticket has news, or for all of it, stepping where nobody else does."""

        def there() -> bool:
            return ticket.ended if whole else ticket.news

        if self._stepper == get_ident():
            raise ConfigError("a tap cannot wait for the engine that shows it a step; ask another model, or afterwards")
        if ticket.later is not None:
            self._inbox.append(ticket.later)
            ticket.later = None
        try:
            while not there():
                ticket.waiting = True  # another that waited for it may have left
                worked = True
                if self._stepping.acquire(blocking=False):
                    try:
                        worked = there() or self._step()
                    finally:
                        self._stepping.release()
                        self.changed()
                with self._change:
                    if not there() and (self._stepping.locked() or not worked):
                        self._change.wait(0.05)
        finally:
            ticket.waiting = False

    def step(self) -> bool:
        """Compute one step of what there is; False: there was nothing to do."""
        with self._stepping:
            worked = self._step()
        self.changed()
        return worked

    def run(self) -> None:
        """Step, and sleep where there is nothing to do, until the engine is closed (a server's thread)."""
        while not self.closed:
            if not self.step():
                with self._change:
                    if not (self.closed or self._inbox or self._cancelled or self._readings.waiting):
                        self._change.wait()

    def changed(self) -> None:
        """Wake whoever waits."""
        with self._change:
            self._change.notify_all()
        for listener in self.listeners:
            listener()

    @property
    def idle(self) -> bool:
        """Whether there is no request."""
        return not self._jobs and not self._inbox and not self._readings.waiting

    def counts(self) -> dict[str, int]:
        """What there is now, and what was done since the engine was made; cheap, from any thread.

        Returns:
            `sequences` that are computed, requests `running` and `waiting`, the `batch` (sequences and texts) of the
            last step; pages `used`, `kept` for later requests, and at the `most`; tokens `read`, `written`, and
            `cached`, which were found and not read again.
        """
        lanes = tuple(self._lanes)
        pages = [lane.pages for lane in lanes]
        running = sum(len(lane.running) for lane in lanes)
        return {
            "running": running,
            "waiting": max(0, len(self._jobs) + len(self._inbox) - running),  # one may end while it is counted
            "batch": sum(lane.batch for lane in lanes) + self._readings.texts,
            "read": self.read_tokens + self._readings.tokens,
            "written": self.written,
            "cached": self.cached,
            "sequences": sum(len(job.sequences) for lane in lanes for job in tuple(lane.running)),
            "used": sum(one.used for one in pages),
            "kept": sum(one.kept for one in pages),
            "most": sum(one.most for one in pages),
        }

    def memory(self) -> Memory:
        """What it holds, and may hold at the most.

        A step's work space is stated for as many rows as a step can have: twice `chunk` tokens of prompts, and the
        guesses of `max_batch` sequences. Taps, constraints' tables and drafts are not in it.
        """
        self._open()
        tensors = [
            tensor
            for network in (self.model.network, *(adapter.model.network for adapter in self._adapters.values()))
            for kept in (floats_in(network).values(), network.buffers(), (b.data for b in blocks_in(network).values()))
            for tensor in kept
        ]
        held = {tensor.untyped_storage().data_ptr(): tensor.nbytes for tensor in tensors}
        wanted = GUESSES * self.max_batch
        rows = max(2 * self.chunk, *(lane.backend.chunk for lane in self._lanes)) + wanted
        if self._readings.reads:
            rows, wanted = max(LIMIT, self.model.config.context), 0
        lanes = [(lane.pages, lane.backend) for lane in self._lanes]
        return Memory(
            weights=sum(held.values()) + sum(backend.packed_bytes() for _, backend in lanes),
            cache=sum(pages.made * backend.page_bytes for pages, backend in lanes),
            cache_most=sum(pages.most * backend.page_bytes for pages, backend in lanes),
            work=sum(backend.work_bytes(rows, wanted) for _, backend in lanes),
        )

    # inside a step; by the thread that holds `_stepping`

    def _step(self) -> bool:
        self._stepper = get_ident()
        try:
            self._absorb()
            if self.closed:
                return False
            self._admit()
            worked = self._readings.step()
            for lane in self._lanes:
                worked = lane.step() or worked
            return worked
        finally:
            self._stepper = None

    def _absorb(self) -> None:
        """Take in what others have asked for."""
        while self._inbox:
            job = self._inbox.popleft()
            try:
                self._open()
                if job.adapter is not None and job.adapter not in self._adapters.values():
                    raise InputError(f"the adapter {job.request.adapter!r} was removed")
                lane = self._lane_for(job)
                self._fits(job, lane)
            except Exception as error:  # such as no room for another backend's pages: of this request alone
                for continuation in job.continuations:
                    continuation.chooser.close()
                job.ticket.end(error)
                continue
            self._jobs[job.ticket] = job, lane
            self._waiting.setdefault(job.request.tenant, deque()).append((job, lane))
        while self._cancelled:
            found = self._jobs.get(self._cancelled.popleft())
            if found is not None:
                self.end(*found)
        if self.closed:
            for job, lane in list(self._jobs.values()):
                self.end(job, lane, Closed(CLOSED))
            self._readings.end(Closed(CLOSED))

    def _admit(self) -> None:
        """Let in those that wait, a tenant after the other, while there are places and pages."""
        while (found := self._next()) is not None:
            tenant, (job, lane) = found
            active = sum(len(one.sequences) for lane in self._lanes for one in lane.running if not one.paused)
            if (active and active + job.width > self.max_batch) or not lane.admit(job, next(self._admissions)):
                return
            queue = self._waiting.pop(tenant, None)  # to the end of the row
            if queue and (job, lane) in queue:  # it has not failed at once
                queue.remove((job, lane))
            if queue:
                self._waiting[tenant] = queue

    def _next(self) -> tuple[str, tuple[Job, Lane]] | None:
        """The job to let in next, with its tenant; those that nobody waits for stand aside."""
        for tenant, queue in self._waiting.items():
            for found in queue:
                if not found[0].paused:
                    return tenant, found
        return None

    def again(self, job: Job, lane: Lane) -> None:
        """A job that had to give its pages back waits at the head of its tenant's row."""
        self._waiting.setdefault(job.request.tenant, deque()).appendleft((job, lane))

    def end(self, job: Job, lane: Lane, error: Exception | None = None) -> None:
        """A job is over."""
        lane.close(job)
        if self._jobs.pop(job.ticket, None) is not None:
            queue = self._waiting.get(job.request.tenant)
            if queue and (job, lane) in queue:
                queue.remove((job, lane))
                if not queue:
                    del self._waiting[job.request.tenant]
            job.ticket.end(error)

    def _lane(self, backend: Backend, many: bool = True) -> Lane:
        pages, memory, keep = self._limits
        if not backend.page:
            return Lane(backend, 0, 0, self, many)
        if pages is None:
            pages = pages_in(memory, backend.page_bytes, backend.page)
        keep = max(1, KEPT // backend.page_bytes) if keep is None else keep
        return Lane(backend, pages, keep, self, many)

    def _lane_for(self, job: Job) -> Lane:
        """Where a job is computed: what the backend cannot show, change or compute beside others, another can."""
        adapter = job.adapter
        number, model = (0, self.model) if adapter is None else (adapter.number, adapter.model)
        lane = self._lanes[0]
        if adapter is not None and not adapter.beside:
            lane = self._other((False, number), lambda: self._own_backend(model))
        if not job.tapped or records(lane.backend, job.request.tap):
            return lane
        reason = "a tap changes or reads what it asks for"
        return self._other((True, number), lambda: TorchBackend(model.network, reason))

    def _own_backend(self, model: Model) -> Backend:
        """For an adapter that cannot be computed beside others; what it shares with the base is not packed again."""
        kind = "torch" if isinstance(self.backend, TorchBackend) else "auto"
        return choose_backend(model, kind, share=self.backend, **self._options)

    def _other(self, which: tuple[bool, int], make: Callable[[], Backend]) -> Lane:
        if which not in self._others:
            self._others[which] = self._lane(make(), many=False)
            self._lanes.append(self._others[which])
        return self._others[which]

    def _fits(self, job: Job, lane: Lane) -> None:
        """Refuse what could never run."""
        pages = lane.pages
        if not lane.backend.page:
            return
        prepared, size = job.prepared, lane.backend.page_bytes
        tokens = min(len(prepared.ids) + prepared.count, prepared.context or 2**62)
        # continuations share their prompt, but not for sure once they had to give their pages back
        needed = job.width * pages.needed(tokens)
        if needed > pages.most:
            raise InputError(
                f"this request may need {needed} pages of {pages.size} tokens, {megabytes(needed * size)} of keys and "
                f"values, but there are {pages.most}, {megabytes(pages.most * size)}; give fewer max_new_tokens, a "
                "lower n, or the engine more memory, or keep them as float16 or int8"
            )


def _depends_on_length(model: Model) -> int | None:
    """Tokens from which on a network's numbers depend on how long the whole text is; None: they never do."""
    scaling = model.network.config.rotary_scaling if isinstance(model.network, Decoder) else None
    if scaling is None or scaling.kind not in ("dynamic", "longrope"):
        return None
    return scaling.original_context or model.config.context
