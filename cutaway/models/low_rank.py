"""Layers with low-rank parts beside the weights of another network, which stay as they are (LoRA, Hu et al. 2021).

A layer computes x (W + s·BA)ᵀ + b, and never forms the sum; with a magnitude m (DoRA, Liu et al. 2024) row n of
W + s·BA is scaled to the length m[n]. `weight` is there as in torch's own layers, formed when it is asked for, so that
everything that reads weights (the ledger, an export) works.

Shapes: N rows (channels out), C channels in, r rank, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cutaway.models.fused import joined_linear
from cutaway.models.products import linear


class LowRankLinear(nn.Linear):
    """A linear layer with low-rank parts, to its readers an nn.Linear like any other.

    Args:
        base: what it stands on, quantised or not; its own weight does not learn.
        lora_A: (r, C).
        lora_B: (N, r).
        scale: s.
        magnitude: (N,) lengths of the rows (DoRA); None: as they come.
        dropout: of what A reads, while it trains.
    """

    def __init__(
        self,
        base: nn.Linear,
        lora_A: nn.Parameter,
        lora_B: nn.Parameter,
        scale: float,
        magnitude: nn.Parameter | None = None,
        dropout: float = 0.0,
    ) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a matrix
        self.out_features, self.in_features = base.out_features, base.in_features
        self.base, self.lora_A, self.lora_B, self.scale, self.dropout = base, lora_A, lora_B, scale, dropout
        self.register_parameter("magnitude", magnitude)
        self._known: tuple[tuple[int, ...], Tensor] | None = None  # factors, and the numbers that they are of

    @property
    def bias(self) -> Tensor | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(N,), or None."""
        return self.base.bias

    @property
    def weight(self) -> Float[Tensor, "N C"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(N, C), what it multiplies with, formed now."""
        factor, whole = self.factor(), self._whole()
        return whole if factor is None else whole * factor[:, None]

    def factor(self) -> Float[Tensor, " N"] | None:
        """(N,) what gives rows their magnitude; lengths are no subject of learning (DoRA, section 4.3)."""
        magnitude = self._parameters["magnitude"]
        if magnitude is None:
            return None
        if torch.is_grad_enabled():
            return magnitude / self._lengths()
        parts = (self.lora_A, self.lora_B, magnitude)
        state = tuple(n for t in parts for n in (t.data_ptr(), 0 if t.is_inference() else t._version))
        if self._known is None or self._known[0] != state:
            self._known = state, magnitude.detach() / self._lengths()
        return self._known[1]

    def add(self, made: Float[Tensor, "*S N"], x: Float[Tensor, "*S C"]) -> Float[Tensor, "*S N"]:
        """What the base's matrix made of x, with the parts added; without the bias.

        Args:
            made: (…, N) product of x and the base's matrix.
            x: (…, C).
        """
        read = F.dropout(x, self.dropout, self.training) if self.dropout else x
        made = made + linear(linear(read, self.lora_A), self.lora_B) * self.scale
        factor = self.factor()
        return made if factor is None else made * factor

    def forward(self, input: Float[Tensor, "*S C"]) -> Float[Tensor, "*S N"]:
        """(…, C) -> (…, N)"""
        made, bias = self.base(input), self.bias
        if bias is None or self._parameters["magnitude"] is None:
            return self.add(made, input)
        return self.add(made - bias, input) + bias

    def _whole(self) -> Tensor:
        return self.base.weight + (self.lora_B @ self.lora_A) * self.scale

    @torch.no_grad()
    def _lengths(self) -> Tensor:
        return torch.linalg.vector_norm(self._whole(), dim=1)


class LowRankEmbedding(nn.Module):
    """An embedding with low-rank parts: token v gets row v of W + s·(BA)ᵀ.

    Args:
        base: what it stands on.
        lora_A: (r, V).
        lora_B: (C, r).
        scale: s.
    """

    def __init__(self, base: nn.Module, lora_A: nn.Parameter, lora_B: nn.Parameter, scale: float) -> None:
        super().__init__()
        self.base, self.lora_A, self.lora_B, self.scale = base, lora_A, lora_B, scale

    @property
    def weight(self) -> Float[Tensor, "V C"]:
        """(V, C), formed now."""
        return self.base.weight + (self.lora_B @ self.lora_A).T * self.scale  # pyright: ignore[reportOperatorIssue]

    def forward(self, ids: Int[Tensor, "*S"]) -> Float[Tensor, "*S C"]:
        """(…) -> (…, C)"""
        return self.base(ids) + linear(F.embedding(ids, self.lora_A.T), self.lora_B) * self.scale


def parts_of(network: nn.Module) -> dict[str, LowRankLinear | LowRankEmbedding]:
    """The layers of a network that have low-rank parts, by name."""
    return {n: m for n, m in network.named_modules() if isinstance(m, LowRankLinear | LowRankEmbedding)}


def joined_product(x: Float[Tensor, "*S C"], *layers: nn.Linear) -> Float[Tensor, "*S M"]:
    """x times the matrices of several layers as one product, without their biases: (…, C) -> (…, sum of their N)."""
    bases = [layer.base if isinstance(layer, LowRankLinear) else layer for layer in layers]
    made = joined_linear(x, *(base.weight for base in bases))
    if not any(isinstance(layer, LowRankLinear) for layer in layers):
        return made
    pieces = zip(layers, made.split([layer.out_features for layer in layers], dim=-1), strict=True)
    return torch.cat([layer.add(p, x) if isinstance(layer, LowRankLinear) else p for layer, p in pieces], dim=-1)
