"""What a view suggests about causes, in a form that can be tried: each claim names an ablation and its effect.

A pattern, a saliency or a lens is a correlation: it shows where something can be seen, not whether the model uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cutaway.interp.inputs import Inputs
from cutaway.interp.record import Edits
from cutaway.interp.target import Target
from cutaway.models import Model


@dataclass(frozen=True)
class Claim:
    """One thing that a view says matters.

    Attributes:
        label: what it is, to be read.
        predicted: how much the target falls when it is taken away, in the unit of the view.
        edits: how to take it away, as `replace` takes them.
        ids: or which tokens to put in place of others, by position.
        source_ids: the same of what an encoder–decoder reads.
    """

    label: str
    predicted: float
    edits: Edits = field(default_factory=dict)
    ids: Mapping[int, int] = field(default_factory=dict)
    source_ids: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Claims:
    """All that a view suggests about one run.

    Attributes:
        model: what ran.
        inputs: what it read; the first text counts.
        target: the number that the claims are about.
        claims: what the view says, in any order.
        ablation: how each is taken away, as a sentence.
        unit: of the predictions.
        signed: whether the view says in which direction; else its size is compared with the size of the effect.
    """

    model: Model
    inputs: Inputs
    target: Target
    claims: tuple[Claim, ...]
    ablation: str
    unit: str
    signed: bool = True
