"""Through what is not linear: a number attributed to the parts of a sum that a norm, gate or soft-cap stands behind.

Held at its actual scale, a norm gives each part what it is worth beside all others. Two other ways do not hold it:

- Shapley values (Shapley 1953; sampled as in Castro et al. 2009): what a part adds to the parts that came before it,
  on average over orders. Each order's contributions add up to the number, so the sum is exact; each value is a mean of
  samples, and its standard error is stated.
- Integrated gradients (Sundararajan et al. 2017) along the straight path from no part to all parts. The integral is
  computed by Gauss–Legendre nodes that stand closer together near zero, where a norm turns fastest; what it misses is
  the gap of the receipt. A norm hardly changes with the length of its input, so nearly all is gained near zero, where
  the parts' directions count for more than at their actual lengths: read such values with care.

Shapes: P parts, C channels, S samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.interp.ledger.ledger import Ledger, Term
from cutaway.interp.ledger.reading import Run

STRETCH = 18.0  # the nodes' distances grow by e^18 from the first to the last


@dataclass(frozen=True)
class Game:
    """A number as a function of a sum of parts.

    Attributes:
        what: the number, to be read.
        names: of the parts.
        labels: of the parts.
        vectors: (P, C) float64.
        function: (…, C) -> (…).
        total: the number.
    """

    what: str
    names: list[str]
    labels: list[str]
    vectors: Tensor
    function: Callable[[Tensor], Tensor]
    total: float


def shapley(run: Run, game: Game, samples: int, seed: int) -> Ledger:
    """Each part's mean contribution over so many random orders."""
    if samples < 2:
        raise ConfigError(f"a standard error needs at least 2 orders, but samples={samples} was given")
    generator = torch.Generator().manual_seed(seed)
    count, width = game.vectors.shape
    nothing = game.function(torch.zeros(1, width, dtype=torch.float64))
    gained = torch.empty(samples, count, dtype=torch.float64)
    for sample in range(samples):
        order = torch.randperm(count, generator=generator)
        made = game.function(game.vectors[order].cumsum(0))  # (P,), after each part
        gained[sample, order] = torch.diff(made, prepend=nothing)
    values, spreads = gained.mean(0), gained.std(0) / math.sqrt(samples)
    return _ledger(run, game, "Shapley values", values, float(nothing), spreads)


def integrated(run: Run, game: Game, samples: int) -> Ledger:
    """Each part's gradient, averaged over so many nodes on the way from zero to the sum."""
    if samples < 1:
        raise ConfigError(f"integrated gradients need at least 1 node, but samples={samples} was given")
    nodes, weights = np.polynomial.legendre.leggauss(samples)
    at = torch.from_numpy((nodes + 1) / 2 * STRETCH)
    share = at.sinh() / math.sinh(STRETCH)  # of the way, (S,)
    weight = torch.from_numpy(weights / 2 * STRETCH) * at.cosh() / math.sinh(STRETCH)
    with torch.enable_grad():
        x = (share[:, None] * game.vectors.sum(0)).requires_grad_()  # (S, C)
        (slopes,) = torch.autograd.grad(game.function(x).sum(), x)
    values = game.vectors @ (weight @ slopes)
    nothing = game.function(torch.zeros(1, game.vectors.shape[1], dtype=torch.float64))
    return _ledger(run, game, "integrated gradients", values, float(nothing), None)


def _ledger(run: Run, game: Game, how: str, values: Tensor, nothing: float, spreads: Tensor | None) -> Ledger:
    spread = [0.0] * len(values) if spreads is None else spreads.tolist()
    terms = [Term("nothing", nothing, "where no part is there")]
    for name, value, label, error in zip(game.names, values.tolist(), game.labels, spread, strict=True):
        terms.append(Term(name, value, label, spread=error))
    what = f"{game.what}, by {how}"
    return Ledger(what, tuple(terms), game.total, {}, run.unit, exact=spreads is not None, receipt=run.receipt)
