"""Matrix products in float32 on a CPU, by the faster of the two libraries that torch brings along.

torch multiplies float32 matrices with MKL, which on processors that are not Intel's keeps to AVX2 and reaches less than
half of what oneDNN does there with AVX-512: 190 and 430 GFLOP/s on two cores of an EPYC. The two round differently, as
two machines do.

Shapes: C channels in, N channels out.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def _vendor() -> str:
    """Who made the processor, as it says itself; "" where that is not to be found out."""
    if sys.platform.startswith("linux"):
        try:
            lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
    return platform.processor()


def _choose() -> tuple[bool, str]:
    """Whether oneDNN multiplies, and why."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False, "this torch comes without oneDNN"
    if not torch.backends.mkl.is_available():
        return False, "torch has no MKL here, and chooses by itself"
    if "AMD" not in _vendor():
        return False, "MKL is at home on this processor"
    return True, "MKL keeps to AVX2 on this processor, oneDNN does not"


ONEDNN, REASON = _choose()
WORTH = 1 << 22  # multiplications from which on it pays to prepare one with gradients


def product(x: Float[Tensor, "*S C"], weight: Float[Tensor, "N C"], bias: Tensor | None = None) -> Tensor:
    """x times a transposed matrix, (…, C) and (N, C) to (…, N); no gradients pass.

    Args:
        x: float32 on a CPU goes the faster way, all else torch's.
        weight: may be a transposed view.
        bias: (N,), added.
    """
    if (
        ONEDNN
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel()
    ):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def _plain(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0


class _Learned(Function):
    """A product with a matrix that learns: gradients pass to what is multiplied, to the matrix and to the bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])  # (M, N)
        return (
            product(grad, weight.mT) if wants_x else None,
            product(rows.mT, x.reshape(-1, x.shape[-1]).mT) if wants_weight else None,  # (N, M) times (M, C)
            rows.sum(0) if wants_bias else None,
        )


class _Through(Function):
    """A product with a matrix that does not learn: the gradient passes to what is multiplied alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (weight,) = ctx.saved_tensors
        return product(grad, weight.mT), None, None


def linear(x: Float[Tensor, "*S C"], weight: Float[Tensor, "N C"], bias: Tensor | None = None) -> Tensor:
    """As torch's `linear`, (…, C) to (…, N), with gradients."""
    if not torch.is_grad_enabled():
        return product(x, weight, bias)
    if torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        worth = ONEDNN and x.numel() * len(weight) >= WORTH and _plain(x) and _plain(weight)
        whole = worth and type(weight) is nn.Parameter  # a sharded one is torch's
        return _Learned.apply(x, weight, bias) if whole else F.linear(x, weight, bias)  # pyright: ignore[reportReturnType]
    return _Through.apply(x, weight, bias) if x.requires_grad else product(x, weight, bias)  # pyright: ignore[reportReturnType]


class Linear(nn.Linear):
    """torch's, multiplied as above."""

    def forward(self, input: Float[Tensor, "*S C"]) -> Float[Tensor, "*S N"]:
        """(…, C) -> (…, N)"""
        return linear(input, self.weight, self.bias)
