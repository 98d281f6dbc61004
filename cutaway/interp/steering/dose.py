"""Dose and response: what a steering vector does at growing strength, beside a random one and none.

Shapes: S strengths, T tokens, V vocabulary, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.generation import generate
from cutaway.interp.inputs import Inputs, Text, forward, inputs_of
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Curve
from cutaway.interp.steering.vector import SteeringVector, steering_vector, stream_after
from cutaway.interp.target import Quantity, Target, at_position, target_of
from cutaway.models import ActiveTap, Model, Seq2Seq
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

STRENGTHS = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
Scorer: TypeAlias = Callable[[str], float]  # of a generated text


@dataclass(frozen=True)
class DoseResponse(Curve):
    """A curve over strengths; `lines` holds "steered", each "placebo" and "untouched".

    Attributes:
        vector: what was added.
        steered: (S,) float64 the measure at each strength.
        placebos: (P, S) float64 with random directions of the same length.
        untouched: without any.
    """

    vector: SteeringVector = field(kw_only=True)
    steered: Float64[Tensor, " S"] = field(kw_only=True)
    placebos: Float64[Tensor, "P S"] = field(kw_only=True)
    untouched: float = field(kw_only=True)

    @property
    def monotone(self) -> bool:
        """Whether the measure grows with every step of strength."""
        return bool((self.steered.diff() > 0).all())

    @property
    def placebo_share(self) -> float:
        """How far the placebos move the measure on average, of how far the vector moves it."""
        moved = (self.steered - self.untouched).abs().max()
        return float((self.placebos - self.untouched).abs().amax(1).mean() / moved) if moved > 0 else 0.0


@torch.no_grad()
def dose_response(
    model: Model,
    text: Text,
    *,
    vector: SteeringVector | None = None,
    positive: Sequence[str] = (),
    negative: Sequence[str] = (),
    layer: int | None = None,
    strengths: Sequence[float] = STRENGTHS,
    tokens: Sequence[str | int] | None = None,
    scorer: Scorer | None = None,
    max_new_tokens: int = 20,
    source: Source | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    placebos: int = 3,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> DoseResponse:
    """Measure what adding a vector does, at each strength, beside random vectors of its length.

    Args:
        model: what is steered.
        text: what it reads; of several texts the measure is the mean.
        vector: what is added; None: `steering_vector` of the next three.
        positive: as in `steering_vector`.
        negative: as in `steering_vector`.
        layer: as in `steering_vector`.
        strengths: how often the vector is added, below 0 against its direction.
        tokens: the measure is the log-probability that the next token is one of these.
        scorer: the measure is this of what the model writes on, likeliest token by likeliest token.
        max_new_tokens: for the scorer, how much it writes.
        source: what an encoder–decoder reads.
        token: without tokens and scorer the measure is a target: of this, with minus, position and quantity as in
            `target_of`.
        minus: likewise.
        position: likewise; also where tokens are measured.
        quantity: likewise.
        placebos: how many random directions.
        seed: of the first of them; the others follow.
        progress: told how many curves are done.

    Raises:
        ConfigError: neither a vector nor texts to make it of; or more than one measure.
        InputError: no strengths, fewer than one placebo, or as in `target_of`.
    """
    clock = Clock(
        model, "dose_response", text, positive=list(positive), negative=list(negative), layer=layer,
        strengths=list(strengths), tokens=tokens, token=token, minus=minus, position=position, quantity=quantity,
        source=source, max_new_tokens=max_new_tokens, placebos=placebos, seed=seed,
    )  # fmt: skip
    if not strengths or placebos < 1:
        raise InputError(f"at least one strength and one placebo are needed, but {strengths} and {placebos} were given")
    if tokens is not None and scorer is not None:
        raise ConfigError("tokens and scorer are two measures; give one of them")
    texts = _each(model, text, source)
    target = target_of(model, texts[0], token=token, minus=minus, position=position, quantity=quantity)
    if vector is None:
        stream_after(model, layer)  # it must be there
        if not (positive and negative):
            raise ConfigError(
                "there is nothing to steer with: give vector=, or positive= and negative= texts of the two kinds"
            )
        vector = steering_vector(model, positive, negative, layer=layer)
    if vector.name not in model.network.tap_names():
        raise ConfigError(f"the vector is for {vector.name}, which this model does not have; make one with it")
    what, measure = _measure(model, texts, target, tokens, scorer, max_new_tokens)
    others = [vector.placebo(seed + i) for i in range(placebos)]
    curves = []
    for done, one in enumerate([vector, *others]):
        curves.append(measure(one, list(map(float, strengths))))
        if progress is not None:
            progress(Progress("steering", done + 1, placebos + 1, "vectors"))
    untouched = float(measure(vector, [0.0])[0])
    lines: dict[str, list[float | None]] = {"steered": curves[0].tolist()}
    lines |= {f"placebo {i}": curve.tolist() for i, curve in enumerate(curves[1:])}
    lines["untouched"] = [untouched] * len(strengths)
    return DoseResponse(
        f"{what}, with a vector {vector.what} added at {vector.name}",
        "strength",
        what,
        list(map(float, strengths)),
        lines,
        vector=vector,
        steered=curves[0],
        placebos=torch.stack(curves[1:]),
        untouched=untouched,
        receipt=clock.receipt(seed=seed),
    )


Measure: TypeAlias = Callable[[SteeringVector, list[float]], Tensor]


def _each(model: Model, text: Text, source: Source | None) -> list[Inputs]:
    several = isinstance(text, list | tuple) and bool(text) and isinstance(text[0], str)
    return [inputs_of(model, one, source) for one in text] if several else [inputs_of(model, text, source)]  # pyright: ignore[reportArgumentType, reportGeneralTypeIssues, reportOptionalIterable]


def _measure(
    model: Model,
    texts: list[Inputs],
    target: Target,
    tokens: Sequence[str | int] | None,
    scorer: Scorer | None,
    max_new_tokens: int,
) -> tuple[str, Measure]:
    """What is measured, in words, and how: (S,) float64 of a vector at some strengths."""
    if scorer is not None:

        def written(vector: SteeringVector, strengths: list[float]) -> Tensor:
            return torch.tensor([_score(model, texts, vector, s, scorer, max_new_tokens) for s in strengths]).double()

        return f"{getattr(scorer, '__name__', 'score')} of the text written", written
    chosen: list[int] | None = None
    what = target.what
    if tokens is not None:
        if not tokens:
            raise InputError("tokens holds none; name at least one")
        choices = [target_of(model, texts[0], token=t, position=_place(target)) for t in tokens]
        chosen = sorted({choice.chosen for choice in choices})
        what = f"log-probability of {len(chosen)} tokens {target.what[target.what.find(' after ') + 1 :]}"
        if getattr(model.config, "head", "causal_lm") in ("none", "embedding", "replaced_token"):
            raise ConfigError("this model's head gives no probabilities, so tokens have none; ask for a target")

    def measured(vector: SteeringVector, strengths: list[float]) -> Tensor:
        total = torch.zeros(len(strengths), dtype=torch.float64)
        for inputs in texts:
            rows = inputs.repeat(len(strengths))
            by = torch.tensor(strengths)

            def edit(x: Tensor, by: Tensor = by) -> Tensor:
                return x + by.to(x)[:, None, None] * vector.vector.to(x)

            output = forward(model, rows, ActiveTap(edits={vector.name: edit}))
            if chosen is None:
                total += target(output, rows).double().cpu()
            else:
                place = target.position
                row = output if place is None else at_position(output, rows, place)
                total += row.double().log_softmax(-1)[:, chosen].logsumexp(-1).cpu()
        return total / len(texts)

    return what, measured


def _place(target: Target) -> int:
    return -1 if target.position is None else target.position


def _score(
    model: Model, texts: list[Inputs], vector: SteeringVector, strength: float, scorer: Scorer, count: int
) -> float:
    total = 0.0
    options: dict[str, Any] = {"max_new_tokens": count, "temperature": 0, "tap": vector.tap(strength)}
    for inputs in texts:
        if isinstance(model.network, Seq2Seq):
            assert inputs.source is not None
            heard = inputs.source if inputs.source.is_floating_point() else inputs.source[0].tolist()
            total += scorer(generate(model, heard, target=inputs.ids[0, 1:].tolist(), **options).text)
        else:
            total += scorer(generate(model, inputs.ids[0].tolist(), **options).text)
    return total / len(texts)
