"""How well learned directions match planted ones.

Shapes: W learned features of O channels, P planted ones of Q, which must be as many.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, need


@dataclass(frozen=True)
class Match:
    """How two sets of directions match.

    Attributes:
        mcc: the mean cosine, by absolute value, of pairs in the best one-to-one matching (mean max cosine under the
            Hungarian assignment): 1 where every planted direction, or every learned one if they are fewer, is there.
        unique: share of the learned features whose nearest planted direction is nearest to no other one.
        pairs: (min(W, P), 2) the matching, learned and planted.
        cosines: of each pair.
    """

    mcc: float
    unique: float
    pairs: Int[Tensor, "M 2"]
    cosines: Float[Tensor, " M"]


@torch.no_grad()
def match_directions(learned: Float[Tensor, "W O"], planted: Float[Tensor, "P Q"]) -> Match:
    """Match directions one to one so that their cosines sum to the most (Kuhn 1955).

    Args:
        learned: such as the decoder of a dictionary.
        planted: such as the true ones.

    Raises:
        ConfigError: they have different numbers of channels.
        MissingExtra: scipy, which comes with the extra `classic`, is not installed.
    """
    if learned.shape[1] != planted.shape[1]:
        raise ConfigError(f"directions of {learned.shape[1]} and of {planted.shape[1]} channels cannot be matched")
    assignment = need("scipy.optimize", "classic", "matching directions").linear_sum_assignment
    unit = [d.double() / d.double().norm(dim=1, keepdim=True).clamp_min(1e-30) for d in (learned, planted)]
    cosines = (unit[0] @ unit[1].T).abs()  # (W, P)
    rows, columns = (torch.as_tensor(part) for part in assignment(cosines.numpy(), maximize=True))
    nearest = cosines.argmax(dim=1)
    alone = torch.bincount(nearest, minlength=len(planted))[nearest] == 1
    chosen = cosines[rows, columns]
    return Match(float(chosen.mean()), float(alone.double().mean()), torch.stack((rows, columns), dim=1), chosen)


@torch.no_grad()
def dimensionality(directions: Float[Tensor, "W O"]) -> Float[Tensor, " W"]:
    """How much of a dimension each feature has to itself (Elhage et al. 2022, "Toy Models of Superposition").

    D_i = |w_i|² / Σ_j (ŵ_i · w_j)²: 1 of a feature orthogonal to all others, 1/2 of one that shares a dimension with
    its opposite, 2/5 in a pentagon, 0 of a feature that is not there.
    """
    directions = directions.double()
    length = directions.norm(dim=1)
    unit = directions / length.clamp_min(1e-30)[:, None]
    return length.square() / (unit @ directions.T).square().sum(dim=1).clamp_min(1e-30)
