"""What a network learns, a file each: how batches are made of the data, and how far off an answer is.

A new objective is one file with a frozen dataclass, and one line in OBJECTIVES.
"""

from collections.abc import Mapping
from typing import Any

from cutaway.errors import ConfigError, unknown
from cutaway.settings import build, to_dict
from cutaway.training.objectives.base import Batch, Data, Objective, Score, Split
from cutaway.training.objectives.causal import Causal
from cutaway.training.objectives.choice import Choice
from cutaway.training.objectives.completion import Completion
from cutaway.training.objectives.contrast import Contrast
from cutaway.training.objectives.extraction import SpanExtraction
from cutaway.training.objectives.labelled import Classification, Regression
from cutaway.training.objectives.masked import Masked, MaskedLM, mask_tokens
from cutaway.training.objectives.replaced import ReplacedPair, ReplacedTokens, replace_tokens, replaced_loss
from cutaway.training.objectives.seq2seq import SequenceToSequence
from cutaway.training.objectives.spans import SpanCorruption, corrupt_spans
from cutaway.training.objectives.tagged import Tagging

__all__ = [
    "OBJECTIVES",
    "Batch",
    "Causal",
    "Choice",
    "Classification",
    "Completion",
    "Contrast",
    "Data",
    "Masked",
    "MaskedLM",
    "Objective",
    "Regression",
    "ReplacedPair",
    "ReplacedTokens",
    "Score",
    "SequenceToSequence",
    "SpanCorruption",
    "SpanExtraction",
    "Split",
    "Tagging",
    "corrupt_spans",
    "mask_tokens",
    "objective_from",
    "objective_to_dict",
    "replace_tokens",
    "replaced_loss",
]

OBJECTIVES: dict[str, type[Objective]] = {
    objective.name: objective
    for objective in (
        Causal,
        MaskedLM,
        ReplacedTokens,
        SpanCorruption,
        SequenceToSequence,
        Classification,
        Regression,
        Tagging,
        SpanExtraction,
        Contrast,
        Choice,
        Completion,
    )
}


def objective_from(value: Any) -> Objective:
    """An objective from its name, a table with its name and settings, or itself.

    Raises:
        ConfigError: an unknown name or setting, or a value of the wrong type.
    """
    if isinstance(value, Objective):
        return value
    settings = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else None
    if settings is None:
        raise ConfigError(f"objective must be a name or a table with a name and settings, but {value!r} was given")
    name = settings.pop("name", None)
    if name not in OBJECTIVES:
        raise ConfigError(unknown("objective", str(name), OBJECTIVES))
    return build(OBJECTIVES[name], settings, where=f"objective {name}")


def objective_to_dict(objective: Objective) -> dict[str, Any]:
    """Plain data with the name first; `objective_from` leads back."""
    return {"name": objective.name, **to_dict(objective)}
