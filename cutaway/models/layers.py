"""The parts that networks are built from.

Shapes: B batch, T tokens, C channels, M channels inside the MLP.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cutaway.models.config import DecoderConfig, EncoderConfig, Seq2SeqConfig
from cutaway.models.fused import relu2, rms_norm
from cutaway.models.products import Linear
from cutaway.models.tap import Tap

MLPConfig: TypeAlias = DecoderConfig | EncoderConfig | Seq2SeqConfig


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


class MLP(nn.Module):
    """Two matrices around an activation, or three when gated (Shazeer 2020).

    Args:
        config: of the network: activation, gated, mlp_bias, width, and mlp_width unless another is given.
        mlp_width: M.
    """

    def __init__(self, config: MLPConfig, mlp_width: int | None = None) -> None:
        super().__init__()
        C, M, bias = config.width, mlp_width or config.mlp_width, config.mlp_bias
        self.activation, self.gated = ACTIVATIONS[config.activation], config.gated
        if config.gated:
            self.gate_proj = Linear(C, M, bias=bias)
        self.up_proj = Linear(C, M, bias=bias)
        self.down_proj = Linear(M, C, bias=bias)

    def forward(self, x: Float[Tensor, "B T C"], tap: Tap) -> Float[Tensor, "B T C"]:
        """(B, T, C) -> (B, T, C); `pre` goes into the activation, `post` into the last matrix, both (B, T, M)."""
        pre = tap("pre", self.gate_proj(x) if self.gated else self.up_proj(x))
        post = self.activation(pre)
        if self.gated:
            post = post * self.up_proj(x)
        return self.down_proj(tap("post", post))


def make_norm(config: DecoderConfig | Seq2SeqConfig) -> nn.Module:
    """The norm that the config asks for, over the residual stream; where it asks for none, what changes nothing."""
    if config.norm == "none":
        return nn.Identity()
    if config.norm == "layernorm":
        return nn.LayerNorm(config.width, eps=config.norm_eps)
    return RMSNorm(config.width, config.norm_eps, config.norm_plus_one)


def sinusoids(context: int, width: int) -> Float[Tensor, "{context} {width}"]:
    """(T, C) float64 sinusoidal positions (Vaswani et al. 2017), sines on even channels and cosines on odd ones."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angles = torch.outer(torch.arange(context, dtype=torch.float64), rates)
    table = torch.zeros(context, width, dtype=torch.float64)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : width // 2]
    return table


class Sinusoids(nn.Module):
    """A table of sinusoidal positions that grows when a longer text comes: a file may state a context of any length.

    Args:
        context: most positions.
        width: C.
        compute: `sinusoids` or `sinusoids_apart`.
    """

    def __init__(self, context: int, width: int, compute: Callable[[int, int], Tensor]) -> None:
        super().__init__()
        self.context, self.width, self.compute = context, width, compute
        self.first = min(context, 2048, max(1, 2**20 // width))
        self.table: Tensor
        self.register_buffer("table", torch.empty(0, width), persistent=False)
        if not self.table.is_meta:  # a network of shapes alone computes it when it is given its weights
            self.table = compute(self.first, width).float()

    def restore(self, like: Tensor) -> None:
        """Compute the table in the dtype and on the device of another tensor."""
        self.table = self.compute(self.first, self.width).to(like)

    def forward(self, end: int) -> Float[Tensor, "P C"]:
        """(P, C) of at least the positions before `end`."""
        if end > len(self.table):
            self.table = self.compute(min(self.context, 2 * end), self.width).to(self.table)
        return self.table


def sinusoids_apart(context: int, width: int) -> Float[Tensor, "{context} {width}"]:
    """(T, C) the same positions with all sines on the first half of the channels and all cosines on the other."""
    table = sinusoids(context, width)
    return torch.cat((table[:, 0::2], table[:, 1::2]), dim=1)


def dropout(x: Float[Tensor, "*S"], share: float) -> Float[Tensor, "*S"]:
    """A share of the numbers made zero at random, the others larger by as much (Srivastava et al. 2014).

    Each is decided by 16 bits of a random word: torch's own asks for a word each, and takes three times as long.
    """
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), 2**63 - 1)
    kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= round(share * 2**16) - 2**15
    return x * (kept.to(x.dtype) * (1 / (1 - share)))
