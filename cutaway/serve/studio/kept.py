"""Results that are open in pages. They may hold whole recordings, so they are kept within so much memory."""

from __future__ import annotations

import dataclasses
import secrets
from collections import Counter, OrderedDict
from functools import partial
from threading import RLock
from types import FunctionType, MappingProxyType, MethodType
from typing import Any

from torch import Tensor, nn

from cutaway.interp.recall import Formed, size_of
from cutaway.interp.receipt import Receipt
from cutaway.interp.results import Result
from cutaway.models import Model
from cutaway.serve.errors import ApiError

RESULTS = 96  # that stay open at a time; of more the one that was asked for longest ago is let go
ROOM = 2**30  # bytes that all of them may hold together, with the recordings that they were made of


class Kept:
    """Results by names that nobody guesses. Safe to use from several threads.

    Args:
        most: results; and
        room: bytes that they may hold, but for the newest, which always stays.

    Attributes:
        bytes: that they hold. What several of them share counts once.
    """

    def __init__(self, most: int = RESULTS, room: int = ROOM) -> None:
        self.most, self.room, self.bytes = most, room, 0
        self._results: OrderedDict[str, Result] = OrderedDict()
        self._held: dict[str, dict[int, int]] = {}
        self._shared: Counter[int] = Counter()
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._results)

    def __contains__(self, name: object) -> bool:
        return name in self._results

    def add(self, result: Result) -> str:
        """Keep a result; its name."""
        name = secrets.token_urlsafe(9)
        self.put(name, result)
        return name

    def put(self, name: str, result: Result) -> None:
        """Keep a result under a name, in the place of what was called so."""
        held = held_by(result)
        with self._lock:
            self._drop(name)
            self._results[name], self._held[name] = result, held
            for key, size in held.items():
                self.bytes += 0 if self._shared[key] else size
                self._shared[key] += 1
            while len(self._results) > 1 and (len(self._results) > self.most or self.bytes > self.room):
                self._drop(next(iter(self._results)))

    def get(self, name: str) -> Result:
        """A result that is open.

        Raises:
            ApiError: 404; it was let go.
        """
        with self._lock:
            if name not in self._results:
                message = "this result is no longer open here: the studio keeps the last ones; compute it again"
                raise ApiError(404, message, code="result_gone")
            self._results.move_to_end(name)
            return self._results[name]

    def forget(self, model: str) -> None:
        """Let go of what was made of a model, so that its weights are free."""
        with self._lock:
            for name in [name for name, one in self._results.items() if one.receipt.source == model]:
                self._drop(name)

    def _drop(self, name: str) -> None:
        if self._results.pop(name, None) is None:
            return
        for key, size in self._held.pop(name).items():
            self._shared[key] -= 1
            if not self._shared[key]:
                del self._shared[key]
                self.bytes -= size


def placeless(value: Any, place: str) -> Any:
    """A result whose receipts do not tell where on this machine something lies.

    Args:
        value: a result, or what one has in its fields.
        place: a path, which is left out.
    """
    if isinstance(value, Receipt):
        shown = {name: getattr(value, name).replace(place, "…") for name in ("code", "source")}
        return dataclasses.replace(value, **shown)
    if isinstance(value, Result):
        own = {f.name: placeless(getattr(value, f.name), place) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **own)
    if isinstance(value, dict):
        return {name: placeless(one, place) for name, one in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], Result):
        return [placeless(one, place) for one in value]
    return value


def held_by(thing: Any) -> dict[int, int]:
    """The memory that something keeps: a key for each piece, and its bytes. Models are not counted: they are elsewhere.

    It follows fields, lists, and what functions have caught, for a result's claims and a ledger's terms hold the
    recording that they read.
    """
    held: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [thing]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            memory = one.untyped_storage()
            held[memory.data_ptr()] = memory.nbytes()
            continue
        if isinstance(one, str | int | float | bytes | type | Model | nn.Module) or one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Formed):  # which fills its room as it is read
            held[id(one)] = one.room + sum(map(size_of, one.kept.values()))
        elif isinstance(one, dict | MappingProxyType):
            waiting += one.values()
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        elif isinstance(one, partial):
            waiting += [one.func, one.args, one.keywords]
        elif isinstance(one, MethodType):
            waiting.append(one.__self__)
        elif isinstance(one, FunctionType):
            waiting += [cell.cell_contents for cell in one.__closure__ or () if _filled(cell)]
            waiting += one.__defaults__ or ()
        elif dataclasses.is_dataclass(one) or type(one).__module__.startswith("cutaway."):
            waiting += vars(one).values() if hasattr(one, "__dict__") else ()
    return held


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
