"""Why an answer stands where it does: what the sum of its two logits loses without each word of question and text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.attribution import Attribution, gradient_x_input, integrated_gradients
from cutaway.interp.attribution.occlusion import removal
from cutaway.interp.attribution.question import Question
from cutaway.interp.frozen import frozen
from cutaway.interp.inputs import Inputs
from cutaway.interp.receipt import Clock
from cutaway.interp.target import Target
from cutaway.models import Model
from cutaway.tasks.answer.windows import Windows, places_in
from cutaway.tasks.task import Answer, Example

METHODS = {"integrated_gradients": integrated_gradients, "gradient": gradient_x_input}
WAYS = ("occlusion", *METHODS)


@dataclass(frozen=True)
class Stretch(Target):
    """The sum of the logits of one place being first and another last.

    Attributes:
        first: place in the window.
        last: likewise.
    """

    first: int = 0
    last: int = 0

    def __call__(self, output: Float[Tensor, "B ..."], inputs: Inputs) -> Float[Tensor, " B"]:
        return output[:, self.first, 0] + output[:, self.last, 1]


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
    method = method or "occlusion"
    if method not in WAYS:
        raise ConfigError(f"why can be found by {', '.join(WAYS)}, but {method!r} was given")
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
    what = f"the logits of being first and last of “{text[start:end]}”" if start is not None else "no answer"
    return _lost(model, inputs, place, what) if method == "occlusion" else _added(model, inputs, place, what, method)


def _lost(model: Model, inputs: Inputs, place: tuple[int, int], what: str) -> Attribution:
    """What the sum of both logits loses without each word, both in one pass."""
    clock = Clock(model, "occlusion", inputs, position=place[0], grain="word", token="start")
    question = Question(frozen(model), inputs, Stretch(what, None, 0, first=place[0], last=place[1]), {})
    remove = removal(question, "mean", "word")
    kept = ~torch.eye(len(remove.players), dtype=torch.bool)
    numbers = remove(torch.cat((torch.ones_like(kept[:1]), kept))).double().cpu()
    scores = remove.scores((numbers[0] - numbers[1:]).tolist(), "word")
    return question.result("occlusion", scores, "word", clock.receipt(), value=float(numbers[0]))


def _added(model: Model, inputs: Inputs, place: tuple[int, int], what: str, method: str) -> Attribution:
    """What each word adds to both logits by a method that explains one at a time."""
    first, last = (
        METHODS[method](model, inputs, token=token, position=position, grain="word")
        for token, position in zip(("start", "end"), place, strict=True)
    )
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
