"""Gemma 3, its text model (Kamath et al. 2025): five layers of six have a window and positions of their own."""

from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._family import Keys
from cutaway.models.families._gemma import gemma, read_gemma, write_gemma
from cutaway.models.families._rope import read_parameters, write_rope


def read(keys: Keys) -> dict[str, Any]:
    """What the Gemmas share, and two kinds of rotary positions."""
    pattern = keys.take("sliding_window_pattern") or keys.take("_sliding_window_pattern") or 6
    keys.take("_sliding_window_pattern")
    found = read_gemma(keys, pattern)
    dim, context = keys.whole("head_dim"), keys.whole("max_position_embeddings")
    stated = keys.take("rope_parameters") or {}
    whole = (
        {"rope_theta": keys.take("rope_theta")}
        | (keys.take("rope_scaling") or {})
        | (stated.get("full_attention") or {})
    )
    local = {"rope_theta": keys.take("rope_local_base_freq")} | (stated.get("sliding_attention") or {})
    near = read_parameters(keys, local, dim, context, 10_000.0)
    if "rotary_scaling" in near:
        raise keys.refuse("rope_parameters", stated, "layers with a window have no scaling in Cutaway")
    found |= read_parameters(keys, whole, dim, context, 1_000_000.0)
    return found | ({"rotary_base_local": near["rotary_base"]} if "windows" in found else {})


def write(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    return write_gemma(config) | write_rope(config) | {"rope_local_base_freq": config.rotary_base_local or None}


GEMMA3 = gemma(
    model_type="gemma3_text",
    source="https://arxiv.org/abs/2503.19786",
    defaults={"max_position_embeddings": 131_072},
    features={"qk_norm": True},
    heads={
        "Gemma3ForCausalLM": "causal_lm",
        "Gemma3TextModel": "none",
        "Gemma3TextForSequenceClassification": "sequence_classification",
    },
    read=read,
    write=write,
)
