"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): rounding column by column, each error made good by the columns to come.

For a matrix that reads x, the error that counts is that of what it writes, ‖(W - Q) X‖². Its curvature is the same for
every row, H = X Xᵀ. When a column has been rounded, the columns not yet rounded move by what the inverse of H says, so
that they make up for the error as well as they can.

Shapes: R rows, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import NonFinite
from cutaway.generation.quantize.grid import GRIDS, Scales
from cutaway.models.formats.ggml import Blocks

DAMPING = 0.01  # of the curvature's mean diagonal, added to it, so that it can be inverted
SPAN = 256  # columns after which the errors are carried to all that are left


def inverse_factor(curvature: Float[Tensor, "C C"], damping: float = DAMPING) -> Float[Tensor, "C C"]:
    """The upper factor U of the inverse curvature, H⁻¹ = Uᵀ U, in float32.

    Args:
        curvature: H, symmetric.
        damping: see DAMPING; ten times as much is added until the inverse exists.

    Raises:
        NonFinite: H holds a NaN or an infinity.
    """
    H = curvature.double().clone()
    if not bool(H.isfinite().all()):
        raise NonFinite("the model computes NaN or infinity on the calibration texts; look at it with cutaway look")
    diagonal = H.diagonal()
    mean = float(diagonal.mean()) or 1.0
    for _ in range(8):
        damped = H + torch.eye(len(H), dtype=H.dtype) * (damping * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not int(failed):
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not int(failed):
                return upper.float()
        damping *= 10
    raise NonFinite("the curvature of the calibration texts cannot be inverted; give more and longer texts")


@torch.no_grad()
def gptq_matrix(
    matrix: Float[Tensor, "R C"],
    kind: str,
    curvature: Float[Tensor, "C C"],
    *,
    damping: float = DAMPING,
    by_size: bool = True,
) -> Blocks:
    """The blocks of a matrix.

    Args:
        matrix: of numbers.
        kind: one of GRIDS.
        curvature: sum of x xᵀ over what it reads.
        damping: see DAMPING.
        by_size: round the columns of the largest inputs first (the paper's "act-order"); scales are then fitted to the
            matrix as it is, else to what is left of it when their group's turn comes.

    Raises:
        NonFinite: the curvature is not finite, or cannot be inverted.
    """
    grid = GRIDS[kind]
    rows, channels = matrix.shape
    diagonal = curvature.diagonal().float()
    W = matrix.detach().float().clone()
    order = torch.argsort(diagonal, descending=True, stable=True) if by_size else torch.arange(channels)
    weight = (diagonal / diagonal.mean().clamp(min=1e-30)).clamp(min=1e-6)
    U = inverse_factor(curvature[order][:, order], damping)
    W, levels = W[:, order], torch.empty(rows, channels)

    def fit(block: int, x: Tensor) -> Scales:
        """Scales of one block of every row."""
        first = block * grid.numbers
        return grid.fit(x, weight[first : first + grid.numbers].expand_as(x))

    scales: list[Scales] = []
    if by_size:
        whole = matrix.detach().float().view(rows, -1, grid.numbers)
        scales = [fit(block, whole[:, block].contiguous()) for block in range(whole.shape[1])]
    for start in range(0, channels, SPAN):
        end = min(start + SPAN, channels)
        errors = torch.empty(rows, end - start)
        for i in range(start, end):
            column = int(order[i])
            block, inside = divmod(column, grid.numbers)
            if not by_size and not inside:
                scales.append(fit(block, W[:, i : i + grid.numbers].contiguous()))
            worth, least = scales[block].of_column(inside, grid.width)
            levels[:, column] = _nearest(W[:, i], worth, least, grid.low, grid.high)
            errors[:, i - start] = (W[:, i] - (levels[:, column] * worth + least)) / U[i, i]
            W[:, i:end].addr_(errors[:, i - start], U[i, i:end], alpha=-1)
        if end < channels:
            W[:, end:].addmm_(errors, U[start:end, end:], alpha=-1)
    return Blocks(kind, _packed(levels, scales, grid.bytes_of), torch.float32)


def _nearest(x: Tensor, worth: Tensor, least: Tensor, low: int, high: int) -> Tensor:
    return torch.where(worth == 0, 0.0, (x - least) / worth).round_().clamp_(low, high)


def _packed(levels: Tensor, scales: list[Scales], pack: Callable[[Tensor, Scales], Tensor]) -> Tensor:
    pieces = levels.chunk(len(scales), dim=1)
    return torch.cat([pack(piece.contiguous(), each) for piece, each in zip(pieces, scales, strict=True)], dim=1)
