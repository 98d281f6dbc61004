"""The attentions of a network: a decoder's or encoder's own, and of an encoder–decoder also those between the two.

Shapes: B batch, T queries, S keys, C channels, H query heads, K key/value heads, D head dim, V vocabulary, N tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.record import Recording
from cutaway.models import Decoder, Encoder, Model, Recurrent, Seq2Seq
from cutaway.models.layers import RMSNorm

Part: TypeAlias = Literal["decoder", "encoder", "cross"]


@dataclass(frozen=True)
class Heads:
    """The attention of one part of a network, layer by layer.

    Attributes:
        network: whose it is.
        part: "decoder", "encoder", or "cross": from a decoder to what its encoder has made of the source.
        blocks: the layers.
    """

    network: Decoder | Encoder | Seq2Seq
    part: Part
    blocks: list[Any]

    @property
    def causal(self) -> bool:
        """Whether a query sees only keys that stand before it, and its own."""
        return self.part == "decoder"

    def name(self, layer: int | str, what: str) -> str:
        """The activation of a layer's attention: q, k, v, scores, pattern or z; of layer "*" the pattern for all."""
        inside = "encoder." if self.part == "encoder" and isinstance(self.network, Seq2Seq) else ""
        return f"{inside}layers.{layer}.{'cross_attn' if self.part == 'cross' else 'attn'}.{what}"

    def attention(self, layer: int) -> Any:
        """The module with q_proj, k_proj, v_proj and o_proj."""
        block = self.blocks[layer]
        return block.cross_attn if self.part == "cross" else block.self_attn

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Layers, query heads, key/value heads, and channels of each: L, H, K, D."""
        first = self.attention(0)
        return len(self.blocks), first.heads, getattr(first, "kv_heads", first.heads), first.head_dim

    def check(self, layer: int | None, head: int | None) -> None:
        """Refuse a layer or head that is not there.

        Raises:
            InputError: says which there are.
        """
        layers, heads = self.shape[:2]
        for name, value, count in (("layer", layer, layers), ("head", head, heads)):
            if value is not None and not 0 <= value < count:
                raise InputError(f"{name} {value} is not there: the {self.part} has {name}s 0 … {count - 1}")

    def patterns(self, recording: Recording) -> Float[Tensor, "L H T S"]:
        """Every pattern of a recording's first text, in the dtype of the weights."""
        return torch.stack([recording[self.name(i, "pattern")][0] for i in range(len(self.blocks))])

    def queries(self, recording: Recording) -> list[str]:
        """What the rows of a pattern are, to be read."""
        encodes = self.part == "encoder" and isinstance(self.network, Seq2Seq)
        return recording.source_tokens if encodes else recording.tokens

    def keys(self, recording: Recording) -> list[str] | None:
        """What the columns are where they are not the rows."""
        return recording.source_tokens if self.part == "cross" else None

    # weights

    def norm(self, layer: int, side: Literal["query", "key"] = "query") -> nn.Module | None:
        """What queries, or keys and values, are read from the residual stream through; None: nothing."""
        block = self.blocks[layer]
        if isinstance(self.network, Decoder):
            return block.norms[0]
        if isinstance(self.network, Encoder):
            return block.input_layernorm
        if self.network.config.norm_place == "sum":
            return None
        if self.part == "cross":
            return block.norms["cross_attn"] if side == "query" else self.network.encoder.norm
        return block.norms["attn"]

    def out_norm(self, layer: int) -> nn.Module | None:
        """What heads write through before it is added to the stream; None: nothing."""
        return self.blocks[layer].norms[1] if isinstance(self.network, Decoder) else None

    def reading(self, layer: int, which: Literal["q", "k", "v"], *, folded: bool = True) -> Float[Tensor, "H D C"]:
        """Each query head's matrix from the residual stream, float64; grouped keys and values once for each of theirs.

        Args:
            layer: whose.
            which: queries, keys or values.
            folded: with the scale of the norm before it, and a LayerNorm's centring.
        """
        attention, (_, H, K, D) = self.attention(layer), self.shape
        weight = getattr(attention, f"{which}_proj").weight.detach().double()
        if folded:
            weight = fold(weight, self.norm(layer, "query" if which == "q" else "key"))
        weight = weight.view(-1, D, weight.shape[-1])
        return weight if which == "q" else weight.repeat_interleave(H // K, dim=0)

    def writing(self, layer: int, *, folded: bool = True) -> Float[Tensor, "H C D"]:
        """Each head's matrix into the residual stream, float64; folded: with the scale of a norm behind it."""
        _, H, _, D = self.shape
        weight = self.attention(layer).o_proj.weight.detach().double()
        if folded and (norm := self.out_norm(layer)) is not None:
            weight = fold(weight.T, norm).T
        return weight.view(-1, H, D).transpose(0, 1)

    def alone(self, ids: Int[Tensor, " N"], side: Literal["query", "key"] = "query") -> Float[Tensor, "N C"]:
        """The stream of tokens before the first layer, without positions, float64.

        Raises:
            ConfigError: what is read is sound, which has no tokens.
        """
        network = self.network
        reads_source = self.part == "encoder" or (self.part == "cross" and side == "key")
        if isinstance(network, Seq2Seq) and network.config.source == "audio" and reads_source:
            raise ConfigError("a model that listens reads sound there, which has no tokens; look at its decoder")
        x = network.embed_tokens(ids)
        if isinstance(network, Encoder):
            if network.config.token_types:
                x = x + network.embed_types.weight[0]
            x = network.embed_norm(x) if network.config.embed_norm else x
            return (network.embed_proj(x) if network.config.embed_width != network.config.width else x).double()
        x = x * network.config.embed_scale
        if isinstance(network, Seq2Seq) and network.config.embed_norm:
            x = (network.encoder if reads_source else network.decoder).embed_norm(x)
        return x.double()

    def unembedding(self) -> Float[Tensor, "V C"]:
        """What reads logits from the stream, float64, with the scale of the last norm in it.

        Raises:
            ConfigError: no head that reads tokens, or one with a layer of its own between.
        """
        network, config = self.network, self.network.config
        if isinstance(network, Seq2Seq):
            if self.part == "encoder":
                raise ConfigError(
                    "what the encoder writes is not read as tokens by any matrix; "
                    'copying_scores(model, part="encoder", through="stream") asks about the stream instead'
                )
            norm = network.decoder.norm if config.norm_place == "before" else None
            return fold(network.lm_head.weight.detach().double() * network.config.output_scale, norm)
        if network.config.head not in ("causal_lm", "masked_lm"):
            raise ConfigError(f"a model with a head for {network.config.head} has no matrix that reads tokens")
        if isinstance(network, Encoder) and network.config.head_activation != "none":
            raise ConfigError(
                "this encoder's head puts a dense layer between the stream and its tokens, so no matrix reads one from "
                'the other; copying_scores(model, through="stream") asks about the stream instead'
            )
        norm = network.norm if isinstance(network, Decoder) or config.norm_place == "before" else None
        return fold(network.lm_head.weight.detach().double(), norm)


def heads_of(model: Model, part: str | None = None) -> Heads:
    """The attention of one part; None: a decoder's or an encoder's own, of an encoder–decoder the decoder's own.

    Raises:
        ConfigError: a model without attention, or without that part.
    """
    network = model.network
    if isinstance(network, Recurrent):
        raise ConfigError("a recurrent model has no attention: look at its gates (layers.*.update) instead")
    if isinstance(network, Seq2Seq):
        known = {"decoder": network.decoder, "encoder": network.encoder, "cross": network.decoder}
        blocks = {name: stack.blocks for name, stack in known.items()}
    else:
        blocks = {network.config.kind: network.blocks}
    part = part or next(iter(blocks))
    if part not in blocks:
        name = model.source or "this"
        if part in ("encoder", "decoder", "cross"):
            raise ConfigError(f"{name} is a {next(iter(blocks))} alone and has no part {part!r}; leave part out")
        raise ConfigError(unknown("part", part, blocks))
    if not blocks[part]:
        raise ConfigError(f"{model.source or 'this'} has no layers, and so no attention")
    return Heads(network, part, blocks[part])  # pyright: ignore[reportArgumentType]  # one of the three


def fold(weight: Float[Tensor, "N C"], norm: nn.Module | None) -> Float[Tensor, "N C"]:
    """A matrix that reads through a norm, with the norm's scale in it, and the centring of a LayerNorm."""
    if norm is None or isinstance(norm, nn.Identity):
        return weight
    if isinstance(norm, RMSNorm):
        return weight * norm.scale.detach().double()
    assert isinstance(norm, nn.LayerNorm)
    weight = weight * norm.weight.detach().double()
    return weight - weight.mean(-1, keepdim=True)
