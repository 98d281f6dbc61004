"""Qwen 3 (Yang et al. 2025): Llama with norms on queries and keys. What `cutaway train` makes by default."""

from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._decoders import DEFAULTS, KEYS, PREFIXES, RULES, SKIPPED, biases
from cutaway.models.families._family import Family, Keys
from cutaway.models.families._heads import other_heads
from cutaway.models.families._qwen import read_qwen, write_qwen
from cutaway.models.families.qwen2 import WINDOWS


def read(keys: Keys) -> dict[str, Any]:
    """Rotary positions, windows, and biases that one key decides."""
    return read_qwen(keys) | biases(keys)


def write(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    return write_qwen(config) | {"attention_bias": config.attention_bias}


QWEN3 = Family(
    model_type="qwen3",
    source="https://arxiv.org/abs/2505.09388",
    config=DecoderConfig,
    keys=KEYS,
    defaults=DEFAULTS | WINDOWS | {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "head_dim": 128},
    features={"qk_norm": True},
    rules=RULES,
    heads={"Qwen3ForCausalLM": "causal_lm", **other_heads("Qwen3")},
    read=read,
    write=write,
    prefixes=PREFIXES,
    skipped=SKIPPED,
)
