"""Qwen 3 with a mixture of experts in some or all layers (Yang et al. 2025)."""

from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._decoders import (
    DEFAULTS,
    KEYS,
    PREFIXES,
    RULES,
    SKIPPED,
    biases,
    every_layer,
    expert_rules,
    head_dim,
    largest_window,
)
from cutaway.models.families._family import Family, Keys
from cutaway.models.families._heads import other_heads
from cutaway.models.families._rope import read_rope, write_rope


def read(keys: Keys) -> dict[str, Any]:
    """Rotary positions, windows, biases, and which layers have experts."""
    layers, every = keys.whole("num_hidden_layers"), keys.whole("decoder_sparse_step")
    dense = keys.take("mlp_only_layers") or []
    sparse = tuple(i for i in range(layers) if i not in dense and every and (i + 1) % every == 0)
    windows = every_layer(keys) if keys.take("use_sliding_window") else {}
    keys.take("sliding_window")
    experts = keys.take("num_local_experts")  # the newer name
    experts = keys.take("num_experts") if experts is None else experts
    keys.take("num_experts")
    found = (
        {"experts": experts}
        | read_rope(keys, head_dim(keys), keys.whole("max_position_embeddings"))
        | biases(keys)
        | windows
    )
    if not sparse:
        return found | {"experts": 0}
    return found | {"expert_layers": sparse if len(sparse) < layers else ()}


def write(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    window = largest_window(config)
    dense = [i for i in range(config.layers) if not config.has_experts(i)]
    return write_rope(config) | {
        "attention_bias": config.attention_bias,
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "num_experts": config.experts,
        "decoder_sparse_step": 1,
        "mlp_only_layers": dense,
    }


QWEN3_MOE = Family(
    model_type="qwen3_moe",
    source="https://arxiv.org/abs/2505.09388",
    config=DecoderConfig,
    keys=KEYS
    | {
        "num_experts_per_tok": "experts_used",
        "moe_intermediate_size": "expert_width",
        "norm_topk_prob": "expert_weights_sum_to_one",
    },
    defaults=DEFAULTS
    | {
        "max_position_embeddings": 32_768,
        "num_key_value_heads": 4,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "use_sliding_window": False,
        "sliding_window": 4096,
    },
    features={"qk_norm": True},
    rules=(*RULES, *expert_rules("mlp.gate", *(f"mlp.experts.{{e}}.{name}_proj" for name in ("gate", "up", "down")))),
    heads={"Qwen3MoeForCausalLM": "causal_lm", **other_heads("Qwen3Moe")},
    ignored={
        "router_aux_loss_coef": "of training",
        "output_router_logits": "recorded through a tap in Cutaway",
        "max_window_layers": "stated by some configs and read by no implementation",
    },
    read=read,
    write=write,
    prefixes=PREFIXES,
    skipped=SKIPPED,
)
