"""What a network is, in small frozen configs: features switch behaviour, an architecture's name never does.

Saved as JSON next to the weights. A zero means "derive it", and is replaced by the derived value on construction, so a
saved config always states every number.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from cutaway.errors import ConfigError, unknown
from cutaway.models.config_parts import RotaryScaling, check_labels, check_most, check_rotary
from cutaway.models.encoder_config import EncoderConfig
from cutaway.models.seq2seq_config import Seq2SeqConfig
from cutaway.settings import build, to_dict


@dataclass(frozen=True)
class DecoderConfig:
    """A GPT-style decoder. The defaults are the features of Qwen3, so what is trained opens in other tools.

    Raises:
        ConfigError: numbers that do not fit each other; the message names both.
    """

    vocab_size: int  # rows of the embedding
    context: int = 256  # most tokens the model sees at once
    layers: int = 6  # 0: the embedding is read as it is, so that each token's next depends on it alone
    width: int = 384  # C, the residual stream
    heads: int = 6  # H, query heads
    kv_heads: int = 0  # key/value heads; 0: as many as query heads (fewer: grouped-query attention)
    head_dim: int = 0  # D; 0: width // heads
    mlp: bool = True  # whether layers have one; without, a layer is attention alone
    mlp_width: int = 0  # 0: 4 x width, or 8/3 x width in steps of 32 when gated, which costs the same
    norm: Literal["rmsnorm", "layernorm", "none"] = "rmsnorm"
    norm_eps: float = 1e-6
    norm_plus_one: bool = False  # norms scale by 1 + weight
    norm_place: Literal["before", "after", "both"] = "before"  # of attention and MLP: on what they read, or write
    parallel: bool = False  # the MLP reads what the attention reads, not what it has written
    position: Literal["rotary", "learned", "sinusoidal", "none"] = "rotary"
    rotary_base: float = 10_000.0  # only read by rotary positions
    rotary_dim: int = 0  # channels of each head that are turned; 0: all
    rotary_scaling: RotaryScaling | None = None
    rotary_base_local: float = 0.0  # base in layers with a window, without scaling; 0: turned as the others are
    windows: tuple[int, ...] = ()  # of each layer, tokens that a query sees, itself included; 0: all; (): all in all
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"] = "silu"
    gated: bool = True  # down(act(gate(x)) * up(x)) instead of down(act(up(x)))
    attention_bias: bool = False  # on q, k, v
    output_bias: bool = False  # on o
    mlp_bias: bool = False
    qk_norm: bool = True  # RMSNorm over each query and key head before the rotation
    qk_norm_joint: bool = False  # over all query heads together, and all key heads
    attention_scale: float = 0.0  # scores are queries times keys times this; 0: 1 / sqrt(head_dim)
    score_cap: float = 0.0  # scores become cap · tanh(scores / cap); 0: they stay
    logit_cap: float = 0.0  # and the logits
    embed_scale: float = 1.0  # on the token embedding
    experts: int = 0  # MLPs beside each other, of which each token uses some; 0: one MLP
    experts_used: int = 0  # by each token
    expert_width: int = 0  # M of each expert; 0: mlp_width
    expert_layers: tuple[int, ...] = ()  # which layers have experts; (): all
    expert_weights_sum_to_one: bool = True  # of the experts used, or of all
    tied: bool = True  # causal_lm: the output matrix is the embedding
    dropout: float = 0.0  # on the embedding and on what each block writes
    head: Literal[
        "causal_lm", "none", "sequence_classification", "token_classification", "span_extraction", "embedding"
    ] = "causal_lm"
    labels: tuple[str, ...] = ()  # names of the classes that a classification tells apart
    labelling: Literal["one", "several", "number"] = "one"  # what holds of a text: one label, any of them; or numbers
    pooling: Literal["last", "cls", "mean", "max"] = (
        "last"  # of whole texts: last or first token, or over all real ones
    )
    normalize: bool = False  # embedding: to length 1
    longest: int = 0  # embedding: tokens that a text is cut to, special ones included; 0: the context

    kind = "decoder"
    head_activation: ClassVar[Literal["none"]] = "none"  # no dense layer stands before a head's output, as in encoders

    def __post_init__(self) -> None:
        for name, least in {"vocab_size": 1, "context": 1, "layers": 0, "width": 1, "heads": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, but {getattr(self, name)} was given")
        check_most(self)
        fill = object.__setattr__
        fill(self, "kv_heads", self.kv_heads or self.heads)
        if self.kv_heads < 0 or self.heads % self.kv_heads:
            raise ConfigError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if not self.head_dim:
            if self.width % self.heads:
                raise ConfigError(
                    f"width ({self.width}) is not a multiple of heads ({self.heads}); "
                    "change one of them or give head_dim"
                )
            fill(self, "head_dim", self.width // self.heads)
        fill(self, "rotary_dim", self.rotary_dim or self.head_dim)
        if self.position == "rotary" and (self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim):
            raise ConfigError(
                f"rotary positions turn pairs of numbers, so rotary_dim ({self.rotary_dim}) must be even "
                f"and at most head_dim ({self.head_dim})"
            )
        if self.position == "rotary":
            check_rotary(self.rotary_base, self.rotary_dim // 2, self.context, self.rotary_scaling)
        self._check_parts()
        if self.mlp and not self.mlp_width:
            fill(self, "mlp_width", -(-8 * self.width // 96) * 32 if self.gated else 4 * self.width)
        for name in ("head_dim", "mlp_width", "experts", "expert_width", "longest"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, but {getattr(self, name)} was given")
        if self.windows and (len(self.windows) != self.layers or min(self.windows) < 0):
            raise ConfigError(
                f"windows holds a number of tokens for each layer, 0 or more, but {len(self.windows)} were given "
                f"for {self.layers} layers: {self.windows}"
            )
        if self.experts:
            fill(self, "expert_width", self.expert_width or self.mlp_width)
            if not 1 <= self.experts_used <= self.experts:
                raise ConfigError(f"experts_used must lie in 1 … experts ({self.experts}), not {self.experts_used}")
            if not set(self.expert_layers) <= set(range(self.layers)):
                raise ConfigError(f"expert_layers must be numbers of layers, 0 … {self.layers - 1}")
        if self.head != "causal_lm":  # then it caps nothing
            fill(self, "logit_cap", 0.0)
        check_labels(self)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), but {self.dropout} was given")

    def _check_parts(self) -> None:
        """Refuse features of an MLP, or of norms, where there are none."""
        of_mlp = ("mlp_width", "mlp_bias", "parallel", "experts")
        of_norm = ("norm_plus_one", *["norm_place"] * (self.norm_place != "before"))
        for missing, names in (
            ("mlp=False", of_mlp * (not self.mlp)),
            ("norm='none'", of_norm * (self.norm == "none")),
        ):
            if given := [name for name in names if getattr(self, name)]:
                raise ConfigError(f"{missing} leaves nothing for {', '.join(given)} to describe; leave it out")

    @property
    def head_bias(self) -> bool:
        """Whether a bias is added to a head's logits: to all but those of whole texts."""
        return self.head != "sequence_classification"

    def window(self, layer: int) -> int:
        """How many tokens a query of this layer sees, itself included; 0: all."""
        return self.windows[layer] if self.windows else 0

    def has_experts(self, layer: int) -> bool:
        """Whether this layer's MLP is one of experts."""
        return self.experts > 0 and (not self.expert_layers or layer in self.expert_layers)


@dataclass(frozen=True)
class RecurrentConfig:
    """A recurrent network: GRU (Cho et al. 2014) or LSTM (Hochreiter & Schmidhuber 1997).

    Raises:
        ConfigError: numbers that do not fit each other; the message names both.
    """

    vocab_size: int
    context: int = 256  # tokens per training window; the state itself has no limit
    layers: int = 1
    width: int = 256  # C, the embedding
    hidden: int = 1024  # units of each layer
    cell: Literal["gru", "lstm"] = "gru"
    tied: bool = False  # causal_lm: the output matrix is the embedding (then hidden must equal width)
    dropout: float = 0.0  # on the embedding, between layers and on what the output is computed from
    bidirectional: bool = False  # each layer has a second state, which reads from the end; not for causal_lm
    head: Literal[
        "causal_lm", "none", "sequence_classification", "token_classification", "span_extraction", "embedding"
    ] = "causal_lm"
    labels: tuple[str, ...] = ()  # names of the classes that a classification tells apart
    labelling: Literal["one", "several", "number"] = "one"  # what holds of a text: one label, any of them; or numbers
    pooling: Literal["last", "cls", "mean", "max"] = "last"  # of whole texts, over real tokens, as in decoders
    normalize: bool = False  # embedding: to length 1
    longest: int = 0  # embedding: tokens that a text is cut to, special ones included; 0: the context

    kind = "recurrent"
    head_activation: ClassVar[Literal["none"]] = "none"  # no dense layer stands before a head's output, as in encoders
    head_bias: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "layers", "width", "hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, but {getattr(self, name)} was given")
        check_most(self)
        if self.longest < 0:
            raise ConfigError(f"longest must not be negative, but {self.longest} was given")
        if self.tied and self.hidden != self.width:
            raise ConfigError(f"a tied output needs hidden ({self.hidden}) equal to width ({self.width})")
        if self.bidirectional and self.head == "causal_lm":
            raise ConfigError(
                "a state that reads from the end has seen the tokens that a causal_lm predicts; leave bidirectional "
                "out, or give another head"
            )
        check_labels(self)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), but {self.dropout} was given")

    @property
    def states(self) -> int:
        """Numbers that a layer makes of each token."""
        return self.hidden * (1 + self.bidirectional)


NetworkConfig: TypeAlias = DecoderConfig | EncoderConfig | Seq2SeqConfig | RecurrentConfig

CONFIGS: dict[str, type[NetworkConfig]] = {
    "decoder": DecoderConfig,
    "encoder": EncoderConfig,
    "seq2seq": Seq2SeqConfig,
    "recurrent": RecurrentConfig,
}


def config_from_dict(values: dict[str, Any], *, where: str = "") -> NetworkConfig:
    """The config that `config_to_dict` wrote.

    Raises:
        ConfigError: an unknown kind or key, or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"the config of a network{f' in {where}' if where else ''} must be a table, not {values!r}")
    values = dict(values)
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in CONFIGS:
        raise ConfigError(unknown("kind of network", str(kind), CONFIGS))
    return build(CONFIGS[kind], values, where=where)


def config_to_dict(config: NetworkConfig) -> dict[str, Any]:
    """Plain data with the network's kind first."""
    return {"kind": config.kind, **to_dict(config)}


def network_of_size(kind: str, depth: int, vocab_size: int, *, context: int = 256, **features: Any) -> NetworkConfig:
    """A network from one size dial: `depth` layers, 64 channels per layer, heads of 64 channels.

    The fixed ratio of width to depth follows nanochat's dial (github.com/karpathy/nanochat); depth 6 is the 10 M
    "baby GPT". `features` override any other field of the kind's config.

    Raises:
        ConfigError: an unknown kind or field, or no layers.
    """
    if kind not in CONFIGS:
        raise ConfigError(unknown("kind of network", kind, CONFIGS))
    if depth < 1:
        raise ConfigError(f"the size dial counts layers and must be at least 1, but {depth} was given")
    sizes = {"layers": depth, "width": 64 * depth, "heads": depth}
    return build(CONFIGS[kind], {"vocab_size": vocab_size, "context": context, **sizes, **features})


def decoder_of_size(depth: int, vocab_size: int, *, context: int = 256, **features: Any) -> DecoderConfig:
    """A decoder from one size dial, as `network_of_size` makes it."""
    network = network_of_size("decoder", depth, vocab_size, context=context, **features)
    assert isinstance(network, DecoderConfig)
    return network


PRESETS: dict[str, NetworkConfig] = {
    # the textbook recurrent model: 10,000 words, 256 numbers a word, 1,024 units
    "gru-classic": RecurrentConfig(vocab_size=10_000, width=256, hidden=1024),
}
