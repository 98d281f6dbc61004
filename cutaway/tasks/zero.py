"""Labels without training: by what a language model would write next, or by the nearest examples.

Both leave a folder like any other task's. Where there is validation data, their probabilities are calibrated on it.

Shapes: N texts, L labels, E channels of an embedding, K kept examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.generation.engine import Engine
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress
from cutaway.tasks.classify import Classify
from cutaway.tasks.reading import read_all
from cutaway.tasks.task import Answer, Example, Task
from cutaway.tokenizers.frame import beginning

if TYPE_CHECKING:
    from cutaway.tokenizers import Tokenizer

EMPTY = ("N/A", "", "[MASK]")  # texts that say nothing (Zhao et al. 2021)
TOKENS = 2048  # that go through a language model together


@dataclass(frozen=True)
class Score(Classify):
    """Which label a causal language model finds likeliest after a text: no training, no examples needed.

    The log-probability of a label's words after the prompt, less that after prompts with nothing in them, which takes
    out how common the words are (contextual calibration: Zhao et al. 2021).

    Raises:
        ConfigError: a prompt without "{text}", or a label that cannot be said.
    """

    prompt: str = "{text}\n\nWhat is this about? Answer with one word:"  # what stands before a label's words
    said: tuple[str, ...] = ()  # the labels; (): those of the examples
    words: dict[str, str] = None  # type: ignore[assignment]  # label -> its words after the prompt; itself
    longest: int = 512  # tokens of a text that are read

    name: ClassVar[str] = "score"
    summary: ClassVar[str] = "which label a language model finds likeliest, without training"
    kinds: ClassVar[tuple[str, ...]] = ("decoder",)
    trained: ClassVar[bool] = False
