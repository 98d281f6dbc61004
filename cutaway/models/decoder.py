"""A GPT-style decoder, readable from embedding to logits.

Shapes: B batch, T new tokens, S tokens attended to (cached and new), C channels, H query heads, K key/value heads,
D head dim, M channels inside the MLP, V vocabulary.

Parameter names are Llama's as Hugging Face spells them. Every `tap(name, x)` is a place that can be read or replaced.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.models.cache import KVCache
from cutaway.models.config import DecoderConfig
from cutaway.models.fused import causal_attention, heads, joined_linear
from cutaway.models.layers import ACTIVATIONS, RMSNorm, Rotary, make_norm, sinusoids
from cutaway.models.tap import OFF, Tap


class Attention(nn.Module):
    """Causal self-attention with grouped heads, optional query-key norm and rotary positions."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.kv_heads, self.head_dim = (
            layer,
            config.heads,
            config.kv_heads,
            config.head_dim,
        )
        inner, kv_inner = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, inner, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.width, kv_inner, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.width, kv_inner, bias=config.attention_bias)
        self.o_proj = nn.Linear(inner, config.width, bias=config.output_bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, eps=config.norm_eps)
            self.k_norm = RMSNorm(config.head_dim, eps=config.norm_eps)
        self.qk_norm, self.eps = config.qk_norm, config.norm_eps

    def forward(self, x: Tensor, rotary: Rotary | None, cache: KVCache | None, tap: Tap) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        B, T, _ = x.shape
        H, K, D = self.heads, self.kv_heads, self.head_dim
        start = cache.length if cache is not None else 0
        # queries, keys and values come from one product, and are normed and turned together: few, large operations
        joined = joined_linear(x, self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)
        if self.q_proj.bias is not None:
            joined = joined + torch.cat((self.q_proj.bias, self.k_proj.bias, self.v_proj.bias))
        scales = torch.cat((self.q_norm.weight.expand(H, D), self.k_norm.weight.expand(K, D))) if self.qk_norm else None
        cos, sin = rotary(start, start + T) if rotary is not None else (None, None)
        q, k, v = heads(joined.view(B, T, H + 2 * K, D), scales, cos, sin, H, self.eps)
        q, k, v = tap("q", q), tap("k", k), tap("v", v)  # (B, H, T, D), (B, K, T, D) twice
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, K, S, D)
        z = tap("z", self._mix(q, k, v, start, tap))  # (B, H, T, D)
        return self.o_proj(z.transpose(1, 2).reshape(B, T, H * D))

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, start: int, tap: Tap) -> Tensor:
        """Each query's mean of the values, weighted by its pattern: (B, H, T, D)."""
        if self.kv_heads != self.heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)
            v = v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        T, S = q.shape[2], k.shape[2]
        explicit = None
        if tap.wants("scores", "pattern"):
            scores = q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)  # (B, H, T, S)
            future = torch.ones(T, S, dtype=torch.bool, device=q.device).triu(start + 1)
            scores = tap("scores", scores.masked_fill(future, -math.inf))
            explicit = tap("pattern", scores.softmax(dim=-1)) @ v
        if explicit is not None and tap.edits("scores", "pattern"):
            return explicit
        if T == S and q.device.type == "cpu" and torch.is_grad_enabled():
            return causal_attention(q, k, v)
        if T == S:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        if T == 1:
            return F.scaled_dot_product_attention(q, k, v)
        seen = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(start)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


class MLP(nn.Module):
    """Two matrices around an activation, or three when gated (Shazeer 2020)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        if config.gated:
            self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=config.mlp_bias)
        self.gated = config.gated

    def forward(self, x: Tensor, tap: Tap) -> Tensor:
        """(B, T, C) -> (B, T, C); `pre` goes into the activation, `post` into the last matrix, both (B, T, M)."""
        pre = tap("pre", self.gate_proj(x) if self.gated else self.up_proj(x))
        post = self.activation(pre)
        if self.gated:
            post = post * self.up_proj(x)
        return self.down_proj(tap("post", post))


class Block(nn.Module):
    """One layer: attention, then MLP, each reading a normed copy of the residual stream and adding to it."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = make_norm(config)
        self.mlp = MLP(config)
        self.dropout = config.dropout

    def forward(self, x: Tensor, rotary: Rotary | None, cache: KVCache | None, tap: Tap) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        x = tap("resid_pre", x)
        written = self.self_attn(self.input_layernorm(x), rotary, cache, tap.at("attn"))
        x = tap("resid_mid", x + self._drop(tap("attn_out", written)))
        written = self.mlp(self.post_attention_layernorm(x), tap.at("mlp"))
        return tap("resid_post", x + self._drop(tap("mlp_out", written)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Decoder(nn.Module):
    """Token ids to logits over the next token.

    Args:
        config: what it is made of.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        if config.position == "learned":
            self.embed_positions = nn.Embedding(config.context, config.width)
        elif config.position == "sinusoidal":
            self.register_buffer("positions", sinusoids(config.context, config.width), persistent=False)
        self.rotary = (
            Rotary(config.head_dim, config.context, config.rotary_base) if config.position == "rotary" else None
        )
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = make_norm(config)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.embed_tokens.weight
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew: normal, 0.5 / sqrt(fan in) for matrices; what writes to the residual starts at zero.

        With zero outputs every block starts as the identity (Zhang et al. 2019, Fixup; as in modded-nanogpt), which
        lets a small model take large first steps.
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")) or name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            elif name.startswith(("embed", "lm_head")):
                parameter.normal_(0.0, 0.02 if self.config.tied else 1.0, generator=generator)
                if name.startswith("lm_head"):
                    parameter.zero_()
            else:
                parameter.normal_(0.0, 0.5 / math.sqrt(parameter.shape[1]), generator=generator)

    def forward(self, ids: Tensor, *, cache: KVCache | None = None, tap: Tap = OFF) -> Tensor:
        """Logits of the next token at every position.

        Args:
            ids: (B, T) int64. With a cache, only the tokens that it does not hold yet.
            cache: from `new_cache`; holds these tokens too afterwards.
            tap: reads or replaces activations.

        Returns:
            (B, T, V) in the dtype of the weights.

        Raises:
            InputError: more tokens than the context holds.
        """
        x = self.norm(self.stream(ids, cache=cache, tap=tap))
        return tap("logits", self.lm_head(tap("final_norm", x)))

    def stream(self, ids: Tensor, *, cache: KVCache | None = None, tap: Tap = OFF) -> Tensor:
        """The residual stream after the last layer, (B, T, C); `forward` is the norm and the output matrix of this."""
        start = cache.length if cache is not None else 0
        T = ids.shape[1]
        if start + T > self.config.context:
            raise InputError(
                f"{start + T} tokens were given, but this model sees {self.config.context} at once; "
                "shorten the text or train with a larger context"
            )
        x = self.embed_tokens(ids)
        if self.config.position == "learned":
            x = x + self.embed_positions.weight[start : start + T]
        elif self.config.position == "sinusoidal":
            x = x + self.positions[start : start + T]  # pyright: ignore[reportIndexIssue]
        x = tap("embed", x)
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        for i, layer in enumerate(self.layers):
            x = layer(x, self.rotary, cache, tap.at(f"layers.{i}"))
        if cache is not None:
            cache.advance(T)
        return x

    @property
    def blocks(self) -> list[Block]:
        """The layers, with their type."""
        return [block for block in self.layers if isinstance(block, Block)]

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache for `batch` sequences of up to `capacity` tokens (the context by default)."""
        weight = self.embed_tokens.weight
        shape = (batch, self.config.kv_heads, capacity or self.config.context, self.config.head_dim)
        return KVCache(self.config.layers, shape, dtype=weight.dtype, device=weight.device)

    def tap_names(self) -> list[str]:
        """Every activation name, in the order of computation."""
        inside = [
            "resid_pre",
            "attn.q",
            "attn.k",
            "attn.v",
            "attn.scores",
            "attn.pattern",
            "attn.z",
            "attn_out",
        ]
        inside += ["resid_mid", "mlp.pre", "mlp.post", "mlp_out", "resid_post"]
        layers = [f"layers.{i}.{name}" for i in range(self.config.layers) for name in inside]
        return ["embed", *layers, "final_norm", "logits"]
