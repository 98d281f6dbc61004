"""Rotary positions as configs spell them: `rope_parameters`, or before that `rope_theta` and `rope_scaling`."""

import math
from collections.abc import Mapping
from typing import Any

from cutaway.models.config import DecoderConfig, EncoderConfig
from cutaway.models.families._family import Keys

NAMES = {  # in rope_parameters -> in RotaryScaling
    "factor": "factor",
    "original_max_position_embeddings": "original_context",
    "attention_factor": "attention_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "truncate": "truncate",
    "low_freq_factor": "low_factor",
    "high_freq_factor": "high_factor",
    "short_factor": "short",
    "long_factor": "long",
}
USED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", "original_context", "attention_factor", "beta_fast", "beta_slow", "truncate"),
    "llama3": ("factor", "original_context", "low_factor", "high_factor"),
    "longrope": ("factor", "original_context", "attention_factor", "short", "long"),
}
OLD_KINDS = {"su": "longrope", "mrope": "mrope"}


def read_rope(
    keys: Keys, head_dim: int, context: int, *, base: float = 10_000.0, share: float = 1.0, original: int | None = None
) -> dict[str, Any]:
    """The fields of DecoderConfig about rotary positions.

    Args:
        keys: the config.
        head_dim: D.
        context: most tokens.
        base: where the config states none.
        share: of each head's channels that are turned, where the config states none.
        original: the context before stretching, where the config has a key of its own for it.

    Raises:
        ConfigError: a kind or key of scaling that is not supported.
    """
    old = {"rope_theta": keys.take("rope_theta"), "partial_rotary_factor": keys.take("partial_rotary_factor")}
    scaling = keys.take("rope_scaling")
    parameters = keys.take("rope_parameters")
    if not isinstance(scaling or parameters or {}, Mapping):
        raise keys.refuse("rope_parameters", scaling or parameters, "it states each parameter by its name")
    stated = {k: v for k, v in old.items() if v is not None} | dict(scaling or parameters or {})
    if original is not None and stated.get("rope_type", stated.get("type", "default")) != "default":
        stated["original_max_position_embeddings"] = original
    return read_parameters(keys, stated, head_dim, context, base, share)


def read_parameters(
    keys: Keys, stated: Mapping[str, Any], head_dim: int, context: int, base: float, share: float = 1.0
) -> dict[str, Any]:
    """The same from one dict of parameters."""
    if not isinstance(stated, Mapping):
        raise keys.refuse("rope_parameters", stated, "it states each parameter by its name")
    values = {key: value for key, value in stated.items() if value is not None}
    base, share = values.pop("rope_theta", base), values.pop("partial_rotary_factor", share)
    for name, value in (("rope_theta", base), ("partial_rotary_factor", share)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise keys.refuse(name, value, "it is a number above 0")
    kind = values.pop("rope_type", values.pop("type", "default"))
    values.pop("type", None)
    if not isinstance(kind, str):
        raise keys.refuse("rope_parameters", dict(stated), "its rope_type is a name")
    kind = OLD_KINDS.get(kind, kind)
    found: dict[str, Any] = {"rotary_base": float(base), "rotary_dim": int(head_dim * share)}
    if kind == "default":
        if values:
            raise keys.refuse("rope_parameters", dict(stated), f"{', '.join(values)} without a rope_type to use it")
        return found
    if kind not in USED:
        raise keys.refuse("rope_parameters", dict(stated), f"the rope_types are default, {', '.join(USED)}")
    unused = {key for key in values if NAMES.get(key) not in USED[kind]}
    if kind in ("linear", "dynamic"):
        unused.discard("original_max_position_embeddings")  # stated by some configs, read by neither kind
        values.pop("original_max_position_embeddings", None)
    if unused:
        raise keys.refuse("rope_parameters", dict(stated), f"rope_type {kind} with {', '.join(sorted(unused))}")
    scaling = {NAMES[key]: value for key, value in values.items()}
    scaling["original_context"] = scaling.get("original_context") or context
    if "factor" not in scaling and isinstance(scaling["original_context"], int):
        scaling["factor"] = context / scaling["original_context"]
    found["rotary_scaling"] = {"kind": kind, **scaling}
    return found


def write_rope(config: DecoderConfig) -> dict[str, Any]:
    """The keys of a config about rotary positions, in the older spelling, which every tool reads."""
    written: dict[str, Any] = {"rope_theta": config.rotary_base}
    if config.rotary_dim != config.head_dim:
        written["partial_rotary_factor"] = config.rotary_dim / config.head_dim
    if config.rotary_scaling is not None:
        written["rope_scaling"] = scaling_parameters(config)
    return written


def scaling_parameters(config: DecoderConfig | EncoderConfig) -> dict[str, Any]:
    """The scaling of a config as a published dict."""
    scaling = config.rotary_scaling
    assert scaling is not None  # asked for only then
    names = {ours: theirs for theirs, ours in NAMES.items() if ours in USED[scaling.kind]}
    stated = {theirs: getattr(scaling, ours) for ours, theirs in names.items()}
    stated = {key: list(v) if isinstance(v, tuple) else v for key, v in stated.items()}
    if stated.get("attention_factor") == 0:
        del stated["attention_factor"]
    return {"rope_type": scaling.kind, **stated}
