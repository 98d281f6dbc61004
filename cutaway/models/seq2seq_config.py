"""What an encoder–decoder is made of.

A zero means "derive it", and is replaced by the derived value on construction.
"""

from dataclasses import dataclass
from typing import Literal

from cutaway.errors import ConfigError
from cutaway.models.config_parts import check_most

COUNTS = ("vocab_size", "context", "layers", "width", "heads", "mel_bins", "relative_buckets", "relative_distance")
DERIVED = ("source_context", "encoder_layers", "encoder_heads", "head_dim", "mlp_width", "encoder_mlp_width")


@dataclass(frozen=True)
class Seq2SeqConfig:
    """An encoder–decoder. The defaults are the features of T5 v1.1, so what is trained opens in other tools.

    Raises:
        ConfigError: numbers that do not fit each other; the message names both.
    """

    vocab_size: int  # V, rows of the embedding, which sources and targets share
    context: int = 256  # most tokens of a target; relative positions have no end, so there it is what to expect
    source_context: int = 0  # most tokens of a source (audio: steps after the convolutions); 0: context
    layers: int = 4  # of the decoder
    encoder_layers: int = 0  # 0: as many
    width: int = 256  # C, both residual streams
    heads: int = 4  # H of the decoder
    encoder_heads: int = 0  # 0: as many
    head_dim: int = 0  # D of the decoder; 0: width // heads
    mlp_width: int = 0  # M of the decoder; 0: 4 x width, or 8/3 x width in steps of 32 when gated, which costs the same
    encoder_mlp_width: int = 0  # 0: mlp_width
    source: Literal["text", "audio"] = "text"  # audio: spectrograms through two convolutions
    mel_bins: int = 80  # of a spectrogram; only read for audio
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_eps: float = 1e-6
    norm_plus_one: bool = False  # norms scale by 1 + weight
    norm_place: Literal["before", "sum"] = "before"  # on what each part reads, or on the stream after each addition
    embed_norm: bool = False  # a norm on the sum of the embeddings
    position: Literal["relative", "learned", "sinusoidal", "none"] = "relative"  # relative: a bias on scores
    position_offset: int = 0  # learned: row of the first position
    relative_buckets: int = 32  # distances that have a bias of their own
    relative_distance: int = 128  # from which on all have the same
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"] = "gelu_tanh"
    gated: bool = True  # down(act(gate(x)) * up(x)) instead of down(act(up(x)))
    attention_bias: bool = False  # on q, k, v
    key_bias: bool = True  # on k too, where q and v have one
    output_bias: bool = False  # on o
    mlp_bias: bool = False
    attention_scale: float = 1.0  # scores are queries times keys times this; 0: 1 / sqrt(head_dim)
    embed_scale: float = 1.0  # on the token embedding
    output_scale: float = 1.0  # on what the output matrix reads
    logit_bias: bool = False
    tied: bool = False  # the output matrix is the embedding
    start_id: int = 0  # the token that every target begins with
    dropout: float = 0.0  # on the embeddings and on what each part writes

    kind = "seq2seq"

    def __post_init__(self) -> None:
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, but {getattr(self, name)} was given")
        for name in (*DERIVED, "position_offset"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, but {getattr(self, name)} was given")
        check_most(self)
        fill = object.__setattr__
        fill(self, "source_context", self.source_context or self.context)
        fill(self, "encoder_layers", self.encoder_layers or self.layers)
        fill(self, "encoder_heads", self.encoder_heads or self.heads)
        if not self.head_dim and self.width % self.heads:
            raise ConfigError(
                f"width ({self.width}) is not a multiple of heads ({self.heads}); change one of them or give head_dim"
            )
        fill(self, "head_dim", self.head_dim or self.width // self.heads)
        if self.encoder_heads != self.heads and self.width % self.encoder_heads:
            raise ConfigError(f"width ({self.width}) must be a multiple of encoder_heads ({self.encoder_heads})")
        if not self.mlp_width:
            fill(self, "mlp_width", -(-8 * self.width // 96) * 32 if self.gated else 4 * self.width)
        fill(self, "encoder_mlp_width", self.encoder_mlp_width or self.mlp_width)
        if self.position == "relative":
            self._check_relative()
        if not 0 <= self.start_id < self.vocab_size:
            raise ConfigError(f"start_id must lie in 0 … {self.vocab_size - 1}, but {self.start_id} was given")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), but {self.dropout} was given")

    def _check_relative(self) -> None:
        if (
            self.relative_buckets < 4
            or self.relative_buckets % 2
            or self.relative_distance <= self.relative_buckets // 2
        ):
            raise ConfigError(
                f"relative_buckets ({self.relative_buckets}) must be even and at least 4, and relative_distance "
                f"({self.relative_distance}) larger than half of it"
            )

    @property
    def encoder_head_dim(self) -> int:
        """D of the encoder."""
        return self.head_dim if self.encoder_heads == self.heads else self.width // self.encoder_heads

    @property
    def ends(self) -> bool:
        """Whether there is a last position."""
        return self.position in ("learned", "sinusoidal")

    def source_length(self, given: int) -> int:
        """S, how many states the encoder makes of so many tokens, or frames."""
        return (given + 1) // 2 if self.source == "audio" else given
