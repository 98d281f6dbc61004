"""Neurons of an MLP as nodes of an attribution graph.

A neuron gives act(pre), of a gated MLP act(gate) · up. Held at what they were, act(pre) / pre and act(gate) are slopes,
and what a neuron gives is its slope times what one row of a matrix reads: proportional, as a feature's activation is.

Shapes: T tokens, C channels, M neurons of an MLP, F neurons that are nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.models import Decoder
from cutaway.models.layers import MLP


@dataclass(frozen=True)
class Neurons:
    """Neurons of one MLP, as `Traced` has features."""

    features: Tensor  # (F, 3) layer, position, number
    active: Tensor  # (F,) what they gave
    pre: Tensor  # (F,) the same: with its slope held, what a neuron gives is what it reads
    encoders: Tensor  # (F, C) the row that reads, times the slope
    biases: Tensor  # (F,)
    writes: Tensor  # (F, C)

    @staticmethod
    @torch.no_grad()
    def strongest(
        network: Decoder, reads: Sequence[Float[Tensor, "1 T C"]], layers: Sequence[int], count: int
    ) -> dict[int, Neurons]:
        """The neurons of some layers that write most at any token, so many in all, by layer.

        Raises:
            ConfigError: an MLP whose output a norm or a router stands on, so that no neuron writes by itself.
        """
        if not count or not network.config.mlp or not layers:
            return {}
        if network.config.norm_place != "before" or any(network.config.has_experts(i) for i in layers):
            raise ConfigError(
                "neurons of this decoder do not write into the stream by themselves: a norm or a choice of experts "
                "stands behind them; train transcoders of its MLPs instead"
            )
        made = {i: _given(_mlp(network, i), reads[i][0]) for i in layers}
        sizes = [made[i][0].abs() * _mlp(network, i).down_proj.weight.norm(dim=0) for i in layers]  # (T, M) each
        chosen = torch.cat([size.flatten() for size in sizes]).topk(min(count, sum(map(torch.Tensor.numel, sizes))))
        found, start = {}, 0
        for i, size in zip(layers, sizes, strict=True):
            own = (
                chosen.indices[(chosen.indices >= start) & (chosen.indices < start + size.numel())].sort().values
                - start
            )
            start += size.numel()
            post, slope = made[i]
            position, number = own // size.shape[1], own % size.shape[1]
            some = post[position, number] != 0  # what gives nothing has no part in anything
            found[i] = Neurons._of(network, i, position[some], number[some], post, slope)
        return found

    @staticmethod
    def _of(network: Decoder, layer: int, position: Tensor, number: Tensor, post: Tensor, slope: Tensor) -> Neurons:
        mlp = _mlp(network, layer)
        values, slopes = post[position, number], slope[position, number]
        bias = mlp.up_proj.bias
        return Neurons(
            torch.stack((torch.full_like(position, layer), position, number), dim=1),
            values,
            values,
            mlp.up_proj.weight[number] * slopes[:, None],
            torch.zeros_like(values) if bias is None else bias[number] * slopes,
            mlp.down_proj.weight[:, number].T * values[:, None],
        )

    def sum_into(self, nothing: Float[Tensor, "T C"]) -> Float[Tensor, "T C"]:
        """What they write together, at each token."""
        return nothing.index_add(0, self.features[:, 1], self.writes)


def _mlp(network: Decoder, layer: int) -> MLP:
    mlp = network.blocks[layer].mlp
    assert isinstance(mlp, MLP)
    return mlp


def _given(mlp: MLP, x: Float[Tensor, "T C"]) -> tuple[Float[Tensor, "T M"], Float[Tensor, "T M"]]:
    """What each neuron gives, and by how much it multiplies what its row of up_proj reads."""
    up = mlp.up_proj(x)
    if mlp.gated:
        slope = mlp.activation(mlp.gate_proj(x))
        return slope * up, slope
    post = mlp.activation(up)
    return post, torch.where(up == 0, 0, post / up)
