"""Optimisers: from gradients to the next weights.

Parameters of one shape and one treatment lie stacked in one tensor, so that a step is a few operations on stacks and
not hundreds on small tensors. The float32 weights are what is updated; where training multiplies in bfloat16, a worker
copy of the network holds the gradients and is refreshed after each step.

Shapes: N parameters in a stack, R rows, C columns, U rows of a table that are read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cutaway.errors import ConfigError, DamagedFile, unknown

PIECE = 1 << 16  # numbers that are moved at a time: with their gradients and state they stay in the processor's cache


class Stack:
    """Parameters of one shape: weights (N, …) float32, and the worker's weights and gradients.

    The parameters of both networks become views into these tensors. Of a table of which only some rows are ever read,
    those rows alone lie here, and are copied back after each step: no other row has a gradient.
    """

    def __init__(
        self,
        names: list[str],
        weights: list[nn.Parameter],
        workers: list[nn.Parameter],
        rows: Int[Tensor, " U"] | None = None,
    ) -> None:
        self.names, self.rows, self.table = names, rows, weights[0]
        if rows is not None:
            self.weights = weights[0].detach()[rows][None]
            self.workers = self.weights if workers[0].dtype == weights[0].dtype else workers[0].detach()[None].clone()
        else:
            self.weights = torch.stack([w.detach() for w in weights])
            shared = all(a is b for a, b in zip(weights, workers, strict=True))
            self.workers = self.weights if shared else torch.stack([w.detach() for w in workers])
        self.grads = torch.zeros_like(self.workers)
        for i, (weight, worker) in enumerate(zip(weights, workers, strict=True)):
            if rows is None:
                weight.data = self.weights[i]
            worker.data = self.workers[i]
            worker.grad = self.grads[i]

    def refresh(self) -> None:
        """The network's rows and the worker as the weights are now."""
        if self.rows is not None:
            self.table.data.index_copy_(0, self.rows, self.weights[0])
        if self.workers is not self.weights:
            self.workers.copy_(self.weights)

    def reload(self) -> None:
        """The weights and the worker as the network is now."""
        if self.rows is not None:
            self.weights[0].copy_(self.table.detach()[self.rows])
        if self.workers is not self.weights:
            self.workers.copy_(self.weights)


Values = tuple[Tensor, Tensor, dict[str, Tensor]]  # weights, gradients, state


class Rule:
    """How one stack moves: its state tensors, and one step of them. The base class is plain gradient descent."""

    each: ClassVar[bool] = True  # numbers move by themselves, so they may be taken in pieces that stay in the cache

    def __init__(self, stack: Stack, *, lr: float, weight_decay: float, state: Sequence[str] = ()) -> None:
        self.stack, self.lr, self.weight_decay = stack, lr, weight_decay
        self.state = {name: torch.zeros_like(stack.weights) for name in state}
        self._pieces: list[Values] = []

    def pieces(self) -> list[Values]:
        """The stack as pieces that are moved one after the other."""
        if not self._pieces:
            whole = [self.stack.weights, self.stack.grads, *self.state.values()]
            parts = zip(*(x.view(-1).split(PIECE) for x in whole), strict=True) if self.each else [whole]
            self._pieces = [(w, g, dict(zip(self.state, rest, strict=True))) for w, g, *rest in parts]
        return self._pieces

    def step(self, lr_scale: float, count: int) -> None:
        """Move the weights; `count` is 1 at the first step."""
        lr = self.lr * lr_scale
        for weights, grads, state in self.pieces():
            grad = grads.to(weights.dtype)
            if self.weight_decay:
                grad = self.decay(weights, grad, lr)
            weights.add_(self.direction(grad, state, count), alpha=-lr)
        self.stack.refresh()

    def decay(self, weights: Tensor, grad: Tensor, lr: float) -> Tensor:
        """Weight decay as a part of the gradient (L2), as gradient descent and Adam have it."""
        return grad.add(weights, alpha=self.weight_decay)

    def direction(self, grad: Tensor, state: dict[str, Tensor], count: int) -> Tensor:
        """What to go against, before the learning rate."""
        return grad


class Momentum(Rule):
    """Gradient descent with momentum (Polyak 1964), as torch.optim.SGD has it."""

    def __init__(self, stack: Stack, *, lr: float, weight_decay: float, momentum: float) -> None:
        super().__init__(stack, lr=lr, weight_decay=weight_decay, state=["momentum"])
        self.momentum = momentum

    def direction(self, grad: Tensor, state: dict[str, Tensor], count: int) -> Tensor:
        return state["momentum"].mul_(self.momentum).add_(grad)


class Adam(Rule):
    """Adam (Kingma & Ba 2015)."""

    def __init__(
        self, stack: Stack, *, lr: float, weight_decay: float, betas: tuple[float, ...], eps: float = 1e-8
    ) -> None:
        super().__init__(stack, lr=lr, weight_decay=weight_decay, state=["mean", "square"])
        self.betas, self.eps = betas, eps

    def direction(self, grad: Tensor, state: dict[str, Tensor], count: int) -> Tensor:
        mean = state["mean"].lerp_(grad, 1 - self.betas[0])
        square = state["square"].mul_(self.betas[1]).addcmul_(grad, grad, value=1 - self.betas[1])
        # both averages start at zero, so the first ones are too small by these factors
        step = mean / (1 - self.betas[0] ** count)
        return step.div_((square / (1 - self.betas[1] ** count)).sqrt_().add_(self.eps))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    def decay(self, weights: Tensor, grad: Tensor, lr: float) -> Tensor:
        weights.mul_(1 - lr * self.weight_decay)
        return grad


class Muon(Rule):
    """Momentum whose matrices are orthogonalised before they are applied (Jordan et al. 2024, kellerjordan.github.io).

    The step of an R x C matrix is scaled by sqrt(max(1, R / C)), which keeps the change of the outputs alike for all
    shapes, so that one learning rate serves them all.
    """

    each = False

    def __init__(self, stack: Stack, *, lr: float, weight_decay: float, momentum: float, iterations: int = 5) -> None:
        super().__init__(stack, lr=lr, weight_decay=weight_decay, state=["momentum"])
        self.momentum, self.iterations = momentum, iterations

    def decay(self, weights: Tensor, grad: Tensor, lr: float) -> Tensor:
        weights.mul_(1 - lr * self.weight_decay)
        return grad

    def direction(self, grad: Tensor, state: dict[str, Tensor], count: int) -> Tensor:
        average = state["momentum"].lerp_(grad, 1 - self.momentum)
        ahead = grad.lerp_(average, self.momentum)  # Nesterov
        rows, columns = grad.shape[-2:]
        return orthogonalise(ahead, self.iterations).to(grad.dtype).mul_(max(1.0, rows / columns) ** 0.5)


def orthogonalise(matrices: Float[Tensor, "*N R C"], iterations: int = 5) -> Float[Tensor, "*N R C"]:
    """The nearest matrices with all singular values near 1, (N, R, C) -> (N, R, C) bfloat16.

    A quintic Newton–Schulz iteration with the coefficients of Jordan et al. 2024, which bring singular values into
    about 0.7 … 1.2 fast rather than to 1 exactly.
    """
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) * 1.01 + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if tall else x


@dataclass(frozen=True)
class OptimizerConfig:
    """What moves the weights."""

    name: str = "muon"  # sgd | momentum | adam | adamw | muon (hidden matrices; adamw for the rest)
    lr: float = 0.0  # 0: the rule's usual rate (DEFAULT_LR)
    lr_rest: float = 0.01  # muon only: for embeddings, norms, biases and the output matrix
    momentum: float = 0.95  # momentum and muon
    betas: tuple[float, ...] = (0.9, 0.98)  # adam, adamw
    weight_decay: float = 0.0  # on matrices; never on norms and biases
    average: float = 0.0  # beside the weights, a running mean of them that keeps this share at each step; 0: none

    def __post_init__(self) -> None:
        if self.name not in DEFAULT_LR:
            raise ConfigError(unknown("optimiser", self.name, DEFAULT_LR))
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must be two numbers in [0, 1), but {self.betas} was given")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must be in [0, 1), but {self.momentum} was given")
        if self.lr < 0 or self.lr_rest < 0 or self.weight_decay < 0:
            raise ConfigError("lr, lr_rest and weight_decay must not be negative")
        if not 0 <= self.average < 1:
            raise ConfigError(f"average must be in [0, 1), but {self.average} was given")
        object.__setattr__(self, "lr", self.lr or DEFAULT_LR[self.name])


DEFAULT_LR = {"sgd": 0.1, "momentum": 0.05, "adam": 1e-3, "adamw": 1e-3, "muon": 0.03}


NO_MATRICES = ("embed", "lm_head", "out", "relative_bias", "conv")  # tables and outputs, which Muon leaves to AdamW
RULES: dict[str, Callable[[OptimizerConfig, Stack, float], Rule]] = {
    "sgd": lambda c, stack, decay: Rule(stack, lr=c.lr, weight_decay=decay),
    "momentum": lambda c, stack, decay: Momentum(stack, lr=c.lr, weight_decay=decay, momentum=c.momentum),
    "adam": lambda c, stack, decay: Adam(stack, lr=c.lr, weight_decay=decay, betas=c.betas),
    "adamw": lambda c, stack, decay: AdamW(stack, lr=c.lr, weight_decay=decay, betas=c.betas),
    "muon": lambda c, stack, decay: Muon(stack, lr=c.lr, weight_decay=decay, momentum=c.momentum),
    "rest": lambda c, stack, decay: AdamW(stack, lr=c.lr_rest, weight_decay=decay, betas=c.betas),
}


class Optimizer:
    """All stacks of a network with their rules.

    Args:
        config: which rules.
        network: float32 weights; they become views into stacks.
        worker: the network whose gradients are read, `network` itself or a copy of it in another dtype.
        rows: name of a table -> its rows that are read, (U,) int64; the worker's table has these alone.
    """

    def __init__(
        self,
        config: OptimizerConfig,
        network: nn.Module,
        worker: nn.Module | None = None,
        rows: Mapping[str, Tensor] | None = None,
    ) -> None:
        rows = rows or {}
        workers = dict((worker or network).named_parameters())
        groups: dict[tuple[tuple[str, bool], tuple[Any, ...]], list[str]] = {}
        weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        for name, parameter in weights.items():
            alone = (name,) if name in rows else ()
            groups.setdefault((_treatment(config, name, parameter), (*parameter.shape, *alone)), []).append(name)
        self.count, self.average = 0, config.average
        self.rules: list[Rule] = []
        for ((rule, decays), _), names in groups.items():
            stack = Stack(names, [weights[n] for n in names], [workers[n] for n in names], rows.get(names[0]))
            self.rules.append(RULES[rule](config, stack, config.weight_decay if decays else 0.0))
        self.averages = [rule.stack.weights.clone() for rule in self.rules] if config.average else []

    @property
    def grads(self) -> list[Tensor]:
        """The gradient stacks; backward passes add to them."""
        return [rule.stack.grads for rule in self.rules]

    def grad_norm(self) -> float:
        """The Euclidean norm of all gradients together, NaN or infinity included."""
        norms = torch.stack([torch.linalg.vector_norm(grad, dtype=torch.float32) for grad in self.grads])
        if not norms.isfinite().all():  # of a large number the square alone may not be
            norms = torch.stack([torch.linalg.vector_norm(grad, dtype=torch.float64) for grad in self.grads])
        return float(torch.linalg.vector_norm(norms, dtype=torch.float64))

    @torch.no_grad()
    def scale_grads(self, factor: float) -> None:
        """Multiply all gradients, as clipping does."""
        for grad in self.grads:
            grad.mul_(factor)

    @torch.no_grad()
    def step(self, lr_scale: float = 1.0) -> None:
        """Move all weights, refresh the worker, clear the gradients."""
        self.count += 1
        for rule in self.rules:
            rule.step(lr_scale, self.count)
            rule.stack.grads.zero_()
        share = 1 - min(self.average, self.count / (self.count + 9))  # of a few steps all count, not the first weights
        for rule, mean in zip(self.rules, self.averages, strict=False):
            mean.lerp_(rule.stack.weights, share)

    @torch.no_grad()
    def swap(self) -> None:
        """Put the averages in place of the weights, and these in place of the averages; twice, all is as it was."""
        for rule, mean in zip(self.rules, self.averages, strict=False):
            held = rule.stack.weights.clone()
            rule.stack.weights.copy_(mean)
            mean.copy_(held)
            rule.stack.refresh()

    def state(self) -> dict[str, Tensor]:
        """Everything to continue from, by parameter name and part: `layers.0.mlp.up_proj.weight/momentum`."""
        parts = [(rule, part, tensor) for rule in self.rules for part, tensor in rule.state.items()]
        parts += [(rule, "average", mean) for rule, mean in zip(self.rules, self.averages, strict=False)]
        named = {f"{name}/{part}": tensor[i] for rule, part, tensor in parts for i, name in enumerate(rule.stack.names)}
        return named | {"count": torch.tensor(self.count)}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave; also refresh the worker from the network's weights, which were loaded before.

        Raises:
            DamagedFile: an entry is missing, left over or misshapen.
        """
        mine = self.state()
        if mine.keys() != state.keys():
            raise DamagedFile(f"the optimiser's state does not fit: {sorted(mine.keys() ^ state.keys())[:5]}")
        for name, tensor in mine.items():
            if (tensor.shape, tensor.dtype) != (state[name].shape, state[name].dtype):
                there = f"{tuple(state[name].shape)} {state[name].dtype}"
                raise DamagedFile(f"the optimiser's {name} is {there} instead of {tuple(tensor.shape)} {tensor.dtype}")
            tensor.copy_(state[name])
        self.count = int(state["count"])
        for rule in self.rules:
            rule.stack.reload()


def _treatment(config: OptimizerConfig, name: str, parameter: nn.Parameter) -> tuple[str, bool]:
    """Which rule moves this parameter, and whether its weights decay."""
    matrix = parameter.ndim >= 2
    if config.name == "muon" and (not matrix or any(part.startswith(NO_MATRICES) for part in name.split("."))):
        return "rest", matrix
    return config.name, matrix
