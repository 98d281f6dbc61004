"""Why an answer stands where it does: what the sum of its two logits loses without each word of question and text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp.attribution import gradient_x_input, integrated_gradients, occlusion
from cutaway.interp.inputs import Inputs
from cutaway.models import Model
from cutaway.tasks.answer.windows import Windows, places_in
from cutaway.tasks.task import Answer, Example

METHODS = {"occlusion": occlusion, "integrated_gradients": integrated_gradients, "gradient": gradient_x_input}


def reasons(
    model: Model, windows: Windows, example: Example, answer: Answer, *, method: str = "", part: int = 0
) -> Any:
    """How much each word adds to the logits of the answer's first token and of its last.

    Args:
        model: that answered.
        windows: as it read the text.
        example: that was asked.
        answer: that was given; one that says there is none is asked about the place that stands for that.
        method: occlusion, integrated_gradients or gradient.
        part: which of the candidates is asked about, 0 is the answer that was given.

    Raises:
        ConfigError: another method.
        InputError: there are not so many candidates.
    """
    if (method or "occlusion") not in METHODS:
        raise ConfigError(f"why can be found by {', '.join(METHODS)}, but {method!r} was given")
    asked, text = example.given["question"], example.given["context"]
    start, end = answer.more["start"], answer.more["end"]
    if part:
        others = [one for one in answer.more["candidates"] if one["start"] != start or one["end"] != end]
        if part > len(others):
            raise InputError(f"the answer has {len(others)} other candidates, but number {part} was asked about")
        start, end = others[part - 1]["start"], others[part - 1]["end"]
    pieces = windows.pieces(text)
    made = windows(asked, text)
    found = [(w, places_in(w, pieces, start, end)) for w in made] if start is not None else [(made[0], (0, 0))]
    window, place = next((window, place) for window, place in found if place is not None)
    types = torch.tensor([window.types], device=model.device) if getattr(model.config, "token_types", 0) else None
    inputs = Inputs(torch.tensor([window.ids], device=model.device), token_types=types)
    explain = METHODS[method or "occlusion"]
    first, last = (
        explain(model, inputs, token=token, position=position, grain="word")
        for token, position in zip(("start", "end"), place, strict=True)
    )
    what = f"the logits of being first and last of “{text[start:end]}”" if start is not None else "no answer"
    scores = [a if b is None else b if a is None else a + b for a, b in zip(first.scores, last.scores, strict=True)]
    bases = first.baseline, last.baseline
    return replace(
        first,
        target=what,
        value=first.value + last.value,
        baseline=None if None in bases else sum(bases),  # pyright: ignore[reportArgumentType]
        scores=scores,
        by_token=None,
        claims=None,
    )
