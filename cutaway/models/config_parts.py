"""What the configs of several networks share."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from cutaway.errors import ConfigError

# what stands on top of a decoder or an encoder -> what it makes of B texts of T tokens
HEADS = {
    "none": "the last states (B, T, C)",
    "causal_lm": "logits of the next token at every position (B, T, V)",
    "masked_lm": "logits of the token at every position (B, T, V)",
    "sequence_classification": "a logit for each label (B, L)",
    "token_classification": "a logit for each label at every position (B, T, L)",
    "span_extraction": "logits of being the first and the last token of the answer (B, T, 2)",
    "replaced_token": "a logit of having been replaced at every position (B, T)",
    "embedding": "one vector for each text (B, C)",
}
LABELLED = ("sequence_classification", "token_classification")
POOLED = ("sequence_classification", "embedding")  # heads over whole texts

# far above any published model: a larger number is a mistake, or meant to use up the machine
MOST = {
    "vocab_size": 2**24,
    "context": 2**27,
    "source_context": 2**27,
    "layers": 2**9,
    "encoder_layers": 2**11,
    "width": 2**18,
    "hidden": 2**18,
    "heads": 2**12,
    "encoder_heads": 2**12,
    "head_dim": 2**14,
    "mlp_width": 2**21,
    "encoder_mlp_width": 2**21,
    "mel_bins": 2**12,
    "relative_buckets": 2**16,
    "relative_distance": 2**27,
    "embed_width": 2**18,
    "token_types": 2**11,
    "position_offset": 2**24,
    "experts": 2**11,
    "expert_width": 2**21,
}


def check_most(config: Any) -> None:
    """Refuse a number that is far above any published model.

    Raises:
        ConfigError: names it, and the largest there can be.
    """
    for name, most in MOST.items():
        if getattr(config, name, 0) > most:
            raise ConfigError(f"{name} is {getattr(config, name):,}; Cutaway builds networks with up to {most:,}")


def check_labels(config: Any) -> None:
    """Refuse labels without a head for them, and such a head without labels.

    Raises:
        ConfigError: says which is missing.
    """
    if config.head in LABELLED and not config.labels:
        raise ConfigError(f"a head for {config.head} needs the names of its labels, but none were given")
    if config.labelling != "one" and config.head != "sequence_classification":
        raise ConfigError(f"labelling is of whole texts with labels; a head for {config.head} has none")
    if config.head not in LABELLED and config.labels:
        raise ConfigError(f"labels are of {' and '.join(LABELLED)}; a head for {config.head} has none")


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary positions are stretched over a longer context than a model was first trained with.

    linear: positions divided by the factor (Chen et al. 2023). dynamic: a larger base once the text is longer than the
    original context. yarn (Peng et al. 2023): slow turns divided, fast ones kept, attention sharpened. llama3: the same
    idea with Llama 3's bounds. longrope (Ding et al. 2024): a factor of its own for each pair of channels.
    """

    kind: Literal["linear", "dynamic", "yarn", "llama3", "longrope"]
    factor: float = 1.0
    original_context: int = 0  # before stretching; 0: the context of the config
    attention_factor: float = 0.0  # on cosines and sines; 0: as the kind has it
    beta_fast: float = 32.0  # yarn: turns within the original context from which on nothing is divided
    beta_slow: float = 1.0  # yarn: and up to which all is
    truncate: bool = True  # yarn: bounds rounded to whole channels
    low_factor: float = 1.0  # llama3: waves longer than original_context / low_factor are divided
    high_factor: float = 4.0  # llama3: and shorter than original_context / high_factor kept
    short: tuple[float, ...] = ()  # longrope: divides each pair's rate within the original context
    long: tuple[float, ...] = ()  # longrope: and beyond it

    def __post_init__(self) -> None:
        for name in ("factor", "beta_fast", "beta_slow", "low_factor", "high_factor", "short", "long"):
            found = getattr(self, name)
            for value in found if isinstance(found, tuple) else (found,):
                if not 0 < value < math.inf:
                    raise ConfigError(f"the {name} of rotary scaling must be above 0, but {value} was given")
        if not 0 <= self.attention_factor < math.inf:
            raise ConfigError(f"the attention_factor of rotary scaling must be 0 or more, not {self.attention_factor}")
        if not 0 <= self.original_context <= MOST["context"]:
            raise ConfigError(
                f"the original_context of rotary scaling must lie in 0 … {MOST['context']:,}, "
                f"but {self.original_context:,} was given"
            )


def check_rotary(base: float, pairs: int, context: int, scaling: RotaryScaling | None) -> None:
    """Refuse rotary positions that cannot be computed.

    Raises:
        ConfigError: names the number, and what it should be.
    """
    kind = None if scaling is None else scaling.kind
    least = 1 if kind == "yarn" else 0
    if not least < base < math.inf:
        raise ConfigError(f"rotary_base must be above {least}, but {base} was given")
    if kind == "dynamic" and pairs < 2:
        raise ConfigError("dynamic rotary scaling needs more than one pair of channels that turn")
    if scaling is None or kind != "longrope":
        return
    if len(scaling.short) != pairs or len(scaling.long) != pairs:
        raise ConfigError(
            f"longrope needs a factor for each of {pairs} pairs of channels, but {len(scaling.short)} short and "
            f"{len(scaling.long)} long ones were given"
        )
    if (scaling.original_context or context) < 2:
        raise ConfigError(f"longrope needs an original_context above 1, but {scaling.original_context} was given")
