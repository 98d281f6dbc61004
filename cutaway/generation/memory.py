"""How much memory an engine takes: weights, keys and values, and the space that a step computes in."""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.errors import InputError
from cutaway.models.memory import free_memory

UNKNOWN = 4 << 30  # bytes, where the system does not say how many are free


@dataclass(frozen=True)
class Memory:
    """Bytes that an engine holds, or may hold.

    Attributes:
        weights: of the network and of adapters, and what native kernels have packed of them.
        cache: of the keys and values that are there now, kept ones too.
        cache_most: of those that there may be.
        work: what a step may take beside them, and gives back or uses again: activations and logits.
    """

    weights: int
    cache: int
    cache_most: int
    work: int

    @property
    def most(self) -> int:
        """All that there may be."""
        return self.weights + self.cache_most + self.work


def available_bytes() -> int:
    """Memory that could be had now."""
    free = free_memory()
    return UNKNOWN if free is None else free


def pages_in(memory: int | None, page_bytes: int, size: int) -> int:
    """How many pages fit.

    Args:
        memory: bytes that they may take; None: half of what is free.
        page_bytes: of one.
        size: tokens in one.

    Raises:
        InputError: not one; says what it takes.
    """
    memory = available_bytes() // 2 if memory is None else memory
    if memory < page_bytes:
        raise InputError(
            f"the keys and values of {size} tokens take {megabytes(page_bytes)}, but only {megabytes(memory)} are "
            "there for them; give the engine more memory, or keep them as float16 or int8"
        )
    return memory // page_bytes


def megabytes(size: int) -> str:
    """Bytes, to be read."""
    return f"{size / 2**20:,.1f} MB"
