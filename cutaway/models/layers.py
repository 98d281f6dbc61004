"""The parts that networks are built from.

Shapes: B batch, T tokens, C channels, D head dim.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.models.config import DecoderConfig


def relu2(x: Tensor) -> Tensor:
    """Squared ReLU (So et al. 2021, Primer)."""
    return F.relu(x).square()


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


def make_norm(config: DecoderConfig, width: int | None = None) -> nn.Module:
    """The norm that the config asks for, over the last dimension."""
    width = width or config.width
    if config.norm == "layernorm":
        return nn.LayerNorm(width, eps=config.norm_eps)
    return nn.RMSNorm(width, eps=config.norm_eps)


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021): turns pairs of channels by an angle that grows with the position.

    The pairs are channel i and i + D/2, as in Llama.
    """

    def __init__(self, head_dim: int, context: int, base: float) -> None:
        super().__init__()
        self.head_dim, self.base = head_dim, base
        cos, sin = self._angles(context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def _angles(self, context: int) -> tuple[Tensor, Tensor]:
        # in float64, then rounded once: float32 angles are already wrong at position 10,000
        rates = self.base ** -(torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim)
        angles = torch.outer(torch.arange(context, dtype=torch.float64), rates).repeat(1, 2)  # (T, D)
        return angles.cos().float(), angles.sin().float()

    def reset(self) -> None:
        """Recompute the angles in full precision, as after a change of dtype."""
        cos, sin = self._angles(self.cos.shape[0])
        self.cos, self.sin = cos.to(self.cos), sin.to(self.sin)

    def forward(self, x: Tensor, start: int) -> Tensor:
        """(B, H, T, D) -> the same shape, turned as positions start … start + T - 1."""
        cos = self.cos[start : start + x.shape[-2]]
        sin = self.sin[start : start + x.shape[-2]]
        half = self.head_dim // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
        return x * cos + turned * sin


def sinusoids(context: int, width: int) -> Tensor:
    """(T, C) sinusoidal positions (Vaswani et al. 2017), sines on even channels and cosines on odd ones."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angles = torch.outer(torch.arange(context, dtype=torch.float64), rates)
    table = torch.zeros(context, width, dtype=torch.float64)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : width // 2]
    return table.float()
