"""Gemma 2 (Riviere et al. 2024): scores and logits are capped, every other layer has a window."""

from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._decoders import RULES, SKIPPED
from cutaway.models.families._family import Family, Keys
from cutaway.models.families._gemma import (
    GEMMA_DEFAULTS,
    GEMMA_FEATURES,
    GEMMA_IGNORED,
    GEMMA_KEYS,
    GEMMA_ONLY,
    read_gemma,
    write_gemma,
)
from cutaway.models.families._rope import read_rope, write_rope


def read(keys: Keys) -> dict[str, Any]:
    """What the Gemmas share, and rotary positions."""
    return read_gemma(keys, 2) | read_rope(keys, keys.whole("head_dim"), keys.whole("max_position_embeddings"))


def write(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    return write_gemma(config) | write_rope(config)


GEMMA2 = Family(
    model_type="gemma2",
    source="https://arxiv.org/abs/2408.00118",
    config=DecoderConfig,
    keys=GEMMA_KEYS,
    defaults=GEMMA_DEFAULTS
    | {"max_position_embeddings": 8192, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    features=GEMMA_FEATURES | {"qk_norm": False},
    rules=RULES,
    heads={"Gemma2ForCausalLM": "causal_lm", "Gemma2Model": "none"},
    ignored=GEMMA_IGNORED,
    only=GEMMA_ONLY,
    read=read,
    write=write,
    skipped=SKIPPED,
)
