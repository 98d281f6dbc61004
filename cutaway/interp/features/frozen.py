"""A decoder with its attention patterns and its norms' scales held, and its MLPs taken out: what is left is affine.

What enters the residual stream, the embeddings and what stands for each MLP, reaches every MLP's input and the final
norm through fixed matrices alone. So the effect of one on another is a gradient, and exact.

Shapes: B copies, T tokens, C channels, H query heads, K key/value heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cutaway.interp.record import Recording
from cutaway.models import Decoder
from cutaway.models.layers import RMSNorm

Held = Callable[[Tensor], Tensor]


def names_of(network: Decoder) -> list[str]:
    """What has to be recorded of a network."""
    parts = ["resid_pre", "resid_mid", "resid_post", "attn.pattern", "attn.z", *["mlp_out"] * network.config.mlp]
    return ["embed", *(f"layers.{i}.{part}" for i in range(network.config.layers) for part in parts), "final_norm"]


class Frozen:
    """The affine part of one run.

    Args:
        network: a decoder.
        recording: of `names_of`, of one text.
    """

    def __init__(self, network: Decoder, recording: Recording) -> None:
        self.network = network
        self.patterns, self.held = [], []
        with torch.no_grad():
            for i, block in enumerate(network.blocks):
                layer = f"layers.{i}"
                self.patterns.append(recording[f"{layer}.attn.pattern"])
                z = recording[f"{layer}.attn.z"].transpose(1, 2).flatten(2)
                into_attention, out_of_attention, into_mlp, _ = block.norms
                before = recording[f"{layer}.resid_pre"]
                reads = before if network.config.parallel else recording[f"{layer}.resid_mid"]
                self.held.append(
                    (
                        held_norm(into_attention, before),
                        held_norm(out_of_attention, block.self_attn.o_proj(z)),
                        held_norm(into_mlp, reads),
                    )
                )
            count = network.config.layers
            self.final = held_norm(network.norm, recording[f"layers.{count - 1}.resid_post" if count else "embed"])

    def __call__(
        self, embed: Float[Tensor, "B T C"], writes: Sequence[Float[Tensor, "B T C"]]
    ) -> tuple[list[Float[Tensor, "B T C"]], Float[Tensor, "B T C"]]:
        """What each MLP reads, and what the output matrix reads.

        Args:
            embed: what enters the stream.
            writes: what each layer's MLP writes, whatever it reads.
        """
        x, reads = embed, []
        for i, block in enumerate(self.network.blocks):
            into_attention, out_of_attention, into_mlp = self.held[i]
            before = x
            attention = block.self_attn
            values = attention.v_proj(into_attention(x))
            values = values.unflatten(-1, (attention.kv_heads, attention.head_dim)).transpose(1, 2)  # (B, K, T, D)
            values = values.repeat_interleave(attention.heads // attention.kv_heads, dim=1)
            mixed = (self.patterns[i] @ values).transpose(1, 2).flatten(2)  # (B, T, H·D)
            x = x + out_of_attention(attention.o_proj(mixed))
            reads.append(into_mlp(before if self.network.config.parallel else x))
            x = x + writes[i]
        return reads, self.final(x)


def held_norm(norm: nn.Module | None, at: Float[Tensor, "1 T C"]) -> Held:
    """A norm whose scale stays what it was for another input; without one, nothing changes."""
    if norm is None or isinstance(norm, nn.Identity):
        return lambda x: x
    if isinstance(norm, nn.LayerNorm):
        size = (at.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
        return lambda x: (x - x.mean(-1, keepdim=True)) / size * norm.weight + norm.bias
    assert isinstance(norm, RMSNorm)
    scale = norm.scale / (at.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return lambda x: x * scale
