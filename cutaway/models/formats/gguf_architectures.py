"""Architectures as GGUF files spell them: metadata keys and tensor names, plain data that is read in both directions.

The spelling is that of llama.cpp: gguf-py/gguf/constants.py, conversion/ for how published weights are laid out there,
and src/models/ for what the metadata leaves unsaid, which are the defaults and features below.

Shapes: H heads, D head dim, C channels.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isclose
from typing import Any

from torch import Tensor

from cutaway.models.config import DecoderConfig, NetworkConfig
from cutaway.models.families import Family, Keys, Rule
from cutaway.models.families._layouts import SAME, Joined, Layout
from cutaway.models.formats.gguf_rope import FACTORS, read_rope, read_windows, same_rope, write_rope, write_windows

SIZES = {
    "vocab_size": "vocab_size",
    "context_length": "context",
    "embedding_length": "width",
    "block_count": "layers",
    "feed_forward_length": "mlp_width",
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv_heads",
}
RMS, LAYER = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
IGNORED = {
    "rope.scaling.finetuned": "of training",
    "tensor_data_layout": "says again what the architecture says",
}
OUTPUT = "output.weight"


@dataclass(frozen=True)
class PairedRows(Layout):
    """Rows (H · D, …) in which the channels that rotary positions turn together lie beside each other.

    Ours, as Hugging Face's, lie half a head apart.

    Attributes:
        heads: H.
    """

    heads: Callable[[Any], int]

    def into(self, theirs: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        return [rows.unflatten(0, (self.heads(config), -1, 2)).transpose(1, 2).flatten(0, 2) for rows in theirs]

    def back(self, ours: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        return [rows.unflatten(0, (self.heads(config), 2, -1)).transpose(1, 2).flatten(0, 2) for rows in ours]


class OneMore(Layout):
    """The scale of a norm whose weight is one less; exact in float32 both ways, whatever became of it once."""

    def into(self, theirs: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        return [scale - 1 for scale in theirs]

    def back(self, ours: Sequence[Tensor], config: Any) -> Sequence[Tensor]:
        return [weight.float() + 1 for weight in ours]


QUERIES, KEYS = PairedRows(lambda c: c.heads), PairedRows(lambda c: c.kv_heads)
QKV = Joined(lambda c: (c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim))
GATE_UP = Joined(lambda c: (c.mlp_width, c.mlp_width))


@dataclass(frozen=True)
class Architecture(Family):
    """One of llama.cpp's; `model_type` is its general.architecture.

    Attributes:
        needed: keys without which nothing is computed.
        own_output: whether llama.cpp asks for the output matrix even where it is the embedding.
    """

    needed: tuple[str, ...] = ()
    own_output: bool = False
    prefix: str = field(default="")

    def comparable(self, config: NetworkConfig) -> NetworkConfig:
        if not isinstance(config, DecoderConfig):
            return config
        usual = isclose(config.attention_scale or config.head_dim**-0.5, config.head_dim**-0.5, rel_tol=1e-9)
        if not config.experts:
            config = replace(config, experts_used=0, expert_width=0, expert_layers=(), expert_weights_sum_to_one=True)
        return same_rope(replace(config, attention_scale=0.0) if usual else config)


def _head_dim(keys: Keys) -> int:
    dim = keys.take("attention.key_length") or keys.whole("embedding_length") // max(
        1, keys.whole("attention.head_count")
    )
    if (other := keys.take("attention.value_length", dim)) != dim:
        raise keys.refuse("attention.value_length", other, f"it can be that of the keys, {dim}")
    return dim


def _experts(keys: Keys) -> dict[str, Any]:
    experts, used = keys.take("expert_count") or 0, keys.take("expert_used_count") or 0
    return {"experts": experts, "experts_used": used} if experts else {}


def _write_experts(config: DecoderConfig) -> dict[str, Any]:
    return {"expert_count": config.experts, "expert_used_count": config.experts_used} if config.experts else {}


def _read(keys: Keys) -> dict[str, Any]:
    """The head's size and rotary positions."""
    dim = _head_dim(keys)
    return {"head_dim": dim} | read_rope(keys, dim, keys.whole("context_length"))


def _write(config: DecoderConfig) -> dict[str, Any]:
    return write_rope(config) | {
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
    }


def _read_llama(keys: Keys) -> dict[str, Any]:
    found = _read(keys) | _experts(keys)
    if found["rotary_dim"] != found["head_dim"]:
        raise keys.refuse(
            "rope.dimension_count", found["rotary_dim"], f"it can be the head's size, {found['head_dim']}"
        )
    return found


def _read_moe(keys: Keys) -> dict[str, Any]:
    found = _read(keys) | _experts(keys)
    width = keys.take("expert_feed_forward_length")
    return found | {"expert_width": width or keys.whole("feed_forward_length") // max(1, found.get("experts_used", 1))}


def _read_windowed(pattern: int, *, always: bool = False) -> Callable[[Keys], dict[str, Any]]:
    """Windows too; `always` with a base of rotary positions of their own, 10,000 where none is stated."""

    def read(keys: Keys) -> dict[str, Any]:
        found = _read(keys) | read_windows(keys, keys.whole("block_count"), pattern)
        if found.get("windows") and "rotary_base_local" not in found:
            if always:
                found["rotary_base_local"] = 10_000.0
            elif "rotary_scaling" in found:
                found["rotary_base_local"] = found["rotary_base"]  # layers with a window are not stretched
        return found

    return read


def _write_windowed(pattern: int) -> Callable[[DecoderConfig], dict[str, Any]]:
    return lambda config: _write(config) | write_windows(config, pattern)


def _read_gemma(pattern: int, large: int, *, own_base: bool) -> Callable[[Keys], dict[str, Any]]:
    """A Gemma's: scaled embedding, caps, windows.

    Args:
        pattern: one layer in so many sees all.
        large: the number of layers of the one model that divides its scores by another size.
        own_base: whether layers with a window have rotary positions of their own.
    """
    windowed = _read_windowed(pattern, always=own_base)

    def read(keys: Keys) -> dict[str, Any]:
        found, width = windowed(keys), keys.whole("embedding_length")
        per_head = width // max(1, keys.whole("attention.head_count"))
        scored = per_head if keys.whole("block_count") == large else found["head_dim"]
        found |= {"embed_scale": width**0.5, "attention_scale": max(1, scored) ** -0.5}
        return found | {
            "score_cap": keys.take("attn_logit_softcapping"),
            "logit_cap": keys.take("final_logit_softcapping"),
        }

    return read


def _write_gemma(pattern: int, *, scores: bool) -> Callable[[DecoderConfig], dict[str, Any]]:
    def write(config: DecoderConfig) -> dict[str, Any]:
        caps = {"attn_logit_softcapping": config.score_cap} if scores else {}
        caps |= {"final_logit_softcapping": config.logit_cap}
        return _write_windowed(pattern)(config) | {key: cap for key, cap in caps.items() if cap}

    return write


def _read_phi3(keys: Keys) -> dict[str, Any]:
    """One window for all layers, as transformers computes it; llama.cpp leaves it out."""
    window = keys.take("attention.sliding_window")
    return _read(keys) | ({"windows": [window] * keys.whole("block_count")} if window else {})


def _write_phi3(config: DecoderConfig) -> dict[str, Any]:
    original = config.rotary_scaling.original_context if config.rotary_scaling else 0
    written = {"rope.scaling.original_context_length": original or config.context} | _write(config)
    return written | {"attention.sliding_window": max(config.windows, default=0)}


def _read_gpt2(keys: Keys) -> dict[str, Any]:
    return {"head_dim": _head_dim(keys)}


def _named(name: str) -> Callable[[Any, Collection[str]], bool]:
    return lambda _, names: name in names


def _tied(_: Any, names: Collection[str]) -> bool:
    return OUTPUT not in names


def _rules(names: Mapping[str, str], layouts: Mapping[str, Layout] | None = None) -> tuple[Rule, ...]:
    """Weight and bias of each name, with the layouts that some have."""
    return tuple(Rule(f"{theirs}.*", f"{ours}.*", (layouts or {}).get(theirs, SAME)) for theirs, ours in names.items())


LAYER_OF, ATTENTION, MLP = "layers.{i}", "layers.{i}.self_attn", "layers.{i}.mlp"
ENDS = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head"}
SEPARATE = {
    "blk.{i}.attn_q": f"{ATTENTION}.q_proj",
    "blk.{i}.attn_k": f"{ATTENTION}.k_proj",
    "blk.{i}.attn_v": f"{ATTENTION}.v_proj",
}
JOINED = Rule("blk.{i}.attn_qkv.*", tuple(f"{ATTENTION}.{name}_proj.*" for name in "qkv"), QKV)
REST = {
    "blk.{i}.attn_output": f"{ATTENTION}.o_proj",
    "blk.{i}.ffn_gate": f"{MLP}.gate_proj",
    "blk.{i}.ffn_up": f"{MLP}.up_proj",
    "blk.{i}.ffn_down": f"{MLP}.down_proj",
}
NORMS = {"blk.{i}.attn_norm": f"{LAYER_OF}.input_layernorm", "blk.{i}.ffn_norm": f"{LAYER_OF}.post_attention_layernorm"}
HEAD_NORMS = {"blk.{i}.attn_q_norm": f"{ATTENTION}.q_norm", "blk.{i}.attn_k_norm": f"{ATTENTION}.k_norm"}
POST_NORMS = {
    "blk.{i}.post_attention_norm": f"{LAYER_OF}.post_attention_layernorm",
    "blk.{i}.post_ffw_norm": f"{LAYER_OF}.post_feedforward_layernorm",
}
EXPERT_RULES = (
    Rule("blk.{i}.ffn_gate_inp.weight", f"{MLP}.router.weight"),
    *(Rule(f"blk.{{i}}.ffn_{name}_exps.weight", f"{MLP}.{name}_proj") for name in ("gate", "up", "down")),
)
BASE = ENDS | SEPARATE | REST | NORMS


def _architecture(name: str, source: str, rules: Sequence[Rule], **own: Any) -> Architecture:
    """One, with what nearly all share."""
    keys, norm = own.pop("keys", {}), own.pop("norm", RMS)
    needed = [key for key in SIZES if key not in ("vocab_size", "attention.head_count_kv")]
    given: dict[str, Any] = {
        "config": DecoderConfig,
        "heads": {},
        "keys": {**SIZES, norm: "norm_eps", **keys},
        "needed": (*needed, norm),
        "read": _read,
        "write": _write,
        "ignored": IGNORED,
        "only": {"attention.causal": (True, None)},
        "outside": (),
    }
    by_tensors = ({} if "tied" in own.get("features", {}) else {"tied": _tied}) | own.pop("by_tensors", {})
    return Architecture(name, source, rules=tuple(rules), by_tensors=by_tensors, **given | own)


def _gemma(name: str, source: str, pattern: int, large: int, *, scores: bool, **own: Any) -> Architecture:
    names = ENDS | SEPARATE | REST | POST_NORMS | (HEAD_NORMS if not scores else {})
    names |= {"blk.{i}.attn_norm": f"{LAYER_OF}.input_layernorm"}
    names |= {"blk.{i}.ffn_norm": f"{LAYER_OF}.pre_feedforward_layernorm"}
    return _architecture(
        name,
        source,
        _rules(names, {theirs: OneMore() for theirs in names if theirs.endswith("_norm")}),
        features={
            "norm_plus_one": True,
            "norm_place": "both",
            "activation": "gelu_tanh",
            "qk_norm": not scores,
        }
        | ({"tied": True} if scores else {}),
        read=_read_gemma(pattern, large, own_base=not scores),
        write=_write_gemma(pattern, scores=scores),
        **own,
    )


_BIASED = {"attention_bias": _named("blk.0.attn_q.bias")}
_LAYERNORM = {"norm": "layernorm", "gated": False, "qk_norm": False, "mlp_bias": True}

# in the order in which an export looks for one that can express a network
ARCHITECTURES: dict[str, Architecture] = {
    made.model_type: made
    for made in (
        _architecture(
            "qwen3",
            "https://arxiv.org/abs/2505.09388",
            _rules(BASE | HEAD_NORMS),
            features={"qk_norm": True},
            by_tensors=_BIASED,
        ),
        _architecture(
            "qwen2",
            "https://arxiv.org/abs/2407.10671",
            _rules(BASE),
            features={"qk_norm": False, "attention_bias": True},
        ),
        _architecture(  # also Mistral and Mixtral
            "llama",
            "https://arxiv.org/abs/2302.13971",
            (*_rules(BASE, {"blk.{i}.attn_q": QUERIES, "blk.{i}.attn_k": KEYS}), *EXPERT_RULES),
            features={"qk_norm": False},
            by_tensors=_BIASED
            | {"output_bias": _named("blk.0.attn_output.bias"), "mlp_bias": _named("blk.0.ffn_down.bias")},
            read=_read_llama,
            write=lambda config: _write(config) | _write_experts(config),
        ),
        _architecture(
            "qwen3moe",
            "https://arxiv.org/abs/2505.09388",
            (*_rules(BASE | HEAD_NORMS), *EXPERT_RULES),
            features={"qk_norm": True},
            by_tensors=_BIASED,
            read=_read_moe,
            write=lambda config: (
                _write(config) | _write_experts(config) | {"expert_feed_forward_length": config.expert_width or None}
            ),
        ),
        _architecture(
            "phi3",
            "https://arxiv.org/abs/2404.14219",
            (
                *_rules(ENDS | NORMS),
                JOINED,
                Rule("blk.{i}.ffn_up.weight", (f"{MLP}.gate_proj.weight", f"{MLP}.up_proj.weight"), GATE_UP),
                *_rules({theirs: ours for theirs, ours in REST.items() if theirs.endswith(("output", "down"))}),
            ),
            features={"qk_norm": False},
            read=_read_phi3,
            write=_write_phi3,
        ),
        _architecture(
            "olmo2",
            "https://arxiv.org/abs/2501.00656",
            _rules(ENDS | SEPARATE | REST | HEAD_NORMS | POST_NORMS),
            features={"qk_norm": True, "qk_norm_joint": True, "norm_place": "after"},
            read=_read_windowed(4),
            write=_write_windowed(4),
            own_output=True,
        ),
        _architecture(
            "gpt2",
            "https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf",
            (
                Rule("position_embd.weight", "embed_positions.weight"),
                *_rules(ENDS | NORMS),
                JOINED,
                *_rules({theirs: ours for theirs, ours in REST.items() if not theirs.endswith("gate")}),
            ),
            norm=LAYER,
            features=_LAYERNORM
            | {"position": "learned", "activation": "gelu_tanh", "attention_bias": True, "output_bias": True},
            read=_read_gpt2,
            write=lambda config: {},
        ),
        _architecture(
            "gptneox",
            "https://arxiv.org/abs/2204.06745",
            (
                *_rules(ENDS | NORMS),
                JOINED,
                *_rules({theirs: ours for theirs, ours in REST.items() if not theirs.endswith("gate")}),
            ),
            norm=LAYER,
            keys={"use_parallel_residual": "parallel"},
            defaults={"use_parallel_residual": True},
            # as the published models and transformers have it; llama.cpp computes the tanh formula
            features=_LAYERNORM | {"activation": "gelu"},
            by_tensors={
                "attention_bias": _named("blk.0.attn_qkv.bias"),
                "output_bias": _named("blk.0.attn_output.bias"),
            },
            own_output=True,
        ),
        _gemma(
            "gemma2",
            "https://arxiv.org/abs/2408.00118",
            2,
            46,
            scores=True,
            defaults={
                "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0,
                "attention.sliding_window": 4096,
            },
        ),
        _gemma(
            "gemma3",
            "https://arxiv.org/abs/2503.19786",
            6,
            62,
            scores=False,
            defaults={"attn_logit_softcapping": 0.0, "final_logit_softcapping": 0.0},
        ),
    )
}
FACTS = (*FACTORS, "vocab_size")  # what a file says through its tensors
