"""A mixture of experts (Shazeer et al. 2017): MLPs beside each other, of which a router picks some for each token.

Shapes: B batch, T tokens, C channels, E experts, M channels inside an expert, N tokens that chose an expert.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cutaway.models.config import DecoderConfig
from cutaway.models.layers import ACTIVATIONS
from cutaway.models.products import Linear, linear
from cutaway.models.tap import Tap


class Experts(nn.Module):
    """Stands where an MLP stands."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        E, M, C = config.experts, config.expert_width, config.width
        self.activation, self.used = ACTIVATIONS[config.activation], config.experts_used
        self.sum_to_one = config.expert_weights_sum_to_one
        self.router = Linear(C, E, bias=False)
        self.gate_proj = nn.Parameter(torch.empty(E, M, C)) if config.gated else None
        self.up_proj = nn.Parameter(torch.empty(E, M, C))
        self.down_proj = nn.Parameter(torch.empty(E, C, M))

    def forward(self, x: Float[Tensor, "B T C"], tap: Tap) -> Float[Tensor, "B T C"]:
        """(B, T, C) -> (B, T, C); `router` is each expert's weight, zero where it is not used, (B, T, E)."""
        chances = self.router(x).softmax(dim=-1)
        top, which = chances.topk(self.used, dim=-1)
        if self.sum_to_one:
            top = top / top.sum(dim=-1, keepdim=True)
        weights = tap("router", torch.zeros_like(chances).scatter(-1, which, top))
        tokens, weights = x.flatten(0, 1), weights.flatten(0, 1)
        mixed = torch.zeros_like(tokens)
        for expert in weights.any(dim=0).nonzero().flatten().tolist():
            chosen = weights[:, expert].nonzero().flatten()  # (N,)
            written = self._expert(expert, tokens[chosen])
            mixed = mixed.index_add(0, chosen, written * weights[chosen, expert, None])
        return mixed.view_as(x)

    def _expert(self, expert: int, x: Tensor) -> Tensor:
        """(N, C) -> (N, C)"""
        up = linear(x, self.up_proj[expert])
        if self.gate_proj is None:
            return linear(self.activation(up), self.down_proj[expert])
        return linear(self.activation(linear(x, self.gate_proj[expert])) * up, self.down_proj[expert])
