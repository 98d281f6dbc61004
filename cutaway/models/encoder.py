"""A BERT-style encoder, readable from embedding to logits: every token sees every other, before and after it.

Shapes: B batch, T tokens, C channels, E channels of the embedding, H heads, D head dim, M channels inside the MLP,
V vocabulary, L labels, K places.

Parameter names are those of the decoder where a thing is the same. Every `tap(name, x)` is a place that can be read or
replaced, and at every place the parts add up:

    norms before (ModernBERT)                   norms on the sum (BERT)
    resid_mid  = resid_pre + attn_out           attn_sum = resid_pre + attn_out, resid_mid  = norm(attn_sum)
    resid_post = resid_mid + mlp_out            mlp_sum  = resid_mid + mlp_out,  resid_post = norm(mlp_sum)

`embed` is the sum of what a token, its position and its type have; through norm and projection it becomes the first
`resid_pre`.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.models.attention import explicit_pattern
from cutaway.models.encoder_config import EncoderConfig
from cutaway.models.heads import Head, pool
from cutaway.models.layers import MLP
from cutaway.models.products import Linear
from cutaway.models.rotary import Rotary
from cutaway.models.sight import Apart, Packed, Sight, places_apart
from cutaway.models.tap import OFF, Tap


def _norm(config: EncoderConfig, width: int = 0) -> nn.LayerNorm:
    return nn.LayerNorm(width or config.width, eps=config.norm_eps, bias=config.norm_bias)


class Attention(nn.Module):
    """Self-attention to both sides, of all tokens or those within a window."""

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.head_dim, self.window = config.heads, config.head_dim, config.window(layer)
        inner = config.heads * config.head_dim
        self.q_proj = Linear(config.width, inner, bias=config.attention_bias)
        self.k_proj = Linear(config.width, inner, bias=config.attention_bias)
        self.v_proj = Linear(config.width, inner, bias=config.attention_bias)
        self.o_proj = Linear(inner, config.width, bias=config.output_bias)

    def forward(
        self, x: Float[Tensor, "B T C"], rotary: Rotary | None, sight: Sight, tap: Tap
    ) -> Float[Tensor, "B T C"]:
        """(B, T, C) -> (B, T, C)"""
        B, T, _ = x.shape
        q, k, v = (
            project(x).view(B, T, self.heads, self.head_dim) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if rotary is not None:
            # the sines are signed: x turned is x · cos + its halves swapped · sin
            cos, sin = rotary(0, sight.length, sight.positions)
            q, k = (x * cos + x.roll(self.head_dim // 2, -1) * sin for x in (q, k))
        q, k, v = (tap(name, x.transpose(1, 2)) for name, x in (("q", q), ("k", k), ("v", v)))  # (B, H, T, D)
        z = tap("z", self._mix(q, k, v, sight, tap))  # (B, H, T, D)
        return self.o_proj(z.transpose(1, 2).reshape(B, T, self.heads * self.head_dim))

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, sight: Sight, tap: Tap) -> Tensor:
        """Each query's mean of the values, weighted by its pattern: (B, H, T, D)."""
        if tap.wants("scores", "pattern"):
            pattern = explicit_pattern(q, k, tap, scale=self.head_dim**-0.5, mask=sight.mask(self.window))
            if tap.edits("scores", "pattern"):
                return pattern @ v
        return sight.attend(q, k, v, self.window)


class Block(nn.Module):
    """One layer: attention, then MLP, each adding to the residual stream.

    Norms stand on what both read, or on the stream after each addition. Their names are the decoder's, in which
    "post_attention" is the norm that the MLP reads through where norms stand before.
    """

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        reads_normed = config.norm_place == "before" and (layer > 0 or config.first_norm)
        self.input_layernorm = _norm(config) if reads_normed else None
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = _norm(config)
        self.mlp = MLP(config)
        if config.norm_place == "sum":
            self.post_feedforward_layernorm = _norm(config)

    def forward(
        self, x: Float[Tensor, "B T C"], rotary: Rotary | None, sight: Sight, tap: Tap
    ) -> Float[Tensor, "B T C"]:
        """(B, T, C) -> (B, T, C)"""
        x = tap("resid_pre", x)
        if self.config.norm_place == "sum":
            written = tap("attn_out", self.self_attn(x, rotary, sight, tap.at("attn")))
            x = tap("resid_mid", self.post_attention_layernorm(tap("attn_sum", x + self._drop(written))))
            written = tap("mlp_out", self.mlp(x, tap.at("mlp")))
            return tap("resid_post", self.post_feedforward_layernorm(tap("mlp_sum", x + self._drop(written))))
        read = self.input_layernorm(x) if self.input_layernorm is not None else x
        x = tap("resid_mid", x + self._drop(tap("attn_out", self.self_attn(read, rotary, sight, tap.at("attn")))))
        written = tap("mlp_out", self.mlp(self.post_attention_layernorm(x), tap.at("mlp")))
        return tap("resid_post", x + self._drop(written))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x


class Encoder(nn.Module):
    """Token ids to states, and through a head to logits or vectors.

    Args:
        config: what it is made of.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embed_width)
        if config.position == "learned":
            self.embed_positions = nn.Embedding(config.position_offset + config.context, config.embed_width)
        if config.token_types:
            self.embed_types = nn.Embedding(config.token_types, config.embed_width)
        if config.embed_norm:
            self.embed_norm = _norm(config, config.embed_width)
        if config.embed_width != config.width:
            self.embed_proj = Linear(config.embed_width, config.width)
        self.rotary = self.rotary_local = None
        if config.position == "rotary":
            self.rotary = Rotary(config.head_dim, config.context, config.rotary_base, scaling=config.rotary_scaling)
            if config.rotary_base_local:
                self.rotary_local = Rotary(config.head_dim, config.context, config.rotary_base_local)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        if config.norm_place == "before":
            self.norm = _norm(config)
        if config.pooler:
            self.pooler = Linear(config.width, config.width)
        if config.next_sentence:
            self.next_sentence = Linear(config.width, 2)
        self.head = Head(config) if config.head != "none" else None
        if config.head == "masked_lm":
            read = config.embed_width if config.head_activation != "none" else config.width
            self.lm_head = Linear(read, config.vocab_size, bias=config.head_bias)
        self.restore_ties()
        self.reset_parameters()

    def restore_ties(self) -> None:
        """Make the output matrix the embedding, where the config says so."""
        tied = self.config.head == "masked_lm" and self.config.tied
        if tied and isinstance(self.embed_tokens, nn.Embedding):  # a table kept quantised ties itself
            self.lm_head.weight = self.embed_tokens.weight

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew: normal, 0.5 / sqrt(fan in) for matrices; what writes to the residual starts at zero.

        With zero outputs every block starts as the identity (Zhang et al. 2019, Fixup), as in the decoder.
        """
        read_back = self.config.head == "masked_lm" and self.config.tied
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "head.out.weight", "lm_head.weight", "bias")):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            elif name.startswith(("embed_tokens", "embed_positions", "embed_types")):
                parameter.normal_(0.0, 0.02 if read_back else 1.0, generator=generator)
            else:
                parameter.normal_(0.0, 0.5 / math.sqrt(parameter.shape[-1]), generator=generator)

    def restore(self) -> None:
        """Tie the output matrix and compute the tables anew, after tensors were assigned in place of the weights."""
        self.restore_ties()
        for rotary in (self.rotary, self.rotary_local):
            if rotary is not None:
                rotary.restore(next(self.parameters()))

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        token_types: Int[Tensor, "B T"] | None = None,
        places: Int[Tensor, "B K"] | None = None,
        unpadded: bool = False,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B *L"]:
        """What the head makes of the texts.

        Args:
            ids: (B, T) int64.
            mask: (B, T) bool, False where a token is padding, which no other token sees and which takes no position.
            token_types: (B, T) int64 kinds of the tokens, such as which of two sentences they are from; None: all 0.
                Of a network that reads texts apart: 0 for the tokens of the first text, then 1 for those of the second.
            places: (B, K) int64, where a head that answers at every position is asked; the output is then (B, K, …).
                None: everywhere. Training on hidden tokens has no use for the other logits.
            unpadded: compute nothing for padding. What is told of a text is the same but for rounding, which then
                depends on how many tokens there are in all; nothing is shown to a tap.
            tap: reads or replaces activations.

        Returns:
            In the dtype of the weights and the shape that `config_parts.HEADS` states: (B, T, V) of a masked language
            model, (B, T, C) without a head. What stands at padding means nothing.

        Raises:
            InputError: more tokens than the context holds, or token types that the model does not know.
        """
        x = self.stream(ids, mask=mask, token_types=token_types, unpadded=unpadded, tap=tap)
        if places is not None:
            x, mask = (
                x.gather(1, places[..., None].expand(-1, -1, x.shape[-1])),
                None,
            )  # only whole texts have a use for it
        return self.read_out(x, mask=mask, token_types=token_types, tap=tap)

    def stream(
        self,
        ids: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        token_types: Int[Tensor, "B T"] | None = None,
        unpadded: bool = False,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B T C"]:
        """The residual stream after the last layer, (B, T, C); `read_out` makes the head's output of it."""
        T, config = ids.shape[1], self.config
        if config.context < T:
            raise InputError(
                f"{T} tokens were given, but this model sees {config.context} at once; shorten the text or split it"
            )
        x = self._embed(ids, mask, token_types, tap)
        if unpadded and mask is not None and tap is OFF:
            packed = Packed(mask, self._texts(ids, mask, token_types))
            return packed.unpack(self._through(0, config.layers, packed.pack(x), packed, tap))
        return self._through(0, config.layers, x, self._sight(ids, mask, token_types), tap)

    def resume(
        self,
        layer: int,
        x: Float[Tensor, "B T C"],
        *,
        stop: int | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        token_types: Int[Tensor, "B T"] | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B T C"]:
        """The residual stream after the last layer, from that before any layer (B, T, C).

        Args:
            layer: the first to compute; `config.layers` computes none.
            x: (B, T, C) the residual stream before it.
            stop: the first layer that is not computed; None: all are.
            mask: as in `forward`.
            token_types: as in `forward`; only a network that reads texts apart has a use for them here.
            tap: reads or replaces activations.
        """
        sight = self._sight(x[..., 0], mask, token_types)
        return self._through(layer, self.config.layers if stop is None else stop, x, sight, tap)

    def _sight(self, like: Tensor, mask: Tensor | None, token_types: Tensor | None) -> Sight:
        """What tokens (B, T) see."""
        texts = self._texts(like, mask, token_types)
        if texts is not None:
            return Apart(texts, mask)
        return Sight(0, like.shape[1], like.device, mask, causal=False)

    def _texts(self, like: Tensor, mask: Tensor | None, token_types: Tensor | None) -> Tensor | None:
        """Which of two texts that are read apart each token is of, (B, T); None: the network reads them together.

        Raises:
            InputError: it is not known, or a text has no token.
        """
        if not self.config.apart:
            return None
        if token_types is None:
            raise InputError("this model compares two texts: give both, with token types 0 for the first and 1 behind")
        real = torch.ones_like(token_types, dtype=torch.bool) if mask is None else mask
        kinds = token_types.masked_fill(~real, 1)
        fits = token_types.shape == like.shape and int(kinds.min()) >= 0 and int(kinds.max()) <= 1
        if not fits or bool((kinds.diff(dim=1) < 0).any()) or not bool(places_apart(token_types, mask)[1].all()):
            raise InputError("of two texts that are compared, token types are 0 for the first, then 1 for the second")
        return token_types

    def _through(self, layer: int, stop: int, x: Tensor, sight: Sight, tap: Tap) -> Tensor:
        for i in range(layer, stop):
            local = self.rotary_local is not None and self.config.window(i)
            x = self.blocks[i](x, self.rotary_local if local else self.rotary, sight, tap.at(f"layers.{i}"))
        return x

    def read_out(
        self,
        x: Float[Tensor, "B T C"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        token_types: Int[Tensor, "B T"] | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B *L"]:
        """A residual stream (B, T, C), of the last layer or any other, as the head's output."""
        x = self.finish(x, tap)
        if self.head is None:
            return x
        x = self.head(x, mask, tap.at("head"), self._texts(x[..., 0], mask, token_types))
        if self.config.head == "masked_lm":
            x = self.lm_head(x)
        return tap("embedding" if self.config.head == "embedding" else "logits", x)

    def finish(self, x: Float[Tensor, "B T C"], tap: Tap = OFF) -> Float[Tensor, "B T C"]:
        """What a head reads of the residual stream."""
        return tap("final_norm", self.norm(x)) if self.config.norm_place == "before" else x

    def pooled(self, states: Float[Tensor, "B T C"], mask: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B C"]:
        """BERT's own vector of a text: a dense layer and tanh over the first token (B, C).

        Raises:
            InputError: the model has no pooler.
        """
        if not self.config.pooler:
            raise InputError("this model has no pooler; take the mean of its states, or those of the first token")
        return torch.tanh(self.pooler(pool(states, mask, "cls")))

    def follows(self, states: Float[Tensor, "B T C"], mask: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B 2"]:
        """BERT's logits of the second text following the first, and of its being another (B, 2).

        Raises:
            InputError: the model was not trained to say.
        """
        if not self.config.next_sentence:
            raise InputError("this model has no output for the next sentence")
        return self.next_sentence(self.pooled(states, mask))

    def _embed(self, ids: Tensor, mask: Tensor | None, token_types: Tensor | None, tap: Tap) -> Tensor:
        """Ids to what the first layer reads, (B, T, C)."""
        config = self.config
        x = self.embed_tokens(ids)
        if config.token_types:
            kinds = torch.zeros_like(ids) if token_types is None or config.apart else token_types
            if kinds.shape != ids.shape or kinds.min() < 0 or kinds.max() >= config.token_types:
                raise InputError(
                    f"token types must have the ids' shape {tuple(ids.shape)} and lie in 0 … {config.token_types - 1}, "
                    f"but {tuple(kinds.shape)} with {int(kinds.min())} … {int(kinds.max())} was given"
                )
            x = x + self.embed_types(kinds)
        elif token_types is not None and not config.apart:
            raise InputError("this model knows no token types; leave them out")
        if config.position == "learned":
            x = x + self.embed_positions.weight[self._positions(ids, mask, token_types)]
        x = tap("embed", x)
        if config.embed_norm:
            x = self.embed_norm(x)
        if config.dropout:
            x = F.dropout(x, config.dropout, self.training)
        return self.embed_proj(x) if config.embed_width != config.width else x

    def _positions(self, ids: Tensor, mask: Tensor | None, token_types: Tensor | None = None) -> Tensor | slice:
        """The rows of the learned positions, (B, T), or one slice for all texts."""
        offset = self.config.position_offset
        texts = self._texts(ids, mask, token_types)
        if texts is not None:
            return places_apart(texts, mask)[0] + offset
        real = mask
        if offset:  # padding is known by its id, and has the row before the first position
            real = ids != offset - 1 if mask is None else mask & (ids != offset - 1)
        if real is None:
            return slice(0, ids.shape[1])
        return torch.where(real, real.cumsum(1) - 1 + offset, max(offset - 1, 0))

    @property
    def blocks(self) -> list[Block]:
        """The layers, with their type."""
        return [block for block in self.layers if isinstance(block, Block)]

    def tap_names(self) -> list[str]:
        """Every activation name, in the order of computation."""
        summed = self.config.norm_place == "sum"
        attention = [f"attn.{name}" for name in ("q", "k", "v", "scores", "pattern", "z")]
        inside = ["resid_pre", *attention, "attn_out", *["attn_sum"] * summed, "resid_mid"]
        inside += ["mlp.pre", "mlp.post", "mlp_out", *["mlp_sum"] * summed, "resid_post"]
        names = ["embed", *(f"layers.{i}.{name}" for i in range(self.config.layers) for name in inside)]
        names += ["final_norm"] * (not summed)
        if self.head is None:
            return names
        output = "embedding" if self.config.head == "embedding" else "logits"
        return [*names, *(f"head.{name}" for name in self.head.tap_names()), output]
