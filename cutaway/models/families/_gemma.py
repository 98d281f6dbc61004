"""What Gemma 2 and 3 share: norms on both sides that scale by one more than their weight, windows in most layers."""

from collections.abc import Mapping
from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._decoders import (
    KEYS,
    RULES,
    SKIPPED,
    biases,
    by_layer_types,
    largest_window,
    layer_types,
)
from cutaway.models.families._family import Family, Keys

_KEYS = {key: ours for key, ours in KEYS.items() if key != "hidden_act"} | {"hidden_activation": "activation"}
_DEFAULTS = {
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "head_dim": 256,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_FEATURES = {"norm_plus_one": True, "norm_place": "both"}
_IGNORED = {
    "hidden_act": "hidden_activation is what is read",
    "cache_implementation": "of generation",
}
_ONLY = {"use_bidirectional_attention": (None, False)}


def read_gemma(keys: Keys, pattern: int) -> dict[str, Any]:
    """Scales, caps, windows and biases.

    Args:
        keys: the config.
        pattern: one layer in so many sees all, where the config does not list the kinds.
    """
    layers = keys.whole("num_hidden_layers")
    types = ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(layers)]
    return {
        "embed_scale": keys.whole("hidden_size") ** 0.5,
        "attention_scale": keys.whole("query_pre_attn_scalar") ** -0.5,
        "score_cap": keys.take("attn_logit_softcapping") or 0.0,
        "logit_cap": keys.take("final_logit_softcapping") or 0.0,
        **by_layer_types(keys, types, keys.take("sliding_window")),
        **biases(keys),
    }


def write_gemma(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read_gemma`."""
    return {
        "attention_bias": config.attention_bias,
        "query_pre_attn_scalar": round((config.attention_scale or config.head_dim**-0.5) ** -2),
        "attn_logit_softcapping": config.score_cap or None,
        "final_logit_softcapping": config.logit_cap or None,
        "sliding_window": largest_window(config),
        "layer_types": layer_types(config),
    }


def gemma(*, defaults: Mapping[str, Any], features: Mapping[str, Any], **own: Any) -> Family:
    """A Gemma: what they share, and what is the own of one.

    Args:
        defaults: what leaving a key out means, beside what it means in all.
        features: that it always has, beside those of all.
        own: its further fields of `Family`.
    """
    return Family(
        config=DecoderConfig,
        keys=_KEYS,
        defaults=_DEFAULTS | dict(defaults),
        features=_FEATURES | dict(features),
        rules=RULES,
        ignored=_IGNORED,
        only=_ONLY,
        skipped=SKIPPED,
        **own,
    )
