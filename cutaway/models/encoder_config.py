"""What an encoder is made of, and what stands on top of it.

A zero means "derive it", and is replaced by the derived value on construction.
"""

from dataclasses import dataclass
from typing import Literal

from cutaway.errors import ConfigError
from cutaway.models.config_parts import RotaryScaling, check_labels, check_most, check_rotary


@dataclass(frozen=True)
class EncoderConfig:
    """A BERT-style encoder. The defaults are the features of ModernBERT, so what is trained opens in other tools.

    Raises:
        ConfigError: numbers that do not fit each other; the message names both.
    """

    vocab_size: int  # V, rows of the embedding
    context: int = 256  # most tokens the model sees at once
    layers: int = 6
    width: int = 384  # C, the residual stream
    heads: int = 6  # H
    head_dim: int = 0  # D; 0: width // heads
    mlp_width: int = 0  # M; 0: 4 x width, or 8/3 x width in steps of 32 when gated, which costs the same
    embed_width: int = 0  # E of the embeddings; 0: width; if another, a matrix leads from one to the other
    token_types: int = 0  # kinds of tokens with an embedding each (BERT's segments); 0: none
    embed_norm: bool = True  # a norm on the sum of the embeddings
    norm_eps: float = 1e-5
    norm_bias: bool = False
    norm_place: Literal["before", "sum"] = "before"  # on what attention and MLP read, or on the stream after each
    first_norm: bool = False  # before: also on what the first attention reads, which embed_norm has normed
    position: Literal["rotary", "learned", "none"] = "rotary"
    position_offset: int = 0  # learned: row of the first position; the id before it is padding, which takes none
    rotary_base: float = 10_000.0  # only read by rotary positions
    rotary_scaling: RotaryScaling | None = None
    rotary_base_local: float = 0.0  # base in layers with a window, without scaling; 0: turned as the others are
    windows: tuple[int, ...] = ()  # of each layer, tokens seen to either side, itself included; 0: all; (): all in all
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"] = "gelu"
    gated: bool = True  # down(act(gate(x)) * up(x)) instead of down(act(up(x)))
    attention_bias: bool = False  # on q, k, v
    output_bias: bool = False  # on o
    mlp_bias: bool = False
    dropout: float = 0.0  # on the embedding and on what each block writes
    tied: bool = True  # masked_lm: the output matrix is the embedding
    pooler: bool = False  # beside the head: a dense layer and tanh over the first token, for `Encoder.pooled`
    next_sentence: bool = False  # and two logits of it, for `Encoder.follows`
    head: Literal[
        "none",
        "masked_lm",
        "sequence_classification",
        "token_classification",
        "span_extraction",
        "replaced_token",
        "embedding",
    ] = "masked_lm"
    labels: tuple[str, ...] = ()  # names of the classes that a classification tells apart
    labelling: Literal["one", "several", "number"] = "one"  # what holds of a text: one label, any of them; or numbers
    head_activation: Literal["none", "silu", "gelu", "gelu_tanh", "relu", "relu2", "tanh"] = "gelu"
    # … after a dense layer that stands before the head's output; none: there is no such layer
    head_norm: bool = True  # a norm after that activation
    head_dense_bias: bool = False  # on the dense layer
    head_bias: bool = True  # on the output
    pooling: Literal["cls", "mean", "max", "last"] = "cls"  # of whole texts: first or last token, or over all real ones
    normalize: bool = False  # embedding: to length 1
    longest: int = 0  # embedding: tokens that a text is cut to, special ones included; 0: the context
    apart: bool = False  # token types 0 and 1 are two texts that do not see each other, of which the head reads both

    kind = "encoder"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "layers", "width", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, but {getattr(self, name)} was given")
        for name in ("head_dim", "mlp_width", "embed_width", "token_types", "position_offset", "longest"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, but {getattr(self, name)} was given")
        check_most(self)
        fill = object.__setattr__
        if not self.head_dim:
            if self.width % self.heads:
                raise ConfigError(
                    f"width ({self.width}) is not a multiple of heads ({self.heads}); "
                    "change one of them or give head_dim"
                )
            fill(self, "head_dim", self.width // self.heads)
        if self.position == "rotary" and self.head_dim % 2:
            raise ConfigError(f"rotary positions turn pairs of numbers, so head_dim ({self.head_dim}) must be even")
        if self.position == "rotary":
            check_rotary(self.rotary_base, self.head_dim // 2, self.context, self.rotary_scaling)
            check_rotary(self.rotary_base_local or 1.0, self.head_dim // 2, self.context, None)
        fill(self, "embed_width", self.embed_width or self.width)
        if self.head in ("none", "embedding"):
            fill(self, "head_activation", "none")
        if self.head_activation == "none":  # then these stand on nothing
            fill(self, "head_norm", False)
            fill(self, "head_dense_bias", False)
        if not self.mlp_width:
            fill(self, "mlp_width", -(-8 * self.width // 96) * 32 if self.gated else 4 * self.width)
        if self.windows and (len(self.windows) != self.layers or min(self.windows) < 0):
            raise ConfigError(
                f"windows holds a number of tokens for each layer, 0 or more, but {len(self.windows)} were given "
                f"for {self.layers} layers: {self.windows}"
            )
        if not any(self.windows):  # then these stand on nothing
            fill(self, "windows", ())
            fill(self, "rotary_base_local", 0.0)
        if self.rotary_base_local == self.rotary_base and self.rotary_scaling is None:
            fill(self, "rotary_base_local", 0.0)
        check_labels(self)
        if self.apart and self.head != "sequence_classification":
            raise ConfigError(f"texts are read apart by a head for sequence_classification, but head is {self.head!r}")
        bare = self.head_activation == "none"
        if self.head == "masked_lm" and self.tied and bare and self.embed_width != self.width:
            raise ConfigError(
                f"an output matrix that is the embedding reads embed_width ({self.embed_width}) channels, not width "
                f"({self.width}); give head_activation, whose dense layer leads from one to the other, or tied=False"
            )
        if self.next_sentence and not self.pooler:
            raise ConfigError("next_sentence reads what the pooler makes; set pooler too")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), but {self.dropout} was given")

    def window(self, layer: int) -> int:
        """How many tokens a query of this layer sees to either side, itself included; 0: all."""
        return self.windows[layer] if self.windows else 0
