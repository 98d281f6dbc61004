"""The small fits behind probes: logistic and ridge regression, in float64, without a library.

Written here rather than taken from scikit-learn, which the tests hold it against: probing then needs nothing that
Cutaway does not need anyway, and it stays in torch.

Shapes: N rows, C channels, K classes, O numbers asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """A linear reader of activations.

    Attributes:
        weight: (C, K) of classes, or (C, O) of numbers; reads activations as they are.
        bias: (K,) or (O,).
    """

    weight: Float[Tensor, "C K"]
    bias: Float[Tensor, " K"]

    def __call__(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """Logits of classes, or predicted numbers."""
        return x.double() @ self.weight + self.bias


def fit_classes(x: Float[Tensor, "N C"], y: Int[Tensor, " N"], classes: int, penalty: float = 1.0) -> Fit:
    """Multinomial logistic regression with an L2 penalty on the weights of standardised channels.

    Minimises the sum of cross-entropies (nats) plus penalty / 2 times the sum of squared weights; the bias goes free.
    With two classes the two columns of weights are opposite, and scikit-learn's C is 2 / penalty.

    Args:
        x: activations.
        y: classes from 0.
        classes: how many there are.
        penalty: above 0, so that there is one solution.
    """
    x, centre, scale = _standardised(x)
    weight = torch.zeros(x.shape[1] + 1, classes, dtype=torch.float64, requires_grad=True)  # the bias is the last row
    search = torch.optim.LBFGS(
        [weight], max_iter=500, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        logits = x @ weight[:-1] + weight[-1]
        value = F.cross_entropy(logits, y) + penalty / (2 * len(y)) * weight[:-1].square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        search.step(loss)  # pyright: ignore[reportArgumentType]
    return _unstandardised(weight.detach(), centre, scale)


def fit_numbers(x: Float[Tensor, "N C"], y: Float[Tensor, "N O"], penalty: float = 1.0) -> Fit:
    """Ridge regression on standardised channels, in closed form; the bias goes free."""
    x, centre, scale = _standardised(x)
    mean = y.double().mean(0)
    # with more channels than rows the smaller system of the two is solved
    eye = torch.eye(min(x.shape), dtype=torch.float64)
    if x.shape[0] < x.shape[1]:
        weight = x.T @ torch.linalg.solve(x @ x.T + penalty * eye, y.double() - mean)
    else:
        weight = torch.linalg.solve(x.T @ x + penalty * eye, x.T @ (y.double() - mean))
    return _unstandardised(torch.cat((weight, mean[None])), centre, scale)


def _standardised(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x.double()
    centre, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 1e-12, scale, 1)  # a channel that never moves says nothing
    return (x - centre) / scale, centre, scale


def _unstandardised(weight: Tensor, centre: Tensor, scale: Tensor) -> Fit:
    own = weight[:-1] / scale[:, None]
    return Fit(own, weight[-1] - centre @ own)


def best_channels(x: Float[Tensor, "N C"], y: Tensor, count: int) -> Int[Tensor, " k"]:
    """The channels that tell most about the labels one by one (Gurnee et al. 2023, "Finding Neurons in a Haystack").

    By the F statistic: how far the classes' means lie apart over how far the rows of a class do; of numbers by the
    squared correlation.

    Args:
        x: activations.
        y: (N,) classes, or (N, O) numbers.
        count: how many, at most C.
    """
    x = x.double()
    centred = x - x.mean(0)
    total = centred.square().sum(0)
    if y.is_floating_point():
        number = y.double() - y.double().mean(0)
        between = ((centred.T @ number).square() / number.square().sum(0).clamp_min(1e-30)).sum(1)
    else:
        one_hot = F.one_hot(y).double()
        between = ((one_hot.T @ centred).square() / one_hot.sum(0)[:, None].clamp_min(1)).sum(0)
    share = torch.where(total > 1e-20, between / total.clamp_min(1e-30), 0)
    return share.topk(min(count, x.shape[1])).indices


def share_right(fit: Fit, x: Float[Tensor, "N C"], y: Int[Tensor, " N"]) -> float:
    """The share of rows whose likeliest class is theirs."""
    return float((fit(x).argmax(-1) == y).double().mean())


def explained(fit: Fit, x: Float[Tensor, "N C"], y: Float[Tensor, "N O"]) -> float:
    """R²: 1 where all is predicted, 0 where the mean is as good; of several numbers their mean."""
    y = y.double()
    missed = (fit(x) - y).square().sum(0)
    return float((1 - missed / (y - y.mean(0)).square().sum(0).clamp_min(1e-30)).mean())


def interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` rows (Wilson 1927), which holds near 0 and 1 too."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def resampled(
    fit: Fit, x: Float[Tensor, "N C"], y: Float[Tensor, "N O"], generator: torch.Generator, times: int = 200
) -> tuple[float, float]:
    """A 95 % interval of R² by drawing the rows anew (Efron 1979)."""
    predicted, y = fit(x), y.double()
    drawn = torch.randint(len(y), (times, len(y)), generator=generator)
    missed = (predicted - y).square()[drawn].sum(1)  # (times, O)
    spread = (y[drawn] - y[drawn].mean(1, keepdim=True)).square().sum(1)
    scores = (1 - missed / spread.clamp_min(1e-30)).mean(-1)
    low, high = scores.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def split_texts(texts: Int[Tensor, " N"], held_out: float, generator: torch.Generator) -> Bool[Tensor, " N"]:
    """Which rows are held out: all rows of a text together, so that no text is on both sides."""
    count = int(texts.max()) + 1
    order = torch.randperm(count, generator=generator)
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[order[: min(max(round(held_out * count), 1), count - 1)]] = True
    return chosen[texts]
