"""Integrated gradients of any function, whatever it is a function of.

Shapes: N points, X the shape of the function's argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError, NonFinite, unknown
from cutaway.progress import OnProgress, Progress

Rule: TypeAlias = Literal["gauss_legendre", "midpoint", "trapezoid", "left", "right"]
MOST = 1024  # steps: the nodes of Gauss–Legendre are found in a matrix of as many rows and columns
RULES = ("gauss_legendre", "midpoint", "trapezoid", "left", "right")


@dataclass(frozen=True)
class Integral:
    """What each number of x contributes to f(x) - f(baseline).

    Attributes:
        parts: of the shape of x.
        at_x: f(x).
        at_baseline: f(baseline).
        steps: at how many points the gradient was taken.
    """

    parts: Float[Tensor, "*X"]
    at_x: float
    at_baseline: float
    steps: int

    @property
    def total(self) -> float:
        """What there is to explain: f(x) - f(baseline)."""
        return self.at_x - self.at_baseline

    @property
    def gap(self) -> float:
        """How far the parts are from adding up to it, in the unit of f; zero for an exact integral (completeness)."""
        return abs(float(self.parts.double().sum()) - self.total)


def nodes(steps: int, rule: Rule | str = "gauss_legendre") -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Where on [0, 1] a rule looks, and with which weights, both (N,) float64; the weights sum to 1.

    Gauss–Legendre with n nodes is exact for polynomials up to degree 2n - 1, the midpoint and trapezoid rules for
    straight lines.

    Raises:
        ConfigError: an unknown rule.
        InputError: fewer steps than the rule needs, or more than a thousand.
    """
    if rule not in RULES:
        raise ConfigError(unknown("rule", str(rule), RULES))
    least = 2 if rule == "trapezoid" else 1
    if steps < least:
        raise InputError(f"{rule} needs at least {least} step{'s' * (least > 1)}, but {steps} was given")
    if steps > MOST:
        raise InputError(f"at most {MOST:,} steps are taken, but {steps:,} was given")
    if rule == "gauss_legendre":
        at, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
        return torch.from_numpy((at + 1) / 2), torch.from_numpy(weights / 2)
    if rule == "trapezoid":
        weights = torch.full((steps,), 1 / (steps - 1), dtype=torch.float64)
        weights[[0, -1]] /= 2
        return torch.linspace(0, 1, steps, dtype=torch.float64), weights
    first = {"midpoint": 0.5, "left": 0.0, "right": 1.0}[rule]
    return (torch.arange(steps, dtype=torch.float64) + first) / steps, torch.full(
        (steps,), 1 / steps, dtype=torch.float64
    )


def integrate(
    f: Callable[[Tensor], Tensor],
    x: Float[Tensor, "*X"],
    baseline: Float[Tensor, "*Y"] | None = None,
    steps: int = 32,
    rule: Rule | str = "gauss_legendre",
    *,
    batch: int = 64,
    progress: OnProgress | None = None,
) -> Integral:
    """Integrated gradients (Sundararajan et al. 2017): (x - x') · the mean gradient on the straight way from x' to x.

    Args:
        f: from several points (N, *X) to a number for each, (N,); each number must depend on its own point alone.
        x: the point to explain.
        baseline: x', where the way begins; None: zeros.
        steps: at how many points the gradient is taken.
        rule: how the mean is taken: "gauss_legendre" needs the fewest steps for smooth functions.
        batch: most points at a time.
        progress: told at how many points the gradient is known.

    Raises:
        ConfigError: an unknown rule, or a function that gives another shape than one number for each point.
        InputError: too few steps or points at a time, or a baseline of another shape.
        NonFinite: the function or its gradient is not finite somewhere on the way.
    """
    start = torch.zeros_like(x) if baseline is None else baseline.to(x)
    if start.shape != x.shape:
        raise InputError(f"the baseline has shape {tuple(start.shape)}, but x has {tuple(x.shape)}")
    if batch < 1:
        raise InputError(f"batch must be at least 1, but {batch} was given")
    at, weights = (values.to(x) for values in nodes(steps, rule))
    way = x - start
    mean = torch.zeros_like(x)

    def points(places: Tensor) -> Tensor:
        return start + places.view(-1, *[1] * x.ndim) * way

    for first in range(0, steps, batch):
        here = slice(first, first + batch)
        with torch.enable_grad():
            given = points(at[here]).detach().requires_grad_()
            (slopes,) = torch.autograd.grad(_numbers(f, given).sum(), given, allow_unused=True)
        if slopes is None:
            raise ConfigError(
                "no gradient reaches the function's argument: it computes without it, or without autograd"
            )
        mean += torch.tensordot(weights[here], slopes, dims=1)
        if progress is not None:
            progress(Progress("gradients", min(first + batch, steps), steps, "steps"))
    with torch.no_grad():
        ends = _numbers(f, torch.stack((start, x))).double()
    if not (mean.isfinite().all() and ends.isfinite().all()):
        raise NonFinite("the function or its gradient is not finite on the way from the baseline; choose another one")
    return Integral(way * mean, float(ends[1]), float(ends[0]), steps)


def _numbers(f: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
    found = f(given)
    if found.shape != (len(given),):
        raise ConfigError(
            f"the function gave shape {tuple(found.shape)} for {len(given)} points; it must give one number for each"
        )
    return found
