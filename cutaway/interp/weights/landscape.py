"""How the loss changes around a model's weights.

Shapes: B texts, T tokens, R rows, C columns.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from cutaway.errors import ConfigError
from cutaway.interp.inputs import Inputs, Text, evaluating, inputs_of
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Curve, Matrix
from cutaway.interp.text.exam import Exam, exam_of, names_tokens, real_tokens
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress


@torch.no_grad()
def loss_landscape(
    model: Model,
    text: Text,
    *,
    source: Source | None = None,
    dimensions: int = 1,
    extent: float = 1.0,
    steps: int = 11,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Curve | Matrix:
    """The loss on texts along one or two random directions in weight space, through the weights as they are.

    Directions are filter-normalised (Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets"): normal numbers,
    each row of a matrix scaled to the length of the weights' own row, vectors such as norms and biases left alone. So
    slices of different models may be compared, which those of raw directions may not. A random direction says nothing
    of the few in which the loss curves most.

    The model itself is never changed.

    Args:
        model: of any kind that names tokens, in full precision. A model that fills gaps is asked for one in three
            tokens.
        text: one or several texts.
        source: what an encoder–decoder reads.
        dimensions: 1 or 2 directions.
        extent: how far to go to both sides; 1 is as far as the weights are long.
        steps: places along each direction; odd, so that the model itself is the one in the middle.
        seed: of the directions and gaps.
        progress: told after each place.

    Returns:
        For one direction a curve, for two a matrix of bits a token; the receipt's gap is how far the place in the
        middle is from the model's own loss.

    Raises:
        ConfigError: a model that names no tokens, weights that are kept quantised, or options out of range.
        InputError: empty text, or more tokens than the context.
        NonFinite: the model computes a NaN or an infinity as it is. Places around it may, and are shown as gaps.
    """
    if dimensions not in (1, 2) or steps < 3 or steps % 2 == 0 or not extent > 0:
        raise ConfigError(
            "a landscape needs 1 or 2 dimensions, an odd number of steps from 3 on and an extent above 0, but "
            f"dimensions={dimensions}, steps={steps}, extent={extent} were given"
        )
    names_tokens(model, "a loss landscape")
    weights = dict(model.network.named_parameters())
    if not any(name == "embed_tokens.weight" for name in weights):
        raise ConfigError("weights that are kept quantised cannot be moved; load the model without quantised=True")
    options = {"source": source, "dimensions": dimensions, "extent": extent, "steps": steps}
    clock = Clock(model, "loss_landscape", text, **options, seed=seed)
    inputs = inputs_of(model, text, source)
    exam = exam_of(model, inputs, real_tokens(inputs), seed)
    own = float(exam.losses(model)[exam.asked].double().mean()) / math.log(2)
    draw = torch.Generator().manual_seed(seed)
    directions = [{name: direction(weight, draw) for name, weight in weights.items()} for _ in range(dimensions)]
    at = [extent * (2 * i / (steps - 1) - 1) for i in range(steps)]
    places = [(x,) for x in at] if dimensions == 1 else [(y, x) for y in at for x in at]
    losses = []
    for place in places:
        moved: dict[str, Tensor] = {**weights}
        for far, way in zip(place, directions, strict=True):
            moved = {name: weight + far * way[name] for name, weight in moved.items()}
        losses.append(_loss(model, moved, exam))
        if progress is not None:
            progress(Progress("landscape", len(losses), len(places), "places"))
    middle = losses[len(losses) // 2]
    receipt = clock.receipt(gap=abs(middle - own), seed=seed)
    if dimensions == 1:
        line: list[float | None] = [loss if loss < float("inf") else None for loss in losses]
        name = "distance from the weights, in their own length"
        return Curve("loss along a random direction", name, "bits a token", at, {"loss": line}, receipt=receipt)
    names = [f"{x:+.2f}" for x in at]
    values = torch.tensor(losses, dtype=torch.float64).view(steps, steps)
    values[~values.isfinite()] = float("nan")
    return Matrix(
        "loss over two random directions",
        "bits a token",
        names,
        names,
        values,
        "second direction",
        "first direction",
        signed=False,
        receipt=receipt,
    )


def direction(weight: Tensor, draw: torch.Generator) -> Tensor:
    """A random direction in which each row is as long as the weight's; of a vector none."""
    if weight.ndim < 2:
        return torch.zeros_like(weight)
    way = torch.randn(weight.shape, generator=draw, dtype=torch.float32).to(weight)
    rows, own = way.flatten(1), weight.detach().flatten(1)
    scale = own.norm(dim=1) / rows.norm(dim=1).clamp(min=1e-30)
    return way * scale.view(-1, *[1] * (weight.ndim - 1))


def _loss(model: Model, weights: dict[str, Tensor], exam: Exam) -> float:
    """Bits a token, with other weights; infinite where they compute a NaN or an infinity."""
    with evaluating(model):
        output = functional_call(model.network, weights, (exam.inputs.ids,), _given(model, exam.inputs))
    nats = torch.nn.functional.cross_entropy(output[exam.asked].float(), exam.targets[exam.asked])
    loss = float(nats) / math.log(2)
    return loss if loss == loss else float("inf")


def _given(model: Model, inputs: Inputs) -> dict[str, Any]:
    names = ("mask", "source", "source_mask", "token_types")
    given = {name: getattr(inputs, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}
