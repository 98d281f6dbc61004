"""Rotary positions and sliding windows as GGUF metadata states them.

Of some kinds of stretching the file holds only the outcome, a divisor for each pair of channels, as a tensor:
rope_freqs.weight (Llama 3), rope_factors_short.weight and rope_factors_long.weight (longrope). What they mean is what
llama.cpp computes from them (src/llama-model.cpp, src/llama-context.cpp, conversion/base.py there).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from cutaway.models.config import DecoderConfig, RotaryScaling
from cutaway.models.families import Keys
from cutaway.models.rotary import rotary_rates

FREQS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
FACTORS = (FREQS, LONG, SHORT)
LLAMA3 = "rope.scaling.llama3"  # Cutaway's own: the four numbers that rope_freqs.weight was computed from
OF_LLAMA3 = ("factor", "low_factor", "high_factor", "original_context")


def read_rope(keys: Keys, head_dim: int, context: int) -> dict[str, Any]:
    """The fields of DecoderConfig about rotary positions.

    Args:
        keys: the metadata behind the architecture's name, and the tensors of FACTORS as numbers.
        head_dim: D.
        context: most tokens.

    Raises:
        ConfigError: a kind, or a key of another kind, that is not supported.
    """
    turned = keys.take("rope.dimension_count", head_dim)
    found: dict[str, Any] = {"rotary_base": _number(keys, "rope.freq_base", 10_000.0), "rotary_dim": turned}
    factor = _number(keys, "rope.scaling.factor", 0.0) or _number(keys, "rope.scale_linear", 0.0) or 1.0
    sharpened = _number(keys, "rope.scaling.attn_factor", 1.0)
    original = keys.take("rope.scaling.original_context_length") or context
    freqs, long, short = (keys.take(name) for name in FACTORS)
    stated = keys.take(LLAMA3)
    kind = keys.take("rope.scaling.type", "longrope" if long or short else "linear")
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise keys.refuse("rope.scaling.type", kind, "the kinds are none, linear, yarn and longrope")
    if (kind == "longrope") != bool(long and short) or (freqs and (kind == "longrope" or factor != 1.0)):
        raise keys.refuse("rope.scaling.type", kind, f"it does not go with {', '.join(_present(keys)) or 'no factors'}")
    for name in FACTORS:
        if (given := keys.take(name)) and (not isinstance(turned, int) or len(given) != turned // 2):
            raise keys.refuse("rope.dimension_count", turned, f"{name} has {len(given)} factors, one for each pair")
    scaling: dict[str, Any] = {"original_context": original}
    if kind == "yarn":
        scaling |= _read_yarn(keys, factor, sharpened)
    elif kind == "longrope":
        factor = context / original if isinstance(original, int) and original > 1 else 1.0
        attention = 0.0 if _near(sharpened, _own_sharpening(kind, factor, original)) else sharpened
        scaling |= {"factor": factor, "short": short, "long": long, "attention_factor": attention}
    elif freqs:
        kind, known = _read_freqs(found["rotary_base"], freqs, stated, context)
        scaling |= known
    elif (factor if kind == "linear" else 1.0) == sharpened == 1.0:
        return found
    else:
        factor, kind = factor if kind == "linear" else 1.0, "linear"
        scaling |= {"factor": factor, "attention_factor": sharpened if sharpened != 1.0 else 0.0}
    return found | {"rotary_scaling": {"kind": kind, **scaling}}


def _present(keys: Keys) -> list[str]:
    return [name for name in FACTORS if keys.values.get(name)]


def _number(keys: Keys, key: str, default: float) -> float:
    value = keys.take(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise keys.refuse(key, value, "it is a number")
    return float(value)


def _read_yarn(keys: Keys, factor: float, sharpened: float) -> dict[str, Any]:
    if (mixed := _number(keys, "rope.scaling.yarn_ext_factor", 1.0)) not in (1.0, -1.0):
        raise keys.refuse("rope.scaling.yarn_ext_factor", mixed, "it can be 1")
    if logarithm := _number(keys, "rope.scaling.yarn_log_multiplier", 0.0):
        raise keys.refuse("rope.scaling.yarn_log_multiplier", logarithm, "it can be 0")
    # what is on top of yarn's own, as llama.cpp computes it, and the whole, as converters write it
    whole = sharpened * _own_sharpening("yarn", factor, 2)
    attention = _number(keys, "rope.scaling.yarn_attn_factor", whole if sharpened != 1.0 else 0.0)
    if sharpened != 1.0 and not _near(attention, whole):
        raise keys.refuse("rope.scaling.yarn_attn_factor", attention, f"attn_factor makes it {whole:.6g}")
    return {
        "factor": factor,
        "attention_factor": attention,
        "beta_fast": _number(keys, "rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": _number(keys, "rope.scaling.yarn_beta_slow", 1.0),
    }


def _read_freqs(base: float, freqs: Sequence[float], stated: Any, context: int) -> tuple[str, dict[str, Any]]:
    """The divisors as Llama 3's four numbers, if they are those of the file or of the published models."""
    tries = [(max(freqs), 1.0, 4.0, 8192)]
    if isinstance(stated, list) and len(stated) == len(OF_LLAMA3) and all(0 < x < math.inf for x in stated):
        tries.insert(0, (*stated[:3], int(stated[3])))
    for numbers in tries:
        known: dict[str, Any] = dict(zip(OF_LLAMA3, numbers, strict=True))
        if known["low_factor"] < known["high_factor"] and _close(llama3_divisors(base, len(freqs), known), freqs):
            return "llama3", known
    return "longrope", {"short": freqs, "long": freqs, "original_context": context, "attention_factor": 1.0}


def llama3_divisors(base: float, pairs: int, known: dict[str, Any]) -> list[float]:
    """What Llama 3's scaling divides each pair's rate by.

    Args:
        base: of the rates.
        pairs: R/2.
        known: the fields of OF_LLAMA3.
    """
    plain, _ = rotary_rates(base, 2 * pairs, None, 1, 1)
    slowed, _ = rotary_rates(base, 2 * pairs, RotaryScaling("llama3", **known), 1, 1)
    return (plain / slowed).float().tolist()


def _close(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    return bool(torch.allclose(torch.tensor(ours), torch.tensor(theirs), rtol=3e-6, atol=0))


def _near(one: float, other: float) -> bool:
    """Whether numbers are the same but for having been float32."""
    return math.isclose(one, other, rel_tol=1e-6)


def _own_sharpening(kind: Any, factor: float, original: int) -> float:
    """The factor on cosines and sines that a kind has where none is stated."""
    pairs = (1.0,) if kind == "longrope" else ()
    original = original if isinstance(original, int) and original > 1 else 2
    scaling = RotaryScaling(kind, factor=factor, original_context=original, short=pairs, long=pairs)
    return rotary_rates(10_000.0, 2, scaling, 2, 1)[1]


def same_rope(config: DecoderConfig) -> DecoderConfig:
    """The config with the ways to say one scaling made one."""
    scaling, context = config.rotary_scaling, config.context
    if config.rotary_base_local == config.rotary_base and scaling is None:
        config = replace(config, rotary_base_local=0.0)
    if not config.windows:
        config = replace(config, rotary_base_local=0.0)
    if scaling is None:
        return config
    original = scaling.original_context or context
    own = _own_sharpening(scaling.kind, scaling.factor, original)
    attention = scaling.attention_factor or own
    if scaling.kind == "linear":
        scaling = RotaryScaling("linear", factor=scaling.factor)
        own = 1.0
    elif scaling.kind == "longrope":
        long, short, factor = scaling.long, scaling.short, context / original
        if long == short and attention == 1.0:  # which of the two is used makes no difference
            original, factor = context, 1.0
        scaling = RotaryScaling("longrope", factor=factor, original_context=original, long=long, short=short)
        own = 0.0
    else:
        scaling = replace(scaling, original_context=original, attention_factor=0.0)
    attention = 0.0 if _near(attention, own) else float(f"{attention:.6g}")
    return replace(config, rotary_scaling=replace(scaling, attention_factor=attention))


def write_rope(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read_rope`."""
    written: dict[str, Any] = {"rope.freq_base": config.rotary_base, "rope.dimension_count": config.rotary_dim}
    scaling = config.rotary_scaling
    if scaling is None:
        return written
    original = scaling.original_context or config.context
    own = _own_sharpening(scaling.kind, scaling.factor, original)
    attention = scaling.attention_factor or own
    if scaling.kind == "linear":
        written |= {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
        written |= {"rope.scaling.attn_factor": attention} if attention != 1.0 else {}
    elif scaling.kind == "yarn":
        written |= {"rope.scaling.type": "yarn", "rope.scaling.factor": scaling.factor}
        written |= {"rope.scaling.original_context_length": original}
        written |= {"rope.scaling.yarn_beta_fast": scaling.beta_fast, "rope.scaling.yarn_beta_slow": scaling.beta_slow}
        if attention != own:
            written |= {"rope.scaling.attn_factor": attention / own, "rope.scaling.yarn_attn_factor": attention}
    elif scaling.kind == "llama3":
        known = {name: getattr(scaling, name) for name in OF_LLAMA3} | {"original_context": original}
        written[FREQS] = llama3_divisors(config.rotary_base, config.rotary_dim // 2, known)
        written[LLAMA3] = [float(value) for value in known.values()]
    elif scaling.kind == "longrope" and scaling.short == scaling.long and attention == 1.0:
        written[FREQS] = list(scaling.short)
    elif scaling.kind == "longrope":
        written |= {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": attention}
        written |= {"rope.scaling.original_context_length": original}
        written |= {LONG: list(scaling.long), SHORT: list(scaling.short)}
    return written  # of "dynamic" there is none, as reading it back will show


def read_windows(keys: Keys, layers: int, pattern: int) -> dict[str, Any]:
    """The windows of the layers, and the base of rotary positions in those that have one.

    Args:
        keys: the metadata behind the architecture's name.
        layers: how many.
        pattern: one layer in so many sees all, where the file does not say which.

    Raises:
        ConfigError: a pattern that is neither a number nor a list for the layers.
    """
    window, stated = keys.take("attention.sliding_window") or 0, keys.take("attention.sliding_window_pattern")
    base = keys.take("rope.freq_base_swa")
    stated = pattern if stated is None else stated
    if isinstance(stated, list) and len(stated) == layers:
        narrow = [bool(narrowed) for narrowed in stated]
    elif isinstance(stated, int) and not isinstance(stated, bool) and stated >= 0:
        narrow = [not stated or i % stated < stated - 1 for i in range(layers)]
    else:
        raise keys.refuse("attention.sliding_window_pattern", stated, f"it is a number, or a list for {layers} layers")
    if not window or not any(narrow):
        return {}
    found: dict[str, Any] = {"windows": [window if narrowed else 0 for narrowed in narrow]}
    return found if base is None else found | {"rotary_base_local": _number(keys, "rope.freq_base_swa", 0.0)}


def write_windows(config: DecoderConfig, pattern: int) -> dict[str, Any]:
    """The reverse of `read_windows`; if windows differ in size, reading back will show that."""
    if not any(config.windows):
        return {}
    narrow = [config.window(i) > 0 for i in range(config.layers)]
    usual = [i % pattern < pattern - 1 for i in range(config.layers)]
    return {
        "attention.sliding_window": max(config.windows),
        "attention.sliding_window_pattern": None if narrow == usual else narrow,
        "rope.freq_base_swa": config.rotary_base_local or None,
    }
