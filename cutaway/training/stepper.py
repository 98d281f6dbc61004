"""One training step: a batch in, new weights out; what is learned is the objective's business.

The network holds float32 weights: they are what is saved, evaluated and sampled. For bf16 a copy of it, the worker,
does the forward and backward pass in bfloat16; the optimiser reads its gradients, moves the float32 weights and copies
them to the worker. So no update is lost to rounding, and no operation needs autocasting.
"""

import copy
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cutaway.models import OFF, Tap
from cutaway.training.config import TrainConfig
from cutaway.training.objectives import Batch
from cutaway.training.optim import Optimizer
from cutaway.training.ranks import Ranks

TABLE = "embed_tokens.weight"
WORTH = 0.7  # of a table's rows, below which it pays to keep those apart that are read


@dataclass(frozen=True)
class Taken:
    """What a step was like.

    Attributes:
        loss: mean over what counts in the batch, before the step.
        norm: of the gradient, before clipping.
        stop: how many processes want to stop.
    """

    loss: float
    norm: float
    stop: int = 0

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are numbers; if not, the weights have not been changed."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


class ReadRows(nn.Module):
    """A table of embeddings reduced to the rows that are read: the others get no gradient, and cost no step.

    Args:
        table: the whole.
        rows: of it, (U,) int64, in order.
    """

    def __init__(self, table: nn.Embedding, rows: Int[Tensor, " U"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(table.weight.detach()[rows].clone())
        place = torch.full((table.num_embeddings,), len(rows))  # of what is not read: outside, an error
        place[rows] = torch.arange(len(rows))
        self.register_buffer("place", place, persistent=False)

    def forward(self, ids: Int[Tensor, "*S"]) -> Float[Tensor, "*S C"]:
        """(…) -> (…, C)"""
        return F.embedding(self.get_buffer("place")[ids], self.weight)


def _rows_to_learn(network: nn.Module, read: Int[np.ndarray, " U"]) -> Tensor | None:
    """The rows of the table that learn, where that is worth it; None where all do, or none."""
    table = getattr(network, "embed_tokens", None)
    if not isinstance(table, nn.Embedding) or not table.weight.requires_grad:
        return None
    if any(
        weight is table.weight for name, weight in network.named_parameters(remove_duplicate=False) if name != TABLE
    ):
        return None  # an output matrix that is the table has a gradient in every row
    rows = torch.from_numpy(np.unique(read))
    return rows if len(rows) < WORTH * table.num_embeddings else None


class Stepper:
    """Takes steps with a network.

    Args:
        config: with dtype and compile decided.
        network: what its objective trains, in float32; its weights are changed.
        ranks: the processes that share the batch.
        read: ids that the network will ever read, (U,) int64; None: it may be any.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        ranks: Ranks | None = None,
        read: Int[np.ndarray, " U"] | None = None,
    ) -> None:
        self.config, self.network, self.ranks = config, network, ranks or Ranks()
        rows = None if read is None else _rows_to_learn(network, read)
        self.worker = copy.deepcopy(network).to(torch.bfloat16) if config.dtype == "bf16" else network
        if rows is not None:
            if self.worker is network:  # the same tensors in modules of its own
                shared = {id(x): x for x in (*network.parameters(), *network.buffers())}
                self.worker = copy.deepcopy(network, shared)
            self.worker.embed_tokens = ReadRows(self.worker.embed_tokens, rows)  # pyright: ignore[reportArgumentType]
        named = {} if rows is None else {TABLE: rows}
        self.optimizer = Optimizer(config.rules, network, self.worker, named)
        self.forward: Any = torch.compile(self.worker) if config.compile == "on" else self.worker

    def step(self, batch: Batch, *, lr_scale: float, seed: int, stop: bool = False, tap: Tap = OFF) -> Taken:
        """Take one step.

        Args:
            batch: this process's rows.
            lr_scale: share of the peak learning rate.
            seed: of the dropout of this step.
            stop: whether this process wants to stop, for the others to hear.
            tap: reads or replaces in the forward passes, which then are not compiled.
        """
        torch.default_generator.manual_seed(seed)
        self.worker.train()
        loss, counted = self._backward(batch, tap)
        optimizer = self.optimizer
        loss, counted, stop_count = self.ranks.sum(optimizer.grads, [loss, counted, stop])
        if counted and counted != batch.nominal:
            optimizer.scale_grads(batch.nominal / counted)
            loss *= batch.nominal / counted
        taken = Taken(loss, optimizer.grad_norm(), round(stop_count))
        if taken.finite:
            if 0 < self.config.clip < taken.norm:
                optimizer.scale_grads(self.config.clip / taken.norm)
            optimizer.step(lr_scale)
        return taken

    def _backward(self, batch: Batch, tap: Tap) -> tuple[float, int]:
        """Add the gradient of (sum of losses / nominal) to the optimiser's; returns that loss and how many counted."""
        forward = self.forward if tap is OFF else partial(self.worker, tap=tap)
        total, counted = 0.0, 0
        for piece in batch.pieces(self.config.accumulate):
            loss, count = self.config.objective.loss(forward, piece, self.config)
            loss = loss / batch.nominal
            loss.backward()
            total += loss.item()
            counted += count
        return total, counted
