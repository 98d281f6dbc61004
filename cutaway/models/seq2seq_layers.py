"""What the two halves of an encoder–decoder are made of: attention, layers, and the stack of them.

At the places that a tap can read or replace, the parts add up:

    norms before (T5)                              norms on the sum (BART)
    resid_mid   = resid_pre + attn_out             attn_sum = resid_pre + attn_out,             resid_mid = norm(…)
    resid_cross = resid_mid + cross_attn_out       cross_attn_sum = resid_mid + cross_attn_out, resid_cross = norm(…)
    resid_post  = resid_cross + mlp_out            mlp_sum = resid_cross + mlp_out,             resid_post = norm(…)

Shapes: B batch, T tokens, P tokens seen (cached and new), S source tokens, C channels, H heads, D head dim, M mel bins,
F frames of a spectrogram.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cutaway.models.attention import explicit_pattern
from cutaway.models.cache import KVCache
from cutaway.models.layers import MLP, Sinusoids, dropout, make_norm, sinusoids_apart
from cutaway.models.products import Linear
from cutaway.models.seq2seq_config import Seq2SeqConfig
from cutaway.models.sight import Sight
from cutaway.models.tap import Tap

Source: TypeAlias = tuple[Tensor, Tensor, Tensor | None]  # keys (B, H, S, D), values, and which are real (B, 1, 1, S)
Extend: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

SHORT = 1 << 16  # scores of a head, up to which they are computed one step after the other while learning
AFTER = {"attn": "resid_mid", "cross_attn": "resid_cross", "mlp": "resid_post"}  # part -> the stream after it


class Attention(nn.Module):
    """Each position's mean of values, of its own sequence or of another."""

    def __init__(self, config: Seq2SeqConfig, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.scale = config.attention_scale or head_dim**-0.5
        inner, bias = heads * head_dim, config.attention_bias
        self.q_proj = Linear(config.width, inner, bias=bias)
        self.k_proj = Linear(config.width, inner, bias=bias and config.key_bias)
        self.v_proj = Linear(config.width, inner, bias=bias)
        self.o_proj = Linear(inner, config.width, bias=config.output_bias)

    def keys_values(self, x: Float[Tensor, "B S C"]) -> tuple[Float[Tensor, "B H S D"], Float[Tensor, "B H S D"]]:
        """What is attended to."""
        return self._heads(self.k_proj(x)), self._heads(self.v_proj(x))

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        k: Float[Tensor, "B H S D"],
        v: Float[Tensor, "B H S D"],
        mask: Bool[Tensor, "... #T S"] | None,
        bias: Float[Tensor, "H T S"] | None,
        tap: Tap,
    ) -> Float[Tensor, "B T C"]:
        """(B, T, C) -> (B, T, C), out of the keys and values; `mask` is True where a query sees a key."""
        z = tap("z", self._mix(tap("q", self._heads(self.q_proj(x))), k, v, mask, bias, tap))  # (B, H, T, D)
        return self.o_proj(z.transpose(1, 2).flatten(2))

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, tap: Tap) -> Tensor:
        # torch's kernel goes back slowly over short texts, and with a bias keeps copies in float32
        learned = torch.is_grad_enabled() and (bias is not None or q.shape[2] * k.shape[2] <= SHORT)
        if learned or tap.wants("scores", "pattern"):
            pattern = explicit_pattern(q, k, tap, scale=self.scale, mask=mask, bias=bias)
            if learned or tap.edits("scores", "pattern"):
                return pattern @ v
        if bias is not None:
            mask = bias if mask is None else bias.masked_fill(~mask, -math.inf)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, H · D) -> (B, H, T, D)"""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)


class Block(nn.Module):
    """One layer: attention, in the decoder attention to the source, then MLP, each adding to the residual stream.

    Norms stand on what each part reads, or on the stream after each addition. Their names are the decoder's.
    """

    def __init__(self, config: Seq2SeqConfig, *, decodes: bool) -> None:
        super().__init__()
        self.config, self.decodes = config, decodes
        heads, head_dim, mlp_width = config.heads, config.head_dim, config.mlp_width
        if not decodes:
            heads, head_dim, mlp_width = config.encoder_heads, config.encoder_head_dim, config.encoder_mlp_width
        if config.norm_place == "before":
            self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config, heads, head_dim)
        self.post_attention_layernorm = make_norm(config)
        if decodes:
            self.cross_attn = Attention(config, heads, head_dim)
            self.post_cross_layernorm = make_norm(config)
        self.mlp = MLP(config, mlp_width)
        if config.norm_place == "sum":
            self.post_feedforward_layernorm = make_norm(config)

    @property
    def norms(self) -> dict[str, nn.Module]:
        """Part -> the norm on what it reads, or on its sum."""
        before = self.config.norm_place == "before"
        ordered = [self.input_layernorm] if before else []
        ordered += [self.post_attention_layernorm, *([self.post_cross_layernorm] if self.decodes else [])]
        ordered += [] if before else [self.post_feedforward_layernorm]
        return dict(zip(["attn", *["cross_attn"] * self.decodes, "mlp"], ordered, strict=True))

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        mask: Bool[Tensor, "... T P"] | None,
        bias: Float[Tensor, "H T P"] | None,
        tap: Tap,
        extend: Extend | None = None,
        source: Source | None = None,
    ) -> Float[Tensor, "B T C"]:
        """(B, T, C) -> (B, T, C)

        Args:
            x: residual stream.
            mask: True where a query sees a key; None: everywhere.
            bias: on scores, by the distance of query and key.
            tap: reads or replaces.
            extend: puts new keys and values behind those of earlier tokens.
            source: keys, values and mask of what the encoder has made.
        """

        def attend(x: Tensor) -> Tensor:
            inside = tap.at("attn")
            k, v = self.self_attn.keys_values(x)
            k, v = inside("k", k), inside("v", v)
            if extend is not None:
                k, v = extend(k, v)
            return self.self_attn(x, k, v, mask, bias, inside)

        x = self._add("attn", tap("resid_pre", x), attend, tap)
        if source is not None:
            inside, (k, v, source_mask) = tap.at("cross_attn"), source
            k, v = inside("k", k), inside("v", v)
            x = self._add("cross_attn", x, lambda x: self.cross_attn(x, k, v, source_mask, None, inside), tap)
        return self._add("mlp", x, lambda x: self.mlp(x, tap.at("mlp")), tap)

    def _add(self, part: str, x: Tensor, compute: Callable[[Tensor], Tensor], tap: Tap) -> Tensor:
        """The stream after a part has read it and added to it."""
        norm = self.norms[part]
        if self.config.norm_place == "before":
            return tap(AFTER[part], x + self._drop(tap(f"{part}_out", compute(norm(x)))))
        return tap(AFTER[part], norm(tap(f"{part}_sum", x + self._drop(tap(f"{part}_out", compute(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout) if self.training and self.config.dropout else x

    def tap_names(self) -> list[str]:
        """Every activation name, in the order of computation."""
        looked = ("scores", "pattern", "z")
        inside = {"attn": ("k", "v", "q", *looked), "cross_attn": ("k", "v", "q", *looked), "mlp": ("pre", "post")}
        names = ["resid_pre"]
        for part in self.norms:
            summed = [f"{part}_sum"] * (self.config.norm_place == "sum")
            names += [*(f"{part}.{name}" for name in inside[part]), f"{part}_out", *summed, AFTER[part]]
        return names


class Stack(nn.Module):
    """The encoder, or the decoder: positions, layers, and a norm behind them where norms stand before."""

    def __init__(self, config: Seq2SeqConfig, *, decodes: bool) -> None:
        super().__init__()
        self.config, self.decodes = config, decodes
        self.context = config.context if decodes else config.source_context
        if config.source == "audio" and not decodes:
            self.conv1 = nn.Conv1d(config.mel_bins, config.width, kernel_size=3, padding=1)
            self.conv2 = nn.Conv1d(config.width, config.width, kernel_size=3, stride=2, padding=1)
        if config.position == "learned":
            self.embed_positions = nn.Embedding(config.position_offset + self.context, config.width)
        elif config.position == "sinusoidal":
            self.positions = Sinusoids(self.context, config.width, sinusoids_apart)
        elif config.position == "relative":
            heads = config.heads if decodes else config.encoder_heads
            self.relative_bias = nn.Embedding(config.relative_buckets, heads)
        if config.embed_norm:
            self.embed_norm = make_norm(config)
        layers = config.layers if decodes else config.encoder_layers
        self.layers = nn.ModuleList(Block(config, decodes=decodes) for _ in range(layers))
        if config.norm_place == "before":
            self.norm = make_norm(config)

    @property
    def blocks(self) -> list[Block]:
        """The layers, with their type."""
        return [block for block in self.layers if isinstance(block, Block)]

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        sight: Sight,
        tap: Tap,
        cache: KVCache | None = None,
        sources: Sequence[Source] = (),
    ) -> Float[Tensor, "B T C"]:
        """Embeddings (B, T, C) to the last layer's residual stream (B, T, C)."""
        x = tap("embed", self._place(x, sight))
        if self.config.embed_norm:
            x = self.embed_norm(x)
        if self.training and self.config.dropout:
            x = dropout(x, self.config.dropout)
        return self.resume(0, x, sight, tap, cache, sources)

    def resume(
        self,
        layer: int,
        x: Float[Tensor, "B T C"],
        sight: Sight,
        tap: Tap,
        cache: KVCache | None = None,
        sources: Sequence[Source] = (),
    ) -> Float[Tensor, "B T C"]:
        """The last layer's residual stream (B, T, C), from that before any layer (B, T, C)."""
        mask, bias = sight.mask(), self._bias(sight)
        for i in range(layer, len(self.layers)):
            extend = None if cache is None else partial(cache.extend, i)
            x = self.blocks[i](x, mask, bias, tap.at(f"layers.{i}"), extend, sources[i] if sources else None)
        return x

    def listen(self, spectrogram: Float[Tensor, "B M F"]) -> Float[Tensor, "B S C"]:
        """Frames through two convolutions, of which the second takes every other step: S = (F + 1) // 2."""
        return F.gelu(self.conv2(F.gelu(self.conv1(spectrogram)))).transpose(1, 2)

    def finish(self, x: Float[Tensor, "B T C"], tap: Tap) -> Float[Tensor, "B T C"]:
        """What is read of the residual stream."""
        return tap("final_norm", self.norm(x)) if self.config.norm_place == "before" else x

    def _place(self, x: Tensor, sight: Sight) -> Tensor:
        places = slice(sight.start, sight.seen) if sight.positions is None else sight.positions
        if self.config.position == "learned":
            return x + self.embed_positions.weight[self.config.position_offset :][places]
        if self.config.position == "sinusoidal":
            return x + self.positions(sight.seen)[places]
        return x

    def _bias(self, sight: Sight) -> Tensor | None:
        """(H, T, P) what the distance of query and key adds to scores, the same in every layer."""
        if self.config.position != "relative":
            return None
        distances = sight.distances()  # (T, P)
        buckets = relative_buckets(
            distances, self.config.relative_buckets, self.config.relative_distance, both_sides=not self.decodes
        )
        return self.relative_bias(buckets).permute(2, 0, 1)

    def tap_names(self) -> list[str]:
        """Every activation name, in the order of computation."""
        names = ["embed", *(f"layers.{i}.{name}" for i, block in enumerate(self.blocks) for name in block.tap_names())]
        return names + ["final_norm"] * (self.config.norm_place == "before")


def relative_buckets(distances: Int[Tensor, "T P"], buckets: int, most: int, *, both_sides: bool) -> Int[Tensor, "T P"]:
    """T5's classes of distances (Raffel et al. 2020): near ones each their own, far ones by their logarithm.

    Args:
        distances: key minus query.
        buckets: how many classes there are.
        most: from this distance on all have the same.
        both_sides: whether keys after the query have half of the classes; else all of them are as the query itself.
    """
    first = torch.zeros_like(distances)
    if both_sides:
        buckets //= 2
        first = (distances > 0) * buckets
        distances = distances.abs()
    else:
        distances = -distances.clamp(max=0)
    near = buckets // 2
    # float32, whatever the weights are: published checkpoints were trained with its rounding at whole powers
    far = torch.log(distances.clamp(min=1).to(torch.float32) / near) / math.log(most / near) * (buckets - near)
    return first + torch.where(distances < near, distances, (near + far.long()).clamp(max=buckets - 1))
