"""The parts that networks are built from.

Shapes: B batch, T tokens, C channels, D head dim.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.models.config import DecoderConfig
from cutaway.models.fused import relu2, rms_norm


def gelu_tanh(x: Tensor) -> Tensor:
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
    """Root-mean-square norm with a learned scale."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) -> (…, C)"""
        return rms_norm(x, self.weight, self.eps)


def make_norm(config: DecoderConfig, width: int | None = None) -> nn.Module:
    """The norm that the config asks for, over the last dimension."""
    width = width or config.width
    if config.norm == "layernorm":
        return nn.LayerNorm(width, eps=config.norm_eps)
    return RMSNorm(width, eps=config.norm_eps)


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021): turns pairs of channels by an angle that grows with the position.

    The pairs are channel i and i + D/2, as in Llama.
    """

    def __init__(self, head_dim: int, context: int, base: float) -> None:
        super().__init__()
        self.head_dim, self.context, self.base = head_dim, context, base
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", torch.empty(context, 1, head_dim), persistent=False)
        self.register_buffer("sin", torch.empty(context, 1, head_dim), persistent=False)
        self.reset()

    def reset(self) -> None:
        """Compute the angles anew, rounded once to the buffers' dtype, as is right after a change of dtype."""
        # in float64, as float32 angles are already off at position 10,000
        rates = self.base ** -(torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim)
        angles = torch.outer(torch.arange(self.context, dtype=torch.float64), rates)  # (T, D/2)
        cos = torch.cat((angles.cos(), angles.cos()), dim=1).unsqueeze(1)
        sin = torch.cat((-angles.sin(), angles.sin()), dim=1).unsqueeze(1)  # as `fused.heads` expects
        self.cos, self.sin = cos.to(self.cos), sin.to(self.sin)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Rotary":
        super()._apply(fn, recurse)
        self.reset()
        return self

    def forward(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """The cosines and signed sines of positions start … end - 1, each (T, 1, D)."""
        return self.cos[start:end], self.sin[start:end]


def sinusoids(context: int, width: int) -> Tensor:
    """(T, C) sinusoidal positions (Vaswani et al. 2017), sines on even channels and cosines on odd ones."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angles = torch.outer(torch.arange(context, dtype=torch.float64), rates)
    table = torch.zeros(context, width, dtype=torch.float64)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : width // 2]
    return table.float()
