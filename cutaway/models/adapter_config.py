"""adapter_config.json, as PEFT writes it beside an adapter's tensors.

As with the published families, every key is handled, knowingly ignored with a reason, or an error that names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from cutaway.errors import ConfigError, DamagedFile, unknown
from cutaway.settings import build

Value = TypeVar("Value")
ALL_LINEAR = "all-linear"
LARGEST_RANK = 1 << 16
MOST_PATTERNS, MOST_EXPRESSIONS = 4096, 64
PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,200}")
# an expression of a stranger's file that can be matched in no time: at most one repetition, and none of a group
HARMLESS = re.compile(
    r"(?:[A-Za-z0-9_.^$|()\[\]-]|\\[d.])*(?:(?:[A-Za-z0-9_.\]]|\\[d.])[*+])?(?:[A-Za-z0-9_.^$|()\[\]-]|\\[d.])*"
)
MOST_WAYS = 512  # in which expressions together may try a name: each | doubles those of its own
# methods of PEFT whose fresh parts are made from the base without changing it; others leave another base behind
HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
IGNORED = {
    "auto_mapping": "names classes of another program",
    "peft_version": "what wrote the file",
    "revision": "where the base came from",
    "inference_mode": "of training",
    "loftq_config": "of fresh parts",
    "eva_config": "of fresh parts",
    "corda_config": "of fresh parts",
    "lora_ga_config": "of fresh parts",
    "velora_config": "of training",
    "megatron_core": "read by nothing without megatron_config",
    "qalora_group_size": "read by nothing without use_qalora",
    "runtime_config": "a choice of kernel",
    "fan_in_fan_out": "how the base's matrices lie is the family's to say",
}
ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "peft_type": (("LORA",), "of PEFT's methods only LoRA and DoRA are supported"),
    "lora_bias": ((False,), "parts with biases of their own are not supported"),
    "megatron_config": ((), "layers that are spread over machines are not supported"),
    "trainable_token_indices": (({}, []), "single rows of an embedding are not supported"),
    "layer_replication": (([],), "layers that are there several times are not supported"),
    "alora_invocation_tokens": (([],), "adapters that begin in the middle of a text are not supported"),
    "target_parameters": (([],), "parts of stacked experts are not supported"),
    "use_qalora": ((False,), "another product than LoRA's"),
    "use_bdlora": ((False,), "another product than LoRA's"),
    "arrow_config": (({},), "a mixture of adapters is not supported"),
    "monteclora_config": (({},), "another product than LoRA's"),
    "kasa_config": (({},), "another product than LoRA's"),
    "ensure_weight_tying": ((False,), "an adapter of one of two tied matrices changes that one alone"),
}


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter is, by PEFT's names.

    Attributes:
        r: rank of the parts.
        lora_alpha: they are multiplied by lora_alpha / r, or with `use_rslora` by lora_alpha / sqrt(r).
        target_modules: names of layers as the published model has them, or the ends of such; an expression that matches
            whole names; or "all-linear": every linear layer but the output.
        exclude_modules: likewise, what is left out of them.
        use_dora: rows have magnitudes of their own.
        use_rslora: see lora_alpha (Kalajdzievski 2023).
        lora_dropout: while it trains.
        bias: whose biases are the adapter's own: of no layer, of "all", or of those that have parts ("lora_only").
        modules_to_save: layers that are the adapter's own as a whole, by the ends of their names.
        rank_pattern: name of a layer, its end or an expression -> its rank.
        alpha_pattern: likewise -> its alpha.
        layers_to_transform: numbers of the layers that have parts; None: all.
        layers_pattern: what the list of layers is called.
        task_type: what it was trained for; the head is the base's.
        base_model_name_or_path: what it was trained on, as it says itself. Nothing is opened by this name.
        init_lora_weights: how fresh parts were drawn.
    """

    r: int = 8
    lora_alpha: float = 8
    target_modules: tuple[str, ...] | str | None = ALL_LINEAR
    exclude_modules: tuple[str, ...] | str | None = None
    use_dora: bool = False
    use_rslora: bool = False
    lora_dropout: float = 0.0
    bias: Literal["none", "all", "lora_only"] = "none"
    modules_to_save: tuple[str, ...] | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    layers_to_transform: tuple[int, ...] | int | None = None
    layers_pattern: tuple[str, ...] | str | None = None
    task_type: str | None = None
    base_model_name_or_path: str | None = None
    init_lora_weights: bool | str | None = True

    def __post_init__(self) -> None:
        """Check what is out of range.

        Raises:
            ConfigError: it is.
        """
        for name, rank in (("r", self.r), *self.rank_pattern.items()):
            if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= LARGEST_RANK:
                raise ConfigError(f"the rank of {name} must be a whole number in 1 … {LARGEST_RANK:,}, not {rank!r}")
        for name, alpha in (("lora_alpha", self.lora_alpha), *self.alpha_pattern.items()):
            if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
                raise ConfigError(f"{name} must be a finite number, but {alpha!r} was given")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora_dropout must be in 0 … 1, but {self.lora_dropout!r} was given")
        for patterns in (self.rank_pattern, self.alpha_pattern):
            _check_patterns(patterns)

    def rank(self, name: str) -> int:
        """The rank of a layer's parts, by the layer's published name."""
        return _matching(self.rank_pattern, name, self.r)

    def scale(self, name: str) -> float:
        """What a layer's parts are multiplied by."""
        alpha, rank = _matching(self.alpha_pattern, name, self.lora_alpha), self.rank(name)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def lists(self, name: str) -> bool:
        """Whether a layer may have parts, as far as lists of names and numbers say; expressions are not looked at."""
        if isinstance(self.target_modules, tuple) and not ends(name, self.target_modules):
            return False
        if isinstance(self.exclude_modules, tuple) and ends(name, self.exclude_modules):
            return False
        wanted = self.layers_to_transform
        if wanted is None or wanted == () or isinstance(self.target_modules, str):
            return True
        number = next((int(piece) for piece in name.split(".") if piece.isascii() and piece.isdigit()), None)
        return number in ((wanted,) if isinstance(wanted, int) else wanted)

    def targets(self, name: str, linear: bool) -> bool:
        """Whether a layer gets parts: `lists`, and expressions, which are the caller's own here.

        Args:
            name: of the layer.
            linear: whether it is one that "all-linear" means.
        """
        if isinstance(self.exclude_modules, str) and re.fullmatch(self.exclude_modules, name):
            return False
        if self.target_modules is None or self.target_modules == ALL_LINEAR:
            return linear and self.lists(name)
        if isinstance(self.target_modules, str):
            return bool(re.fullmatch(self.target_modules, name)) and self.lists(name)
        return self.lists(name)


def read_config(values: Any, where: str) -> AdapterConfig:
    """The config of an adapter_config.json.

    Raises:
        ConfigError: a key or value that is not supported, named.
        DamagedFile: it is no table.
    """
    if not isinstance(values, dict):
        raise DamagedFile(f"{where} must hold a JSON object, but holds {type(values).__name__}")
    if values.get("peft_type") is None:
        raise ConfigError(f"{where} does not say peft_type, so it is no adapter of PEFT")
    for key, (allowed, why) in ONLY.items():
        value = values.get(key)
        if value is not None and not any(value == one and type(value) is type(one) for one in allowed):
            raise ConfigError(f"{key} = {value!r} in {where} is not supported: {why}")
    start = values.get("init_lora_weights")
    if not any(start is one or (isinstance(start, str) and start == one) for one in HARMLESS_STARTS):
        raise ConfigError(
            f"init_lora_weights = {start!r} in {where} is not supported: it changes the base's own weights; PEFT "
            "converts such an adapter (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    known = {f.name for f in fields(AdapterConfig)}
    left = {key: v for key, v in values.items() if key not in known | IGNORED.keys() | ONLY.keys() and v is not None}
    if left:
        raise ConfigError(unknown(f"key in {where}:", str(next(iter(left))), known))
    given = {key: value for key, value in values.items() if key in known and value is not None}
    given.setdefault("target_modules", None)
    return build(AdapterConfig, given, where=where)


def write_config(config: AdapterConfig, turned: bool) -> dict[str, Any]:
    """An adapter_config.json that PEFT opens.

    Args:
        config: of the adapter.
        turned: whether the published model stores the matrices the other way round.
    """
    made: dict[str, Any] = {"peft_type": "LORA", "inference_mode": True, "fan_in_fan_out": turned}
    for f in fields(config):
        value = getattr(config, f.name)
        made[f.name] = list(value) if isinstance(value, tuple) else value
    made["lora_alpha"] = _plain(config.lora_alpha)
    made["alpha_pattern"] = {name: _plain(alpha) for name, alpha in config.alpha_pattern.items()}
    return made


def _plain(number: float) -> float:
    """As whole where it is: PEFT's alphas are."""
    return int(number) if number == int(number) else number


def ends(name: str, listed: tuple[str, ...]) -> bool:
    """Whether a layer is one of those listed, by its whole name or its end."""
    return name in listed or name.endswith(tuple(f".{one}" for one in listed))


def _check_patterns(patterns: Mapping[str, Any]) -> None:
    expressions = [key for key in patterns if not PLAIN.fullmatch(key)]
    if len(patterns) > MOST_PATTERNS or len(expressions) > MOST_EXPRESSIONS:
        raise ConfigError(
            f"there can be {MOST_PATTERNS:,} patterns of ranks and alphas, {MOST_EXPRESSIONS} expressions"
        )
    if sum(2 ** key.count("|") for key in expressions) > MOST_WAYS:
        raise ConfigError("the patterns of ranks and alphas hold too many choices (|); name the layers in their place")
    for key in expressions:
        if len(key) > 200 or not HARMLESS.fullmatch(key):
            raise ConfigError(
                f"the pattern {key!r} is not supported: name the layer, or use an expression with one repetition"
            )
        try:
            re.compile(key)
        except re.error as error:
            raise ConfigError(f"the pattern {key!r} is no expression: {error}") from error


def _matching(patterns: Mapping[str, Value], name: str, default: Value) -> Value:
    """What the first pattern says that matches a name or its end."""
    for key, value in patterns.items():
        if PLAIN.fullmatch(key):
            if name == key or name.endswith("." + key):
                return value
        elif re.fullmatch(rf"(?:.*\.)?(?:{key})", name):
            return value
    return default
