"""A GPT-style decoder, readable from embedding to logits, or to what another head makes of its states.

Shapes: B batch, T new tokens, S tokens attended to (cached and new), C channels, H query heads, K key/value heads,
D head dim, M channels inside the MLP, V vocabulary, L labels.

Parameter names are Llama's as Hugging Face spells them. Every `tap(name, x)` is a place that can be read or replaced.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.models.attention import explicit_pattern
from cutaway.models.cache import KVCache, Prefix
from cutaway.models.config import DecoderConfig
from cutaway.models.config_parts import POOLED
from cutaway.models.experts import Experts
from cutaway.models.fused import causal_attention, heads
from cutaway.models.heads import Head
from cutaway.models.layers import MLP, RMSNorm, Sinusoids, make_norm, sinusoids
from cutaway.models.low_rank import joined_product
from cutaway.models.products import Linear
from cutaway.models.rotary import Rotary
from cutaway.models.sight import Sight
from cutaway.models.tap import OFF, Tap


class Attention(nn.Module):
    """Causal self-attention with grouped heads, optional query-key norm and rotary positions."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer, self.window = config, layer, config.window(layer)
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.scale = config.attention_scale or self.head_dim**-0.5
        inner, kv_inner = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = Linear(config.width, inner, bias=config.attention_bias)
        self.k_proj = Linear(config.width, kv_inner, bias=config.attention_bias)
        self.v_proj = Linear(config.width, kv_inner, bias=config.attention_bias)
        self.o_proj = Linear(inner, config.width, bias=config.output_bias)
        if config.qk_norm:
            wide = config.qk_norm_joint
            self.q_norm = RMSNorm(inner if wide else self.head_dim, config.norm_eps, config.norm_plus_one)
            self.k_norm = RMSNorm(kv_inner if wide else self.head_dim, config.norm_eps, config.norm_plus_one)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        rotary: Rotary | None,
        sight: Sight,
        cache: KVCache | None,
        tap: Tap,
        z: Float[Tensor, "B H T D"] | None = None,
    ) -> Float[Tensor, "B *Q C"]:
        """(B, T, C) -> (B, T, C), or of the queries that are wanted alone; z, where it is known, is not computed."""
        if z is None:
            z = self._attend(x, rotary, sight, cache, tap)
        z = tap("z", z)  # (B, H, T, D)
        return self.o_proj(z.transpose(1, 2).reshape(len(x), z.shape[2], self.heads * self.head_dim))

    def _attend(self, x: Tensor, rotary: Rotary | None, sight: Sight, cache: KVCache | None, tap: Tap) -> Tensor:
        B, T, _ = x.shape
        H, K, D = self.heads, self.kv_heads, self.head_dim
        # queries, keys and values come from one product, and are normed and turned together: few, large operations
        joined = joined_product(x, self.q_proj, self.k_proj, self.v_proj)
        if self.q_proj.bias is not None:
            joined = joined + torch.cat((self.q_proj.bias, self.k_proj.bias, self.v_proj.bias))
        scales = None
        if self.config.qk_norm and self.config.qk_norm_joint:
            q, k, v = joined.split([H * D, K * D, K * D], dim=-1)
            joined = torch.cat((self.q_norm(q), self.k_norm(k), v), dim=-1)
        elif self.config.qk_norm:
            scales = torch.cat((self.q_norm.scale.expand(H, D), self.k_norm.scale.expand(K, D)))
        cos, sin = rotary(sight.start, sight.seen, sight.positions) if rotary is not None else (None, None)
        turned = self.config.rotary_dim
        q, k, v = heads(joined.view(B, T, H + 2 * K, D), scales, cos, sin, H, self.config.norm_eps, turned)
        q, k, v = tap("q", q), tap("k", k), tap("v", v)  # (B, H, T, D), (B, K, T, D) twice
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, K, S, D)
        return self._mix(q[:, :, sight.wanted] if sight.wanted else q, k, v, sight, tap)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, sight: Sight, tap: Tap) -> Tensor:
        """Each query's mean of the values, weighted by its pattern: (B, H, T, D)."""
        if self.kv_heads != self.heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)
            v = v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        cap = self.config.score_cap
        if cap or tap.wants("scores", "pattern"):  # no kernel caps scores
            pattern = explicit_pattern(q, k, tap, scale=self.scale, mask=sight.mask(self.window), cap=cap)
            if cap or tap.edits("scores", "pattern"):
                return pattern @ v
        if sight.plain(self.window):
            if sight.new == sight.seen and q.device.type == "cpu" and torch.is_grad_enabled():
                return causal_attention(q, k, v, self.scale)
            if sight.new == sight.seen:
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=sight.mask(self.window), scale=self.scale)


class Block(nn.Module):
    """One layer: attention, then MLP, each reading the residual stream and adding to it.

    A norm stands on what each of them reads, on what it writes, or on both. Their names are the published ones, in
    which "post_attention" is the norm that the MLP reads through where norms stand before, and else the one that the
    attention writes through.
    """

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        if config.norm_place != "after":
            self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config, layer)
        if config.mlp or config.norm_place != "before":
            self.post_attention_layernorm = make_norm(config)
        if config.mlp:
            if config.norm_place == "both":
                self.pre_feedforward_layernorm = make_norm(config)
            if config.norm_place != "before":
                self.post_feedforward_layernorm = make_norm(config)
            self.mlp = Experts(config) if config.has_experts(layer) else MLP(config)
        self.config = config

    @property
    def norms(self) -> tuple[nn.Module | None, nn.Module | None, nn.Module | None, nn.Module | None]:
        """What the attention reads and writes through, and what the MLP reads and writes through."""
        place, mlp = self.config.norm_place, self.config.mlp
        if place == "before":
            return self.input_layernorm, None, self.post_attention_layernorm if mlp else None, None
        into_attention = self.input_layernorm if place == "both" else None
        into_mlp = self.pre_feedforward_layernorm if place == "both" and mlp else None
        return into_attention, self.post_attention_layernorm, into_mlp, self.post_feedforward_layernorm if mlp else None

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        rotary: Rotary | None,
        sight: Sight,
        cache: KVCache | None,
        tap: Tap,
        z: Float[Tensor, "B H T D"] | None = None,
    ) -> Float[Tensor, "B *Q C"]:
        """(B, T, C) -> (B, T, C), or of the queries that are wanted alone.

        Args:
            x: residual stream.
            rotary: what turns queries and keys.
            sight: which keys a query sees, and which queries are wanted.
            cache: keys and values of earlier tokens.
            tap: reads or replaces.
            z: what the attention has mixed, where it is known; then it is not computed.
        """
        into_attention, out_of_attention, into_mlp, out_of_mlp = self.norms
        x = tap("resid_pre", x)
        read = into_attention(x) if into_attention is not None and z is None else x
        written = self.self_attn(read, rotary, sight, cache, tap.at("attn"), z)
        before = x = x[:, sight.wanted] if sight.wanted else x
        if out_of_attention is not None:
            written = out_of_attention(written)
        x = tap("resid_mid", x + self._drop(tap("attn_out", written)))
        if not self.config.mlp:
            return tap("resid_post", x)
        read = before if self.config.parallel else x
        written = self.mlp(into_mlp(read) if into_mlp is not None else read, tap.at("mlp"))
        if out_of_mlp is not None:
            written = out_of_mlp(written)
        return tap("resid_post", x + self._drop(tap("mlp_out", written)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x


class Decoder(nn.Module):
    """Token ids to logits over the next token, or through another head to logits, vectors or bare states.

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
            self.positions = Sinusoids(config.context, config.width, sinusoids)
        self.rotary = self.rotary_local = None
        if config.position == "rotary":
            turned, scaling = config.rotary_dim, config.rotary_scaling
            self.rotary = Rotary(config.head_dim, config.context, config.rotary_base, turned, scaling)
            if config.rotary_base_local:
                self.rotary_local = Rotary(config.head_dim, config.context, config.rotary_base_local, turned)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = make_norm(config)
        self.head = Head(config) if config.head not in ("causal_lm", "none") else None
        if config.head == "causal_lm":
            self.lm_head = Linear(config.width, config.vocab_size, bias=False)
        self.restore_ties()
        self.reset_parameters()

    def restore_ties(self) -> None:
        """Make the output matrix the embedding, where the config says so."""
        tied = self.config.head == "causal_lm" and self.config.tied
        if tied and isinstance(self.embed_tokens, nn.Embedding):  # a table kept quantised ties itself
            self.lm_head.weight = self.embed_tokens.weight

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew: normal, 0.5 / sqrt(fan in) for matrices; what writes to the residual starts at zero.

        With zero outputs every block starts as the identity (Zhang et al. 2019, Fixup; as in modded-nanogpt), which
        lets a small model take large first steps.
        """
        read_back = self.config.head == "causal_lm" and self.config.tied
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "down_proj", "head.out.weight", "bias")):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(0.0 if self.config.norm_plus_one else 1.0)
            elif name.startswith(("embed", "lm_head")):
                parameter.normal_(0.0, 0.02 if read_back else 1.0, generator=generator)
                if name.startswith("lm_head"):
                    parameter.zero_()
            else:
                parameter.normal_(0.0, 0.5 / math.sqrt(parameter.shape[-1]), generator=generator)

    def restore(self) -> None:
        """Tie the output matrix and compute the tables anew, after tensors were assigned in place of the weights."""
        self.restore_ties()
        like = next(self.parameters())
        if self.config.position == "sinusoidal":
            self.positions.restore(like)
        for rotary in (self.rotary, self.rotary_local):
            if rotary is not None:
                rotary.restore(like)

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        cache: KVCache | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B *L"]:
        """Logits of the next token at every position, or what another head makes of the texts.

        Args:
            ids: (B, T) int64. With a cache, only the tokens that it does not hold yet.
            mask: (B, T) bool, False where a token is padding, which no other token sees and which takes no position.
            cache: from `new_cache`; holds these tokens too afterwards. A head over whole texts takes none.
            tap: reads or replaces activations.

        Returns:
            (B, T, V) in the dtype of the weights, or of another head the shape that `config_parts.HEADS` states. What
            stands at padding means nothing.

        Raises:
            InputError: more tokens than the context holds, or a part of a text for a head over whole ones.
        """
        if cache is not None and self.config.head in POOLED:
            raise InputError(f"a head for {self.config.head} reads a whole text at once; leave the cache out")
        return self.read_out(self.stream(ids, mask=mask, cache=cache, tap=tap), mask=mask, tap=tap)

    def read_out(
        self, x: Float[Tensor, "B T C"], *, mask: Bool[Tensor, "B T"] | None = None, tap: Tap = OFF
    ) -> Float[Tensor, "B *L"]:
        """A residual stream (B, T, C), of the last layer or any other, as logits (B, T, V) or another head's output."""
        x = self.finish(x, tap)
        if self.config.head == "causal_lm":
            logits, cap = self.lm_head(x), self.config.logit_cap
            return tap("logits", cap * torch.tanh(logits / cap) if cap else logits)
        if self.head is None:
            return x
        return tap("embedding" if self.config.head == "embedding" else "logits", self.head(x, mask, tap.at("head")))

    def finish(self, x: Float[Tensor, "B T C"], tap: Tap = OFF) -> Float[Tensor, "B T C"]:
        """What a head reads of the residual stream."""
        return tap("final_norm", self.norm(x))

    def stream(
        self,
        ids: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        cache: KVCache | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B T C"]:
        """The residual stream after the last layer, (B, T, C); `read_out` makes the head's output of it."""
        start, T = cache.length if cache is not None else 0, ids.shape[1]
        if start + T > self.config.context:
            raise InputError(
                f"{start + T} tokens were given, but this model sees {self.config.context} at once; "
                "shorten the text or train with a larger context"
            )
        if cache is not None:
            mask = cache.extend_mask(mask, T)
        sight = Sight(start, T, ids.device, mask)
        x = self.embed_tokens(ids)
        if self.config.embed_scale != 1:
            x = x * self.config.embed_scale
        positions = slice(start, start + T) if sight.positions is None else sight.positions
        if self.config.position == "learned":
            x = x + self.embed_positions.weight[positions]
        elif self.config.position == "sinusoidal":
            x = x + self.positions(sight.seen)[positions]
        x = tap("embed", x)
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        x = self._through(0, self.config.layers, x, sight, cache, tap)
        if cache is not None:
            cache.advance(T)
        return x

    def resume(
        self,
        layer: int,
        x: Float[Tensor, "B T C"],
        *,
        stop: int | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        before: Prefix | None = None,
        z: Float[Tensor, "B H T D"] | None = None,
        wanted: int | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B Q C"]:
        """The residual stream after the last layer, from that before any layer: what is known need not be computed.

        Args:
            layer: the first to compute; `config.layers` computes none.
            x: (B, T, C) the residual stream before it.
            stop: the first layer that is not computed; None: all are.
            mask: as in `forward`.
            before: keys and values of the tokens before these, where x is of the later ones of a text.
            z: (B, H, T, D) what the first layer's attention has mixed, where that is known; then it is not computed.
            wanted: the one position, of T, whose stream after the last layer is asked for; None: all (Q is T).
            tap: reads or replaces activations.
        """
        start, stop = 0 if before is None else before.length, self.config.layers if stop is None else stop
        sight = Sight(start, x.shape[1], x.device, mask)
        if wanted is None or stop <= layer:
            x = self._through(layer, stop, x, sight, before, tap, z)
            return x if wanted is None else x[:, wanted : wanted + 1]
        last = sight.only(wanted)
        if layer < stop - 1:
            return self._through(
                stop - 1, stop, self._through(layer, stop - 1, x, sight, before, tap, z), last, before, tap
            )
        z = None if z is None else z[:, :, wanted : wanted + 1]
        return self._through(layer, stop, x, last, before, tap, z)

    def _through(
        self, layer: int, stop: int, x: Tensor, sight: Sight, cache: KVCache | None, tap: Tap, z: Tensor | None = None
    ) -> Tensor:
        """The stream after some of the layers; z is of the first of them."""
        for i in range(layer, stop):
            local = self.rotary_local is not None and self.config.window(i)
            turns = self.rotary_local if local else self.rotary
            x, z = self.blocks[i](x, turns, sight, cache, tap.at(f"layers.{i}"), z), None
        return x

    @property
    def blocks(self) -> list[Block]:
        """The layers, with their type."""
        return [block for block in self.layers if isinstance(block, Block)]

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache for `batch` sequences of up to `capacity` tokens (the context by default)."""
        weight = next(self.parameters())
        shape = (batch, self.config.kv_heads, capacity or self.config.context, self.config.head_dim)
        return KVCache(self.config.layers, shape, dtype=weight.dtype, device=weight.device)

    def tap_names(self) -> list[str]:
        """Every activation name, in the order of computation."""
        attention = [f"attn.{name}" for name in ("q", "k", "v", "scores", "pattern", "z")]
        names = ["embed"]
        for i in range(self.config.layers):
            mlp = ["mlp.router"] if self.config.has_experts(i) else ["mlp.pre", "mlp.post"]
            mlp = [*mlp, "mlp_out"] if self.config.mlp else []
            inside = ["resid_pre", *attention, "attn_out", "resid_mid", *mlp, "resid_post"]
            names += [f"layers.{i}.{name}" for name in inside]
        if self.head is not None:
            output = "embedding" if self.config.head == "embedding" else "logits"
            return [*names, "final_norm", *(f"head.{name}" for name in self.head.tap_names()), output]
        return [*names, "final_norm", *["logits"] * (self.config.head == "causal_lm")]
