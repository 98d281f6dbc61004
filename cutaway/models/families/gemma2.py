"""Gemma 2 (Riviere et al. 2024): scores and logits are capped, every other layer has a window."""

from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._family import Keys
from cutaway.models.families._gemma import gemma, read_gemma, write_gemma
from cutaway.models.families._heads import other_heads
from cutaway.models.families._rope import read_rope, write_rope


def read(keys: Keys) -> dict[str, Any]:
    """What the Gemmas share, and rotary positions."""
    return read_gemma(keys, 2) | read_rope(keys, keys.whole("head_dim"), keys.whole("max_position_embeddings"))


def write(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    return write_gemma(config) | write_rope(config)


GEMMA2 = gemma(
    model_type="gemma2",
    source="https://arxiv.org/abs/2408.00118",
    defaults={"max_position_embeddings": 8192, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    features={"qk_norm": False},
    heads={"Gemma2ForCausalLM": "causal_lm", **other_heads("Gemma2", without=("span_extraction",))},
    read=read,
    write=write,
)
