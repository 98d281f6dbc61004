"""Steps computed by the native runner: each is one call, whatever it holds.

Shapes: W wanted rows, V vocabulary, T new tokens of a sequence, S tokens it then holds, H heads, D head dim.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.generation.backend import Logits, Rows
from cutaway.generation.native import interface, library
from cutaway.generation.native.interface import ERROR, Batch, Buffer, Operation, Part, PlanOf, Shown
from cutaway.generation.native.plan import FLOATS, Place, Plan, angles, make_plan, quantised, supported
from cutaway.generation.sampling import scored
from cutaway.models import OFF, ActiveTap, Decoder, Tap
from cutaway.models.formats.ggml import KINDS
from cutaway.models.low_rank import LowRankEmbedding, LowRankLinear, parts_of

CACHES = {"float32": 0, "float16": 1, "int8": 2}
ROUNDINGS = {"eight": 8, "sixteen": 16}
NO_MEMORY = 2  # what a call returns then
FIRST_TABLE = 2048  # positions whose angles are computed at first
SCORED = 64  # rows at once whose logits are only looked at
WANTED = ("final_norm", "logits")  # places that have wanted rows alone, so that all are wanted where they are shown


class NativeBackend:
    """Computes steps of a decoder; see `backend.Backend`.

    A row's numbers do not depend on what else a step computes, bit for bit.

    Args:
        network: one for which `plan.supported` gives no reason against it. Its float matrices are used where they lie;
            quantised ones are packed, norms and biases copied: where those were changed since (`Model.fingerprint`
            tells), make another backend.
        cache: how keys and values are kept: "float32", "float16" or "int8"; "auto": float16 where the matrices of the
            network are quantised, else float32.
        threads: None: as many as torch uses.
        share: a backend of a network with which this one shares tensors: what that has packed is not packed again.
        rounding: to how many bits the activations are rounded that quantised matrices are multiplied with: "eight", as
            llama.cpp does, or "sixteen", which comes close to float32.

    Raises:
        ConfigError: the network, or the machine, is not one for native kernels, which says why; or another cache or
            rounding.
    """

    page: int

    def __init__(
        self,
        network: nn.Module,
        *,
        cache: str = "auto",
        threads: int | None = None,
        rounding: str = "eight",
        share: NativeBackend | None = None,
    ) -> None:
        for what, given, known in (("cache", cache, ("auto", *CACHES)), ("rounding", rounding, ROUNDINGS)):
            if given not in known:
                raise ConfigError(unknown(what, given, known))
        if threads is not None and threads < 1:
            raise ConfigError(f"threads must be at least 1, but {threads} was given")
        if reason := supported(network):
            raise ConfigError(f"the native kernels cannot compute this network: {reason}")
        assert isinstance(network, Decoder)
        self.network, self.config, self._library = network, network.config, interface.load()
        self.threads = threads or torch.get_num_threads()
        self.cache = cache if cache != "auto" else "float16" if quantised(network) else "float32"
        self.name, self.reason = f"native {library.instruction_set()}", library.available()[1]
        self._plan = make_plan(network)
        self._error, self._lock = ctypes.create_string_buffer(ERROR), threading.Lock()
        self._packed = _pack(self._library, self._plan, self.threads, share._packed if share is not None else {})
        self._runner = self._make_runner(self._packed, CACHES[self.cache], ROUNDINGS[rounding])
        # not at the interpreter's end, when another thread may still be in a step: the system takes everything back
        self._finalizer = weakref.finalize(self, _end, self._library, self._runner, self._packed)
        self._finalizer.atexit = False
        self.page = self._library.ctw_page_tokens()
        self.page_bytes = self._library.ctw_page_bytes(self._runner)
        self.chunk, self.apart = 0, False
        self._positions = 0
        self._tables: dict[int, Tensor] = {}
        self._know_positions(1)
        self._batch = Batch()
        self._batch_pointer = ctypes.byref(self._batch)
        self._room: dict[str, ctypes.Array[ctypes.c_int32]] = {}
        self._logits: tuple[Tensor, Tensor, Tensor] | None = None
        self._names: dict[frozenset[str], Asked] = {}
        self._parts: dict[int, list[Tensor]] = {}  # of adapters, by number: what the runner reads
        self._always = 0  # the adapter of all rows
        if parts := parts_of(network):
            self._always = 1
            self._install(1, parts)

    def _make_runner(self, matrices: Mapping[tuple[int, int], Packed], cache: int, rounding: int) -> int:
        config, plan = self.config, self._plan
        buffers = (Buffer * len(plan.buffers))(*plan.buffers)
        operations = (Operation * len(plan.operations))(*plan.operations)
        handles = (ctypes.c_void_p * len(plan.matrices))(*(matrices[_bytes(m[1])].handle for m in plan.matrices))
        made = PlanOf(
            threads=self.threads,
            rounding=rounding,
            cache=cache,
            layers=config.layers,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            turned=config.rotary_dim,
            vocabulary=config.vocab_size,
            buffers=len(buffers),
            ops=len(operations),
            matrices=len(handles),
            tables=3,
            taps=max((place.number for place in plan.places.values()), default=0) + 1,
            buffer=buffers,
            op=operations,
            matrix=handles,
        )
        runner = self._library.ctw_runner(ctypes.byref(made), self._error, ERROR)
        if not runner:
            raise ConfigError(f"the native kernels cannot compute this network: {self._said()}")
        return runner

    def _said(self) -> str:
        return self._error.value.decode("utf-8", errors="replace")

    def _do(self, failed: int) -> None:
        if failed:
            raise (MemoryError if failed == NO_MEMORY else RuntimeError)(self._said())

    def tap_names(self) -> list[str]:
        """What can be recorded of a step, in the order of computation."""
        return list(self._plan.places)

    def adapt(self, number: int, network: nn.Module | None) -> bool:
        """Compute rows of this number with the network's adapter from now on; None: no more.

        Returns:
            Whether it can be: what is more than low-rank parts of matrices needs a backend of its own.
        """
        if network is None:
            if number in self._parts:
                with self._lock:
                    self._do(self._library.ctw_adapter(self._runner, number, None, 0, self._error, ERROR))
                    del self._parts[number]  # not before the runner has let go of them
            return True
        parts, base = parts_of(network), {p.data_ptr() for p in self.network.parameters()}
        thin = {p.data_ptr() for part in parts.values() for p in part.parameters(recurse=False)}
        own = any(p.data_ptr() not in base | thin for p in network.parameters())
        if own or not parts.keys() <= self._plan.linears.keys():
            return False
        self._install(number, parts)
        return True

    def _install(self, number: int, parts: Mapping[str, LowRankLinear | LowRankEmbedding]) -> None:
        """Give the runner an adapter's parts, as float32."""
        kept, listed = [], []
        with torch.inference_mode():
            for name, part in parts.items():
                assert isinstance(part, LowRankLinear)
                factor = part.factor()
                a, b = part.lora_A.float().clone(), part.lora_B.float() * part.scale
                if factor is not None:
                    factor = factor.float().clone()
                    b = b * factor[:, None]
                b = b.T.contiguous()
                address = 0 if factor is None else factor.data_ptr()
                listed.append(Part(self._plan.linears[name], a.shape[0], a.data_ptr(), b.data_ptr(), address))
                kept += [a, b] if factor is None else [a, b, factor]
        with self._lock:
            many = (Part * len(listed))(*listed)
            self._do(self._library.ctw_adapter(self._runner, number, many, len(listed), self._error, ERROR))
            self._parts[number] = kept

    def reserve(self, pages: int) -> None:
        """Make room for this many pages, numbered from 0; keeps what the pages hold. Called again to grow."""
        self._do(self._library.ctw_reserve(self._runner, pages, self._error, ERROR))

    def copy(self, source: int, target: int) -> None:
        """Copy one page."""
        self._do(self._library.ctw_copy(self._runner, source, target, self._error, ERROR))

    def open(self, sequence: int, source: Any = None, tap: Tap = OFF) -> None:
        """Begin a sequence; nothing is kept of it but its pages, which are the engine's."""

    def fork(self, sequence: int, new: int) -> None:
        """Begin a sequence with the state of another, which its pages are."""

    def close(self, sequence: int) -> None:
        """Forget a sequence."""

    def work_bytes(self, rows: int, wanted: int) -> int:
        """Bytes that a step may take: its buffers, inputs of products as they are rounded, and logits."""
        widths = [buffer.width for buffer in self._plan.buffers]
        logits = (wanted + SCORED) * self.config.vocab_size
        return 4 * (rows * (sum(widths) + max(widths)) + self.threads * sum(widths) + 2 * logits)

    def packed_bytes(self) -> int:
        """Of quantised matrices, and of adapters; others are used where they lie."""
        floats = {_bytes(numbers) for kind, numbers, _ in self._plan.matrices if kind in FLOATS.values()}
        packed = sum(self._library.ctw_packed_bytes(it.handle) for of, it in self._packed.items() if of not in floats)
        return packed + sum(tensor.nbytes for kept in tuple(self._parts.values()) for tensor in kept)

    def end(self) -> None:
        """Give packed matrices, pages and threads back at once; it is of no more use."""
        with self._lock:
            self._finalizer()
            self._runner, self._logits, self._room, self._tables = 0, None, {}, {}

    def step(self, batch: Sequence[Rows]) -> Logits:
        """Compute all rows. Of a row with a logit that is not finite `log_sum` is not finite; nothing is raised."""
        with self._lock:
            if not self._runner:
                raise RuntimeError("this backend was ended")
            parts = _parts(batch)
            if len(parts) == 1:
                return self._step(batch)
            made, scores = [], {}
            for part in parts:  # of a row alone the numbers are the same
                logits = self._step([rows for _, rows in part])
                made.append([its.clone() for its in (logits.values, logits.best, logits.log_sum)])
                for place, some in logits.scores.items():
                    scores[part[place][0]] = [*scores.get(part[place][0], ()), *some]
            values, best, log_sum = (torch.cat(its) for its in zip(*made, strict=True))
            return Logits(values, best, log_sum, scores)

    def _step(self, batch: Sequence[Rows]) -> Logits:
        ids: list[int] = []
        spans: list[int] = []
        pages: list[int] = []
        rows: list[int] = []
        asked = [None if item.tap is OFF else self._asked(item.tap) for item in batch]
        for item, names in zip(batch, asked, strict=True):
            first, new = len(ids), len(item.ids)
            read = item.wanted + len(item.scored)
            rows += range(first if names is not None and names.whole else first + new - read, first + new)
            spans += (new, item.start, len(pages), len(item.pages))
            ids += item.ids
            pages += item.pages
            if item.start + new > self._positions:
                self._know_positions(item.start + new)
        shown = [None if names is None else _room_for(item, names) for item, names in zip(batch, asked, strict=True)]
        listed = [found for number, each in enumerate(shown) if each is not None for found in each.listed(number)]
        values, best, log_sum = self._results(len(rows))
        said = self._batch
        said.rows, said.sequences, said.wanted, said.taps = len(ids), len(batch), len(rows), len(listed)
        said.ids, said.span = self._ints("ids", ids), self._ints("span", spans)
        said.pages, said.row = self._ints("pages", pages), self._ints("row", rows)
        taps = (Shown * len(listed))(*listed)
        said.tap = ctypes.addressof(taps)
        adapters = [self._always or item.adapter for item in batch]
        if any(adapters):
            numbers = self._ints("adapters", adapters)
            self._do(self._library.ctw_step_adapted(self._runner, self._batch_pointer, numbers, self._error, ERROR))
        else:
            self._do(self._library.ctw_step(self._runner, self._batch_pointer, self._error, ERROR))
        if any(shown) or any(item.scored for item in batch):
            return _sort(batch, shown, values, best, log_sum)
        return Logits(values, best, log_sum)

    def _ints(self, name: str, numbers: list[int]) -> int:
        """The address of some numbers, in room that is kept for them."""
        room = self._room.get(name)
        if room is None or len(room) < len(numbers):
            room = self._room[name] = (ctypes.c_int32 * (2 * len(numbers) + 16))()
        room[: len(numbers)] = numbers
        return ctypes.addressof(room)

    def _results(self, wanted: int) -> tuple[Tensor, Tensor, Tensor]:
        """Room for (W, V) logits, (W,) best and (W,) log_sum."""
        if self._logits is None or len(self._logits[1]) < wanted:
            V = self.config.vocab_size
            made = torch.empty(wanted, V), torch.empty(wanted, dtype=torch.int64), torch.empty(wanted)
            self._logits = made
            self._batch.logits, self._batch.best, self._batch.log_sum = (tensor.data_ptr() for tensor in made)
        values, best, log_sum = self._logits
        return values[:wanted], best[:wanted], log_sum[:wanted]

    def _know_positions(self, end: int) -> None:
        """Compute the tables of positions before `end`, and some more."""
        length = min(self.config.context, max(2 * end, FIRST_TABLE))
        if end > length:
            raise InputError(f"{end} tokens were given, but this model sees {self.config.context} at once")
        self._tables = angles(self.network, length)
        for number, table in self._tables.items():
            rows, width = table.shape[-2:]
            said = (number, table.data_ptr(), rows, width, self._error, ERROR)
            self._do(self._library.ctw_table(self._runner, *said))
        self._positions = length

    def _asked(self, tap: Tap) -> Asked:
        """The places that a tap records."""
        if not isinstance(tap, ActiveTap) or tap.replacements:
            raise ConfigError("native steps can be recorded, but not edited; let torch compute this sequence")
        if tap.keep not in self._names:
            self._names[tap.keep] = Asked({n: place for n, place in self._plan.places.items() if n in tap.keep})
        return self._names[tap.keep]


class Asked:
    """Places that are recorded together.

    Args:
        places: by name, in the network's order.
    """

    def __init__(self, places: dict[str, Place]) -> None:
        self.places = places
        self.whole = any(name in WANTED for name in places)  # whether logits of all rows are computed
        scored = dict.fromkeys(place.number for place in places.values() if place.scores)
        self.scores = {number: slot for slot, number in enumerate(scored)}  # a pattern is made of the scores
        self.patterns = any(name.endswith(".pattern") for name in places)
        self.heads = next((place.heads for place in places.values() if place.scores), 0)
        self.rows = {name: p for name, p in places.items() if not p.scores and p.number >= 0}
        self.width = sum(place.width for place in self.rows.values())


class Room:
    """Where a step puts what is recorded of one sequence: few tensors, as each costs as much time as a small product.

    Attributes:
        rows: each place's (T, width) behind the one before.
        scores: (places, H, T, S).
    """

    def __init__(self, asked: Asked, new: int, held: int) -> None:
        self.asked, self.new = asked, new
        self.rows = torch.empty(asked.width * new)
        self.scores = torch.full((len(asked.scores), asked.heads, new, held), -math.inf)

    def listed(self, sequence: int) -> list[Shown]:
        """Each place with its address."""
        made, at = [], self.rows.data_ptr()
        for place in self.asked.rows.values():
            made.append(Shown(place.number, sequence, at))
            at += 4 * self.new * place.width
        at, size = self.scores.data_ptr(), 4 * self.scores[0].numel() if self.asked.scores else 0
        return [*made, *(Shown(number, sequence, at + slot * size) for number, slot in self.asked.scores.items())]

    def show(self, tap: Tap, logits: Tensor) -> None:
        """Hand everything to the tap, in the shapes that the decoder has there."""
        patterns = _softmax(self.scores) if self.asked.patterns else self.scores
        new, at = self.new, 0
        for name, place in self.asked.places.items():
            if place.scores:
                slot = self.asked.scores[place.number]
                value = (patterns if name.endswith(".pattern") else self.scores)[slot : slot + 1]  # (1, H, T, S)
            elif place.number < 0:
                value = logits.clone().unsqueeze(0)
            else:
                value = self.rows[at : at + new * place.width]
                at += new * place.width
                heads = place.heads
                value = value.view(1, new, heads, -1).transpose(1, 2) if heads else value.view(1, new, -1)
            tap.show(name, value)


def _softmax(scores: Tensor) -> Tensor:
    """Of each row. By NumPy: torch's threads, once awake, keep a core busy for milliseconds: the next step is slow."""
    numbers = scores.numpy()
    weights = np.exp(numbers - numbers.max(-1, keepdims=True))
    return torch.from_numpy(weights / weights.sum(-1, keepdims=True))


def _room_for(item: Rows, asked: Asked) -> Room:
    return Room(asked, len(item.ids), item.start + len(item.ids))


def _sort(batch: Sequence[Rows], shown: Sequence[Room | None], *results: Tensor) -> Logits:
    """Show what was recorded, and score what is asked; of the logits, only those that were wanted are given on."""
    row, keep, scores = 0, [], {}
    for number, (item, room) in enumerate(zip(batch, shown, strict=True)):
        count = len(item.ids) if room is not None and room.asked.whole else item.wanted + len(item.scored)
        if room is not None:
            room.show(item.tap, results[0][row : row + count])
        row += count
        if item.scored:
            its = slice(row - item.wanted - len(item.scored), row - item.wanted)
            scores[number] = scored(results[0][its].numpy(), results[2][its].tolist(), item.scored, item.top)
        keep += range(row - item.wanted, row)
    values, best, log_sum = results if len(keep) == row else (result[keep] for result in results)
    return Logits(values, best, log_sum, scores)


def _parts(batch: Sequence[Rows]) -> list[list[tuple[int, Rows]]]:
    """A step in parts, so that each has logits of few rows that are only scored; each rows with their number.

    What somebody looks at stays whole.
    """
    parts: list[list[tuple[int, Rows]]] = [[]]
    room = SCORED
    for number, rows in enumerate(batch):
        while rows.scored and len(rows.scored) > room and rows.tap is OFF:
            if room > 0:
                new = len(rows.ids) - rows.wanted - len(rows.scored) + room
                some, ids, left = rows.scored[:room], rows.ids[:new], rows.scored[room:]
                parts[-1].append((number, replace(rows, ids=ids, wanted=0, guesses=0, scored=some)))
                rows = replace(rows, ids=rows.ids[new:], start=rows.start + new, scored=left)
            parts.append([])
            room = SCORED
        parts[-1].append((number, rows))
        room -= len(rows.scored)
    return parts


def _bytes(numbers: Tensor) -> tuple[int, int]:
    """Which memory a matrix is."""
    return numbers.data_ptr(), numbers.nbytes


class Packed:
    """A matrix as the kernels keep it, given back when nobody holds it any more.

    Args:
        native: the library.
        handle: what it calls the matrix.
        numbers: what it was packed from, or lies in.
    """

    def __init__(self, native: ctypes.CDLL, handle: int, numbers: Tensor) -> None:
        self.handle, self.numbers = handle, numbers
        weakref.finalize(self, native.ctw_release, handle).atexit = False


def _pack(
    native: ctypes.CDLL, plan: Plan, threads: int, known: Mapping[tuple[int, int], Packed]
) -> dict[tuple[int, int], Packed]:
    """The matrices of a plan, packed, by the memory that they are made of; those that are known are taken as they are.

    Raises:
        ConfigError: a kind or a shape that no kernel takes.
    """
    packed: dict[tuple[int, int], Packed] = {}
    for kind, numbers, width in plan.matrices:
        place = _bytes(numbers)
        if place in packed:
            continue
        if place in known:
            packed[place] = known[place]
            continue
        handle = native.ctw_pack(kind, numbers.data_ptr(), numbers.shape[0], width, threads)
        if not handle:
            raise ConfigError(
                f"the native kernels cannot multiply a matrix of {numbers.shape[0]} rows and {width} columns that is "
                f"stored as {KINDS[kind].name}"
            )
        packed[place] = Packed(native, handle, numbers)
    return packed


def _end(native: ctypes.CDLL, runner: int, packed: dict[tuple[int, int], Packed]) -> None:
    """End a runner, then let go of what it computes with."""
    native.ctw_end(runner)
    packed.clear()
