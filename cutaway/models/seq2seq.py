"""An encoder–decoder Transformer: from source and target to logits.

The encoder reads the source, every token seeing every other; the decoder writes the target token by token and reads in
each layer what the encoder made of the source. Their layers are in `seq2seq_layers`.

Parameter names are the decoder's. So are the names of the places that a tap can read or replace; the encoder's stand
under `encoder.`.

Shapes: B batch, T target tokens, S source tokens, C channels, H heads, D head dim, M mel bins, F frames of a
spectrogram, V vocabulary.
"""

import math

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.models.cache import CrossCache, KVCache
from cutaway.models.products import Linear
from cutaway.models.seq2seq_config import Seq2SeqConfig
from cutaway.models.seq2seq_layers import Source, Stack
from cutaway.models.sight import Sight
from cutaway.models.tap import OFF, Tap


class Seq2Seq(nn.Module):
    """A source and the tokens of a target so far, to logits over the target's next token.

    Args:
        config: what it is made of.
    """

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.encoder = Stack(config, decodes=False)
        self.decoder = Stack(config, decodes=True)
        self.lm_head = Linear(config.width, config.vocab_size, bias=config.logit_bias)
        self.restore_ties()
        self.reset_parameters()

    def restore_ties(self) -> None:
        """Make the output matrix the embedding, where the config says so."""
        if self.config.tied and isinstance(self.embed_tokens, nn.Embedding):  # a table kept quantised ties itself
            self.lm_head.weight = self.embed_tokens.weight

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew: normal, 0.5 / sqrt(fan in) for matrices; what writes to the residual starts at zero.

        With zero outputs every block starts as the identity (Zhang et al. 2019, Fixup), as in the decoder. Where scores
        are not divided by sqrt(D), queries are (as in T5).
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight", "relative_bias.weight", "bias")):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(0.0 if self.config.norm_plus_one else 1.0)
            elif ".embed_" in f".{name}":
                parameter.normal_(0.0, 0.02 if self.config.tied else 1.0, generator=generator)
            else:
                fan_in = parameter[0].numel()
                parameter.normal_(0.0, 0.5 / math.sqrt(fan_in), generator=generator)
                if name.endswith("q_proj.weight") and self.config.attention_scale:
                    parameter.mul_(self.config.head_dim**-0.5 / self.config.attention_scale)

    def restore(self) -> None:
        """Tie the output matrix and compute the tables anew, after tensors were assigned in place of the weights."""
        self.restore_ties()
        if self.config.position == "sinusoidal":
            for stack in (self.encoder, self.decoder):
                stack.positions.restore(next(self.parameters()))

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        *,
        source: Shaped[Tensor, "B S"] | Float[Tensor, "B M F"] | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        source_mask: Bool[Tensor, "B S"] | None = None,
        cache: CrossCache | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B T V"]:
        """Logits of the target's next token at every position.

        Args:
            ids: (B, T) int64 of the target so far, `config.start_id` first. With a cache, only those it does not hold.
            source: (B, S) int64, or of audio (B, M, F) spectrograms; left out with a cache, which holds it.
            mask: (B, T) bool, False where a token is padding, which no other token sees and which takes no position.
            source_mask: (B, S) bool, the same of the source; audio has none.
            cache: from `new_cache`; holds these tokens too afterwards.
            tap: reads or replaces activations.

        Returns:
            (B, T, V) in the dtype of the weights. Those of padding mean nothing.

        Raises:
            InputError: more tokens than the context holds, no source, or two.
        """
        return self.read_out(
            self.stream(ids, source=source, mask=mask, source_mask=source_mask, cache=cache, tap=tap), tap
        )

    def read_out(self, x: Float[Tensor, "B T C"], tap: Tap = OFF) -> Float[Tensor, "B T V"]:
        """A residual stream of the decoder (B, T, C), of the last layer or any other, as logits (B, T, V)."""
        return tap("logits", self.lm_head(self.decoder.finish(x, tap) * self.config.output_scale))

    def stream(
        self,
        ids: Int[Tensor, "B T"],
        *,
        source: Shaped[Tensor, "B S"] | Float[Tensor, "B M F"] | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        source_mask: Bool[Tensor, "B S"] | None = None,
        cache: CrossCache | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B T C"]:
        """The decoder's residual stream after the last layer, (B, T, C); `forward` reads the logits out of it."""
        if (source is None) == (cache is None):
            raise InputError(
                "an encoder–decoder writes a target to a source: give the source, or a cache that holds it"
            )
        start, T = cache.length if cache is not None else 0, ids.shape[1]
        self._check_length("a target", start + T, self.config.context)
        if cache is not None:
            sources, mask = cache.sources, cache.own.extend_mask(mask, T)
        else:
            sources = self._sources(self.encode(source, mask=source_mask, tap=tap), source_mask)
        x = self.embed_tokens(ids) * self.config.embed_scale
        sight = Sight(start, T, ids.device, mask)
        x = self.decoder(x, sight, tap, None if cache is None else cache.own, sources)
        if cache is not None:
            cache.own.advance(T)
        return x

    def resume(
        self,
        layer: int,
        x: Float[Tensor, "B T C"],
        *,
        states: Float[Tensor, "B S C"],
        mask: Bool[Tensor, "B T"] | None = None,
        source_mask: Bool[Tensor, "B S"] | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B T C"]:
        """The decoder's residual stream after the last layer, from that before any layer of it (B, T, C).

        Args:
            layer: the first to compute; `config.layers` computes none.
            x: (B, T, C) the residual stream before it.
            states: what the decoder reads of the source, as `encode` or `encode_on` give it.
            mask: as in `forward`.
            source_mask: as in `forward`.
            tap: reads or replaces activations.
        """
        sight = Sight(0, x.shape[1], x.device, mask)
        return self.decoder.resume(layer, x, sight, tap, sources=self._sources(states, source_mask))

    def encode_on(
        self, layer: int, x: Float[Tensor, "B S C"], *, mask: Bool[Tensor, "B S"] | None = None, tap: Tap = OFF
    ) -> Float[Tensor, "B S C"]:
        """What the decoder reads of a source, from the encoder's residual stream before any layer of it (B, S, C)."""
        sight, tap = Sight(0, x.shape[1], x.device, mask, causal=False), tap.at("encoder")
        return self.encoder.finish(self.encoder.resume(layer, x, sight, tap), tap)

    def encode(
        self,
        source: Shaped[Tensor, "B S"] | Float[Tensor, "B M F"] | None,
        *,
        mask: Bool[Tensor, "B S"] | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B S C"]:
        """What the decoder reads of a source: ids (B, S) or spectrograms (B, M, F), to states (B, S, C).

        Raises:
            InputError: a longer source than the context holds, or of another form.
        """
        tap, config = tap.at("encoder"), self.config
        audio = config.source == "audio"
        if source is None or source.ndim != (3 if audio else 2) or source.is_floating_point() != audio:
            wanted = f"spectrograms (texts, {config.mel_bins}, frames)" if audio else "token ids (texts, tokens)"
            given = "nothing" if source is None else f"{str(source.dtype).removeprefix('torch.')} {tuple(source.shape)}"
            raise InputError(f"this model reads {wanted}, but {given} was given")
        if audio:
            if source.shape[1] != config.mel_bins or mask is not None:
                raise InputError(
                    f"this model reads spectrograms of {config.mel_bins} mel bins and no mask, but {source.shape[1]} "
                    f"bins were given{' with a mask' if mask is not None else ''}"
                )
            x = self.encoder.listen(source.to(next(self.parameters()).dtype))
        else:
            x = self.embed_tokens(source) * config.embed_scale
        self._check_length("a source", x.shape[1], config.source_context)
        sight = Sight(0, x.shape[1], source.device, mask, causal=False)
        return self.encoder.finish(self.encoder(x, sight, tap), tap)

    def new_cache(
        self,
        source: Shaped[Tensor, "B S"] | Float[Tensor, "B M F"],
        *,
        mask: Bool[Tensor, "B S"] | None = None,
        capacity: int | None = None,
        tap: Tap = OFF,
    ) -> CrossCache:
        """A cache for targets to these sources, which are read once and here.

        Args:
            source: as in `forward`.
            mask: (B, S) bool, False where a source is padding.
            capacity: most target tokens; None: the context.
            tap: reads or replaces what the encoder computes.
        """
        config, weight = self.config, next(self.parameters())
        shape = (source.shape[0], config.heads, capacity or config.context, config.head_dim)
        own = KVCache(config.layers, shape, dtype=weight.dtype, device=weight.device)
        return CrossCache(own, self._sources(self.encode(source, mask=mask, tap=tap), mask))

    def _sources(self, states: Tensor, mask: Tensor | None) -> list[Source]:
        """Keys, values and mask of each layer's attention to the source."""
        seen = None if mask is None else mask[:, None, None]
        return [(*block.cross_attn.keys_values(states), seen) for block in self.decoder.blocks]

    def _check_length(self, what: str, length: int, most: int) -> None:
        if self.config.ends and length > most:
            raise InputError(f"{what} of {length} tokens was given, but this model takes {most}; shorten or split it")

    def tap_names(self) -> list[str]:
        """Every activation name, in the order of computation."""
        return [*(f"encoder.{name}" for name in self.encoder.tap_names()), *self.decoder.tap_names(), "logits"]
