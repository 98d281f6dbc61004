"""How much memory a model takes, asked before any of it is taken.

The estimate is of the weights; what computing takes on top grows with the text. Quantised, matrices whose rows are no
whole number of blocks stay numbers, as do norms, biases and small tables.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import torch

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.models.assemble import assemble
from cutaway.models.config import NetworkConfig
from cutaway.models.formats.ggml import BY_NAME
from cutaway.models.quantised import can_be_blocks

PLAIN = {"int8": "Q8_0", "int4": "Q4_1"}  # what the plain names stand for
SPARE = 0.95  # of the free memory may be taken
SMALL = 1 << 30  # bytes that are never asked about: looking costs more than it helps


def memory_needed(config: NetworkConfig, kind: str = "F32") -> int:
    """Bytes of a network's weights.

    Args:
        config: of the network.
        kind: how its matrices are stored: F32, BF16, F16, "int8", "int4", or a GGUF kind by name.

    Raises:
        ConfigError: an unknown kind.
    """
    kind = PLAIN.get(kind, kind)
    if kind not in BY_NAME:
        raise ConfigError(unknown("kind", kind, [*PLAIN, *BY_NAME]))
    how, network, total = BY_NAME[kind], assemble(config, None), 0
    tied = getattr(config, "tied", False)
    for name, tensor in network.state_dict().items():
        if tied and name == "lm_head.weight":
            continue  # it is the embedding
        if how.decode is None:
            total += tensor.numel() * how.bytes
        elif tensor.ndim >= 2 and tensor.shape[-1] % how.numbers == 0 and can_be_blocks(network, name):
            total += tensor.numel() // how.numbers * how.bytes
        else:
            total += tensor.numel() * 4
    return total


def free_memory() -> int | None:
    """Bytes that this process may still take; None where that cannot be told."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        limit = Path("/sys/fs/cgroup/memory.max").read_text("utf-8").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text("utf-8")) if limit.isdigit() else 0
        return min(free, int(limit) - used) if limit.isdigit() else free
    except (OSError, ValueError, StopIteration, IndexError):
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        except (OSError, ValueError):
            return None


def check_memory(config: NetworkConfig, dtype: torch.dtype, where: str, *, blocks: int = 0) -> None:
    """Refuse a model whose weights do not fit into the memory that is free, before any of it is taken.

    Args:
        config: of the network.
        dtype: of its numbers.
        where: what to call it in a message.
        blocks: bytes of matrices that stay in their file, which may come and go; then nothing is refused.

    Raises:
        InputError: the estimate, what is free, and which quantisation would fit.
    """
    if blocks:
        return
    kinds = {torch.bfloat16: "BF16", torch.float16: "F16"}
    need = memory_needed(config, kinds.get(dtype, "F32")) * (2 if dtype == torch.float64 else 1)
    if need < SMALL:
        return
    free = free_memory()
    if free is None or need <= SPARE * free:
        return
    fits = [name for name in PLAIN if memory_needed(config, name) <= SPARE * free]
    advice = (
        f"as {fits[0]} it takes {_gb(memory_needed(config, fits[0]))}: open a quantised file of it, or make one with "
        f"cutaway quantize --kind {fits[0]} where there is more memory"
        if fits
        else f"even as int4 it takes {_gb(memory_needed(config, 'int4'))}"
    )
    name = str(dtype).removeprefix("torch.")
    raise InputError(f"the weights of {where} take {_gb(need)} as {name}, but {_gb(free)} of memory are free; {advice}")


def _gb(size: int) -> str:
    return f"{math.ceil(size / 1e7) / 100:g} GB"
