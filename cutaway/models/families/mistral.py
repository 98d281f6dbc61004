"""Mistral (Jiang et al. 2023): Llama with a sliding window."""

from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._decoders import DEFAULTS, KEYS, RULES, SKIPPED, every_layer, head_dim, largest_window
from cutaway.models.families._family import Family, Keys
from cutaway.models.families._heads import other_heads
from cutaway.models.families._rope import read_rope, write_rope


def read(keys: Keys) -> dict[str, Any]:
    """Rotary positions and windows."""
    return read_rope(keys, head_dim(keys), keys.whole("max_position_embeddings")) | every_layer(keys)


def write(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    return write_rope(config) | {"sliding_window": largest_window(config)}


MISTRAL = Family(
    model_type="mistral",
    source="https://arxiv.org/abs/2310.06825",
    config=DecoderConfig,
    keys=KEYS,
    defaults=DEFAULTS | {"max_position_embeddings": 131_072, "num_key_value_heads": 8, "sliding_window": 4096},
    features={"qk_norm": False},
    rules=RULES,
    heads={"MistralForCausalLM": "causal_lm", **other_heads("Mistral")},
    only={"attention_bias": (False,)},
    read=read,
    write=write,
    skipped=SKIPPED,
)
