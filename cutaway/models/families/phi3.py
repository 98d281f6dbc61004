"""Phi-3 (Abdin et al. 2024): queries, keys and values in one matrix, gate and up in another."""

from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._decoders import DEFAULTS, KEYS, RULES, SKIPPED, every_layer, head_dim, largest_window
from cutaway.models.families._family import Family, Keys, Rule
from cutaway.models.families._heads import other_heads
from cutaway.models.families._layouts import Joined
from cutaway.models.families._rope import read_rope, write_rope

QKV = tuple(f"layers.{{i}}.self_attn.{name}_proj.weight" for name in ("q", "k", "v"))
GATE_UP = ("layers.{i}.mlp.gate_proj.weight", "layers.{i}.mlp.up_proj.weight")
JOINED = (
    Rule(
        "layers.{i}.self_attn.qkv_proj.weight",
        QKV,
        Joined(lambda c: (c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim)),
    ),
    Rule("layers.{i}.mlp.gate_up_proj.weight", GATE_UP, Joined(lambda c: (c.mlp_width, c.mlp_width))),
)


def read(keys: Keys) -> dict[str, Any]:
    """Rotary positions, whose original context has a key of its own, and windows."""
    original, context = keys.whole("original_max_position_embeddings"), keys.whole("max_position_embeddings")
    return read_rope(keys, head_dim(keys), context, original=original) | every_layer(keys)


def write(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    scaling = config.rotary_scaling
    original = scaling.original_context if scaling else config.context
    return write_rope(config) | {
        "sliding_window": largest_window(config),
        "original_max_position_embeddings": original,
    }


PHI3 = Family(
    model_type="phi3",
    source="https://arxiv.org/abs/2404.14219",
    config=DecoderConfig,
    keys=KEYS,
    defaults=DEFAULTS
    | {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
    features={"qk_norm": False},
    rules=(
        *(
            rule
            for rule in RULES
            if not any(part in rule.theirs for part in (".q_proj", ".k_proj", ".v_proj", ".gate_proj", ".up_proj"))
        ),
        *JOINED,
    ),
    heads={"Phi3ForCausalLM": "causal_lm", **other_heads("Phi3", without=("span_extraction",))},
    ignored={"embd_pdrop": "of training", "resid_pdrop": "of training"},
    only={"attention_bias": (False,)},
    read=read,
    write=write,
    skipped=SKIPPED,
)
