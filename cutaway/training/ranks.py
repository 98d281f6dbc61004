"""Several processes, one training run: started by torchrun, each takes its rows of every batch and sums gradients.

The processes hold equal weights at all times, since each applies the same update to the same sum.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Which process this is, and of how many.

    Attributes:
        rank: 0 … world - 1; 0 alone writes files.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor], numbers: Sequence[float]) -> list[float]:
        """Replace each tensor by its sum over the processes, in place; the sums of the numbers are returned.

        One exchange for all, in float32; the order of summation depends on the number of processes alone.
        """
        if self.world == 1:
            return list(numbers)
        extra = torch.tensor(numbers, dtype=torch.float32)
        flat = torch.cat([*(t.flatten().float() for t in tensors), extra])
        dist.all_reduce(flat)
        *parts, extra = flat.split([*(t.numel() for t in tensors), len(numbers)])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
        return extra.tolist()

    def sum_exact(self, numbers: Sequence[float]) -> list[float]:
        """The sums of the numbers over the processes, in float64."""
        if self.world == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started (by its environment variables); alone without it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Ranks()
        return
    dist.init_process_group("gloo")
    try:
        yield Ranks(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()
