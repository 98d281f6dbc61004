"""Numbers to blocks, a matrix at a time.

Shapes: E experts (or none), R rows, C channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import NonFinite
from cutaway.generation.quantize.grid import GRIDS
from cutaway.models.formats.ggml import Blocks
from cutaway.models.formats.quantise import LARGEST, TOO_LARGE

CHUNK = 1 << 17  # numbers at a time: the steps between stay in the processor's cache


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse what blocks cannot hold.

    Raises:
        NonFinite: a NaN, an infinity, or a number too large for float16 scales; names the matrix.
    """
    if not bool(tensor.abs().max() < LARGEST):
        bad = int((~(tensor.abs() < LARGEST)).sum())
        raise NonFinite(f"{name} holds {bad:,} of {tensor.numel():,} numbers that are {TOO_LARGE}")


@torch.no_grad()
def round_matrix(matrix: Float[Tensor, "*E R C"], kind: str, importance: Float[Tensor, " C"] | None = None) -> Blocks:
    """The blocks whose numbers are nearest to a matrix, by squares.

    Each group's scale, and least number where the kind has one, is the best of some twenty that are tried; ggml's own
    choice is one of them where a kind has groups of 32.

    Args:
        matrix: of numbers.
        kind: one of GRIDS.
        importance: (C,) how much a square counts, by its channel; None: all the same.
    """
    grid, width = GRIDS[kind], matrix.shape[-1]
    rows = matrix.detach().reshape(-1, width)
    weight = torch.ones(width) if importance is None else importance.float()
    step = max(1, CHUNK // width)
    made = []
    for start in range(0, len(rows), step):
        piece = rows[start : start + step].float().cpu()
        x = piece.reshape(-1, grid.numbers)
        scales = grid.fit(x, weight.expand_as(piece).reshape(-1, grid.numbers))
        made.append(grid.bytes_of(grid.levels(x, scales), scales).view(len(piece), -1))
    return Blocks(kind, torch.cat(made).view(*matrix.shape[:-1], -1), torch.float32)
