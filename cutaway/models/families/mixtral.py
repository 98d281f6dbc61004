"""Mixtral (Jiang et al. 2024): Mistral with a mixture of experts in every layer."""

from cutaway.models.config import DecoderConfig
from cutaway.models.families._decoders import DEFAULTS, KEYS, RULES, SKIPPED, expert_rules
from cutaway.models.families._family import Family
from cutaway.models.families._heads import other_heads
from cutaway.models.families.mistral import read as read_mistral
from cutaway.models.families.mistral import write as write_mistral

MIXTRAL = Family(
    model_type="mixtral",
    source="https://arxiv.org/abs/2401.04088",
    config=DecoderConfig,
    keys=KEYS | {"num_local_experts": "experts", "num_experts_per_tok": "experts_used"},
    defaults=DEFAULTS
    | {
        "max_position_embeddings": 131_072,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    features={"qk_norm": False, "expert_weights_sum_to_one": True},
    rules=(
        *RULES,
        *expert_rules(
            "block_sparse_moe.gate", *(f"block_sparse_moe.experts.{{e}}.{name}" for name in ("w1", "w3", "w2"))
        ),
    ),
    heads={"MixtralForCausalLM": "causal_lm", **other_heads("Mixtral")},
    ignored={
        "router_aux_loss_coef": "of training",
        "router_jitter_noise": "of training",
        "output_router_logits": "recorded through a tap in Cutaway",
    },
    only={"attention_bias": (False,)},
    read=read_mistral,
    write=write_mistral,
    skipped=SKIPPED,
)
