"""One training step: a batch in, new weights out.

The network holds float32 weights: they are what is saved, evaluated and sampled. For bf16 a copy of it, the worker,
does the forward and backward pass in bfloat16; the optimiser reads its gradients, moves the float32 weights and copies
them to the worker. So no update is lost to rounding, and no operation needs autocasting.

Shapes: B batch, T tokens.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cutaway.models import Network
from cutaway.training.config import TrainConfig
from cutaway.training.losses import IGNORE, cross_entropy
from cutaway.training.optim import Optimizer
from cutaway.training.ranks import Ranks


@dataclass(frozen=True)
class Taken:
    """What a step was like.

    Attributes:
        loss: mean over the positions of the batch that count, before the step.
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


class Stepper:
    """Takes steps with a network.

    Args:
        config: with dtype and compile decided.
        network: in float32; its weights are changed.
        ranks: the processes that share the batch.
    """

    def __init__(self, config: TrainConfig, network: Network, ranks: Ranks | None = None) -> None:
        self.config, self.network, self.ranks = config, network, ranks or Ranks()
        self.worker = copy.deepcopy(network).to(torch.bfloat16) if config.dtype == "bf16" else network
        self.optimizer = Optimizer(config.rules, network, self.worker)
        self.forward: Any = torch.compile(self.worker) if config.compile == "on" else self.worker

    def step(self, ids: Tensor, targets: Tensor, *, lr_scale: float, seed: int, stop: bool = False) -> Taken:
        """Take one step.

        Args:
            ids: (B, T), this process's rows of the batch.
            targets: (B, T), the next tokens; IGNORE does not count.
            lr_scale: share of the peak learning rate.
            seed: of the dropout of this step.
            stop: whether this process wants to stop, for the others to hear.
        """
        torch.default_generator.manual_seed(seed)
        self.worker.train()
        nominal = ids.numel() * self.ranks.world
        loss, counted = self._backward(ids, targets, nominal)
        optimizer = self.optimizer
        loss, counted, stop_count = self.ranks.sum(optimizer.grads, [loss, counted, stop])
        if counted and counted != nominal:
            optimizer.scale_grads(nominal / counted)
            loss *= nominal / counted
        taken = Taken(loss, optimizer.grad_norm(), round(stop_count))
        if taken.finite:
            if 0 < self.config.clip < taken.norm:
                optimizer.scale_grads(self.config.clip / taken.norm)
            optimizer.step(lr_scale)
        return taken

    def _backward(self, ids: Tensor, targets: Tensor, nominal: int) -> tuple[float, int]:
        """Add the gradient of (sum of losses / nominal) to the optimiser's; returns that loss and how many counted."""
        config, total = self.config, 0.0
        pieces = min(config.accumulate, len(ids))
        for i, t in zip(ids.chunk(pieces), targets.chunk(pieces), strict=True):
            loss = cross_entropy(
                self.forward(i), t, label_smoothing=config.label_smoothing, z_loss=config.z_loss, reduction="sum"
            )
            loss = loss / nominal
            loss.backward()
            total += loss.item()
        return total, int((targets != IGNORE).sum())
