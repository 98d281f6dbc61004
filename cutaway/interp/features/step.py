"""One step of learning a dictionary, with gradients written by hand that touch only the features that are active.

On a CPU a step is made of passes over (B, W) numbers and of choosing the largest, not of multiplications: autograd
makes some twenty such passes, these steps make three. The tests hold each gradient against autograd.

Shapes: B rows, C channels read, O channels written, W features, E places (row, feature) that matter to a step.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.interp.features.dictionary import Features, FeaturesConfig

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam


class Parameters:
    """A dictionary's numbers as views of one flat tensor, and its gradients of another: Adam moves all at once.

    The threshold of "jumprelu" is learned as its logarithm.
    """

    def __init__(self, config: FeaturesConfig, dtype: torch.dtype = torch.float32) -> None:
        W, C, O = config.width, config.reads, config.writes  # noqa: E741
        shapes = {"encoder": (W, C), "encoder_bias": (W,), "decoder": (W, O), "bias": (O,)}
        if config.kind == "jumprelu":
            shapes["log_threshold"] = (W,)
        self.config = config
        self.flat = torch.zeros(sum(math.prod(shape) for shape in shapes.values()), dtype=dtype)
        self.flat_grad, self.mean, self.square = (torch.zeros_like(self.flat) for _ in range(3))
        self.values, self.grads, self.spans = {}, {}, {}
        start = 0
        for name, shape in shapes.items():
            stop = start + math.prod(shape)
            self.values[name] = self.flat[start:stop].view(shape)
            self.grads[name] = self.flat_grad[start:stop].view(shape)
            self.spans[name] = (start, stop)
            start = stop

    def step(self, lr: float, count: int) -> None:
        """One step of Adam (Kingma & Ba 2015) against the gradients; `count` is 1 at the first."""
        self.mean.lerp_(self.flat_grad, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(self.flat_grad, self.flat_grad, value=1 - BETAS[1])
        scale = self.square.sqrt().div_(math.sqrt(1 - BETAS[1] ** count)).add_(EPSILON)
        self.flat.addcdiv_(self.mean, scale, value=-lr / (1 - BETAS[0] ** count))

    def of(self, tensor: Tensor, name: str) -> Tensor:
        """The part of a flat tensor, such as `mean` or `square`, that belongs to one of the parameters."""
        start, stop = self.spans[name]
        return tensor[start:stop].view(self.values[name].shape)

    def load(self, features: Features) -> None:
        """Begin with a dictionary's numbers."""
        for name in ("encoder", "encoder_bias", "decoder", "bias"):
            self.values[name].copy_(getattr(features, name).detach())
        if "log_threshold" in self.values:
            self.values["log_threshold"].copy_(features.threshold.detach().clamp_min(1e-6).log())


@dataclass(frozen=True)
class StepReport:
    """What a step saw.

    Attributes:
        error: (B, O) what was written less what was asked for.
        fired: (E,) the features that were active, some of them several times.
        active: how many of the E places were active.
    """

    error: Float[Tensor, "B O"]
    fired: Int[Tensor, " E"]
    active: int


def step_gradients(
    parameters: Parameters, x: Float[Tensor, "B C"], y: Float[Tensor, "B O"], sparsity: float, bandwidth: float
) -> StepReport:
    """Fill the gradients of one step's loss.

    The loss is the mean over rows of the squared error's sum, plus `sparsity` times the sum of activations ("l1") or
    the number of active features ("jumprelu", whose threshold learns through a kernel of this bandwidth, as in
    Rajamanoharan et al. 2024, equations 9 to 12). Of "topk" it is the squared error alone.

    Args:
        parameters: whose gradients are written.
        x: what is read.
        y: what is to be written.
        sparsity: of the second term.
        bandwidth: of the kernel.
    """
    config, values, grads = parameters.config, parameters.values, parameters.grads
    base = x if config.transcoder else x - values["bias"]
    pre = torch.addmm(values["encoder_bias"], base, values["encoder"].T)  # (B, W)
    places, starts = _places(pre, config, values.get("log_threshold"), bandwidth)
    reads = pre.view(-1).index_select(0, places)  # (E,)
    rows = torch.div(places, config.width, rounding_mode="floor")
    columns = places - rows * config.width
    threshold = values["log_threshold"].exp()[columns] if config.kind == "jumprelu" else None
    on = None if threshold is None else reads > threshold
    active = reads if on is None else reads * on
    error = F.embedding_bag(columns, values["decoder"], starts[:-1], per_sample_weights=active, mode="sum")
    error += values["bias"]
    error -= y
    slope = error * (2 / len(x))
    # what each place's activation would change: its direction's product with its row's slope
    pattern = torch.sparse_csr_tensor(starts, columns, active, pre.shape, check_invariants=False)
    wanted = torch.sparse.sampled_addmm(pattern, slope, values["decoder"].T, beta=0.0).values()  # (E,)
    if config.kind == "l1":
        into_pre = wanted + sparsity / len(x)
    elif on is None or threshold is None:
        into_pre = wanted
    else:
        into_pre = wanted * on
        near = (reads - threshold).abs() < bandwidth / 2
        moved = (threshold * wanted + sparsity / len(x)) * near * (-threshold / bandwidth)  # of the logarithm
        grads["log_threshold"].zero_().index_add_(0, columns, moved)
    # by feature: the same places, sorted, summed over the rows in which they are
    order = by_feature(columns, config.width)
    by_row = rows.index_select(0, order)
    counts = torch.bincount(columns, minlength=config.width)
    begins = counts.cumsum(0) - counts
    for name, read, weights in (("decoder", slope, active), ("encoder", base, into_pre)):
        weights = weights.index_select(0, order)
        grads[name].copy_(F.embedding_bag(by_row, read, begins, per_sample_weights=weights, mode="sum"))
    grads["encoder_bias"].zero_().index_add_(0, columns, into_pre)
    torch.sum(slope, 0, out=grads["bias"])
    if not config.transcoder:
        grads["bias"] -= grads["encoder_bias"] @ values["encoder"]
    return StepReport(error, columns if on is None else columns[on], len(columns) if on is None else int(on.sum()))


def _places(
    pre: Float[Tensor, "B W"], config: FeaturesConfig, log_threshold: Tensor | None, bandwidth: float
) -> tuple[Int[Tensor, " E"], Int[Tensor, " B1"]]:
    """Which (row, feature) matter, as row * W + feature in their order, and where each row's begin (with the end)."""
    if config.kind == "topk":
        # the k-th largest divides the rows; a feature that reads nothing is never active
        chosen = pre >= _kth_largest(pre, config.k).clamp_min(torch.finfo(pre.dtype).tiny)[:, None]
    elif log_threshold is None:
        chosen = pre > 0
    else:
        chosen = pre > log_threshold.exp() - bandwidth / 2  # the kernel reaches below the threshold
    # numpy finds the places several times as fast as torch does
    found = torch.from_numpy(np.flatnonzero(chosen.numpy()))
    return found, torch.searchsorted(found, torch.arange(0, pre.numel() + 1, config.width))


def _kth_largest(pre: Float[Tensor, "B W"], k: int) -> Float[Tensor, " B"]:
    """The k-th largest of each row: numpy partitions with vector instructions, where torch sorts pairs."""
    place = pre.shape[1] - k
    return torch.from_numpy(np.partition(pre.numpy(), place, axis=1)[:, place])


def by_feature(columns: Int[Tensor, " E"], width: int) -> Int[Tensor, " E"]:
    """The order that sorts places by feature: numpy sorts 16-bit numbers by their digits, in one pass each."""
    if width <= 2**16:
        return torch.from_numpy(np.argsort(columns.numpy().astype(np.uint16), kind="stable"))
    return columns.argsort()


@contextmanager
def sparse_in_beta() -> Iterator[None]:
    """Torch says once that sparse tensors by rows are young; of them one product is used here, which tests hold."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        yield
