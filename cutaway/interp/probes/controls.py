"""What a probe is compared with: labels that mean nothing, and a model that has learned nothing.

Shapes: N rows, O numbers asked for.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from cutaway.models import Model, build_network


def control_labels(
    labels: Shaped[Tensor, "N ..."], types: Int[Tensor, " N"], generator: torch.Generator
) -> Shaped[Tensor, "N ..."]:
    """A control task (Hewitt & Liang 2019): each type gets one label, drawn as often as labels occur, for all its rows.

    Only remembering which type has which label solves it; nothing about the labels is in the text.

    Args:
        labels: (N,) classes or (N, O) numbers.
        types: of each row, such as its token.
        generator: draws.
    """
    _, number = types.unique(return_inverse=True)
    drawn = torch.randint(len(labels), (int(number.max()) + 1,), generator=generator)
    return labels[drawn][number]


@torch.no_grad()
def untrained_copy(model: Model, *, seed: int = 0) -> Model:
    """A model of the same shape with fresh random weights, for what a shape and its tokens alone bring along.

    Matrices that a fresh network holds at zero, so that its layers write nothing, are drawn too: normal, of 1 /
    sqrt(fan in), so that it has learned nothing but computes something.
    """
    generator = torch.Generator().manual_seed(seed)
    network = build_network(model.config)
    network.reset_parameters(generator)
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[-1]), generator=generator)
    return Model(network.eval().to(model.device), model.tokenizer, f"{model.source} untrained".strip(), mel=model.mel)
