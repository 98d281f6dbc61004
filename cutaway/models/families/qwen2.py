"""Qwen 2 and 2.5 (Yang et al. 2024): Llama with biases on queries, keys and values."""

from cutaway.models.config import DecoderConfig
from cutaway.models.families._decoders import DEFAULTS, KEYS, PREFIXES, RULES, SKIPPED
from cutaway.models.families._family import Family
from cutaway.models.families._heads import other_heads
from cutaway.models.families._qwen import read_qwen, write_qwen

WINDOWS = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}

QWEN2 = Family(
    model_type="qwen2",
    source="https://arxiv.org/abs/2407.10671",
    config=DecoderConfig,
    keys=KEYS,
    defaults=DEFAULTS | WINDOWS | {"max_position_embeddings": 32_768, "num_key_value_heads": 32},
    features={"qk_norm": False, "attention_bias": True},
    rules=RULES,
    heads={"Qwen2ForCausalLM": "causal_lm", **other_heads("Qwen2")},
    read=read_qwen,
    write=write_qwen,
    prefixes=PREFIXES,
    skipped=SKIPPED,
)
