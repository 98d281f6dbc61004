"""The parts that networks are built from.

Shapes: T tokens, C channels.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cutaway.models.config import DecoderConfig
from cutaway.models.fused import relu2, rms_norm


def gelu_tanh(x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """GELU by its tanh formula, as GPT-2 computes it."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "relu2": relu2,
}


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned scale: the weight, or one more than it (as in Gemma)."""

    def __init__(self, width: int, eps: float, plus_one: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps, self.plus_one = eps, plus_one

    @property
    def scale(self) -> Float[Tensor, " C"]:
        """(C,) what the normed numbers are multiplied by."""
        return 1 + self.weight if self.plus_one else self.weight

    def forward(self, x: Float[Tensor, "*S C"]) -> Float[Tensor, "*S C"]:
        """(…, C) -> (…, C)"""
        return rms_norm(x, self.scale, self.eps)


def make_norm(config: DecoderConfig, width: int | None = None) -> nn.Module:
    """The norm that the config asks for, over the last dimension."""
    width = width or config.width
    if config.norm == "layernorm":
        return nn.LayerNorm(width, eps=config.norm_eps)
    return RMSNorm(width, config.norm_eps, config.norm_plus_one)


def sinusoids(context: int, width: int) -> Float[Tensor, "{context} {width}"]:
    """(T, C) sinusoidal positions (Vaswani et al. 2017), sines on even channels and cosines on odd ones."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angles = torch.outer(torch.arange(context, dtype=torch.float64), rates)
    table = torch.zeros(context, width, dtype=torch.float64)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : width // 2]
    return table.float()
