"""How much each direction of a weight matrix counts: its singular values.

Shapes: R rows, C columns, N singular values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from cutaway.errors import InputError
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Cell, Curve, Panel, Table
from cutaway.interp.weights.tensors import is_matrix, tensors_of
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress

SHOWN = 8  # spectra drawn
POINTS = 64  # of each
CAVEAT = (
    "The tail exponent fits a power law to the largest eigenvalues whether or not they follow one; the distance (of "
    "Kolmogorov and Smirnov) says how badly, and where it is above 0.1 the exponent means little. With few eigenvalues "
    "in the tail it is a rough estimate, and no measure of quality by itself."
)


@dataclass(frozen=True)
class Spectra(Panel):
    """Singular values of matrices.

    Attributes:
        values: name -> (N,) float64, largest first.
    """

    values: Mapping[str, Float64[Tensor, " N"]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Tail:
    """A power law fitted to a tail: density ~ x^-exponent from `least` on.

    Attributes:
        exponent: the maximum-likelihood estimate.
        least: where the tail begins.
        count: how many numbers it has.
        distance: largest difference of the two cumulative distributions.
    """

    exponent: float
    least: float
    count: int
    distance: float


def spectra(
    model: Model, names: str | Iterable[str] = "*", *, tail: bool = True, progress: OnProgress | None = None
) -> Spectra:
    """Singular values of every weight matrix, and what they say of its rank.

    The effective rank is the exponential of the entropy of the singular values' shares (Roy & Vetterli 2007), the
    stable rank ‖W‖² / σ₁². The tail exponent is that of the eigenvalues of WᵀW (Martin & Mahoney 2021), fitted as
    Clauset et al. 2009 do.

    Args:
        model: whose weights, of any kind; quantised ones are dequantised one by one.
        names: patterns of tensor names, such as "layers.*.o_proj.weight"; vectors are left out.
        tail: whether to fit the tails.
        progress: told after each matrix.

    Returns:
        A panel: a table with a row for each matrix, and the spectra of the first few, each divided by its largest.

    Raises:
        ConfigError: a pattern that selects nothing.
        InputError: no matrix among what is selected.
        NonFinite: a weight is a NaN or an infinity.
    """
    given = [names] if isinstance(names, str) else list(names)
    clock = Clock(model, "spectra", names=given, tail=tail)
    found: dict[str, Tensor] = {}
    rows: list[list[Cell]] = []
    for name, tensor in tensors_of(model, given):
        if not is_matrix(tensor):
            continue
        values = torch.linalg.svdvals(tensor.double())
        found[name] = values
        row: list[Cell] = [name, " × ".join(map(str, tensor.shape)), float(values[0])]
        row += [effective_rank(values), _stable_rank(values)]
        fitted = fit_tail(values.square()) if tail else None
        row += [None, None, None] if fitted is None else [fitted.exponent, fitted.count, fitted.distance]
        rows.append(row)
        if progress is not None:
            progress(Progress("spectra", len(rows), None, "matrices"))
    if not rows:
        raise InputError(
            f"{', '.join(given)} selects no matrix, only vectors or stacks; name one such as *q_proj.weight"
        )
    columns = [
        "matrix",
        "shape",
        "largest",
        "effective rank",
        "stable rank",
        "tail exponent",
        "in the tail",
        "distance",
    ]
    receipt = clock.receipt()
    shown = dict(list(found.items())[:SHOWN])
    curve = Curve(
        "singular values by rank, each divided by the largest",
        "rank, as a share of all",
        "σ / largest σ",
        [i / (POINTS - 1) for i in range(POINTS)],
        {name: _sampled(values) for name, values in shown.items()},
        receipt=receipt,
    )
    table = Table("what the singular values say", columns, rows, receipt=receipt)
    return Spectra(
        "singular values of weights",
        {"matrices": table, "singular values": curve},
        [CAVEAT] * tail,
        values=found,
        receipt=receipt,
    )


def effective_rank(values: Float64[Tensor, " N"]) -> float:
    """exp of the entropy of singular values' shares, 1 … N (Roy & Vetterli 2007); 0 of a matrix of zeros."""
    total = values.sum()
    if not total > 0:
        return 0.0
    shares = values[values > 0] / total
    return float(torch.exp(-(shares * shares.log()).sum()))


def _stable_rank(values: Tensor) -> float:
    return float(values.square().sum() / values[0].square()) if values[0] > 0 else 0.0


def fit_tail(numbers: Float64[Tensor, " N"]) -> Tail | None:
    """The power law that fits the largest of some numbers best (Clauset, Shalizi & Newman 2009).

    For each place where the tail may begin the exponent is 1 + n / Σ ln(x / least); the place taken is that where the
    cumulative distributions differ least.

    Returns:
        None of fewer than ten numbers above zero.
    """
    x = numbers[numbers > 0].sort().values
    if len(x) < 10:
        return None
    logs = x.log()
    best: Tail | None = None
    for start in range(len(x) - 5):  # at least five in the tail
        above = float((logs[start:] - logs[start]).sum())
        if above <= 0:
            continue
        count = len(x) - start
        exponent = 1 + count / above
        fitted = 1 - torch.exp((1 - exponent) * (logs[start:] - logs[start]))
        steps = torch.arange(count, dtype=torch.float64) / count
        distance = float(torch.maximum((fitted - steps).abs(), (steps + 1 / count - fitted).abs()).max())
        if best is None or distance < best.distance:
            best = Tail(exponent, float(x[start]), count, distance)
    return best


def _sampled(values: Tensor) -> list[float | None]:
    """A spectrum at POINTS places of its length."""
    if not values[0] > 0:
        return [0.0] * POINTS
    places = [math.floor(i / (POINTS - 1) * (len(values) - 1) + 0.5) for i in range(POINTS)]
    return (values[places] / values[0]).tolist()
