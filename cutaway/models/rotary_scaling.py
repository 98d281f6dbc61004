"""How rotary positions are stretched over longer contexts; `rotary` computes it."""

from dataclasses import dataclass
from typing import Literal

from cutaway.errors import ConfigError


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
        if self.factor <= 0:
            raise ConfigError(f"the factor of rotary scaling must be above 0, but {self.factor} was given")
