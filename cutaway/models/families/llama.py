"""Llama (Touvron et al. 2023; Llama 3: Dubey et al. 2024): also SmolLM2, TinyLlama and many more."""

from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._decoders import DEFAULTS, KEYS, PREFIXES, RULES, SKIPPED, biases, head_dim
from cutaway.models.families._family import Family, Keys
from cutaway.models.families._heads import other_heads
from cutaway.models.families._rope import read_rope, write_rope


def read(keys: Keys) -> dict[str, Any]:
    """Rotary positions, and biases that one key decides."""
    return read_rope(keys, head_dim(keys), keys.whole("max_position_embeddings")) | biases(keys)


def write(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    return write_rope(config) | {"attention_bias": config.attention_bias}


LLAMA = Family(
    model_type="llama",
    source="https://arxiv.org/abs/2302.13971",
    config=DecoderConfig,
    keys=KEYS | {"mlp_bias": "mlp_bias"},
    defaults=DEFAULTS | {"max_position_embeddings": 2048, "mlp_bias": False},
    features={"qk_norm": False},
    rules=RULES,
    heads={"LlamaForCausalLM": "causal_lm", **other_heads("Llama")},
    ignored={"is_llama_config": "a mark that some configs carry", "transformers.js_config": "of another program"},
    only={"rope_interleaved": (False, None)},
    read=read,
    write=write,
    prefixes=PREFIXES,
    skipped=SKIPPED,
)
