"""Do two models differ, or would other items have said otherwise?

Shapes: N items, K columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cutaway.errors import ConfigError
from cutaway.evaluation.evaluate import METRICS, Metric, Scores
from cutaway.evaluation.perplexity import Perplexity, bits_per_byte
from cutaway.evaluation.significance import Figure, Statistic, figure, mcnemar, paired_p


@dataclass(frozen=True)
class Difference:
    """Of a figure of two models on the same items.

    Attributes:
        name: of the suite or the texts.
        metric: of the figure.
        first: of the first model.
        second: of the second.
        difference: second minus first, with its 95 % interval (paired bootstrap).
        p: of no difference, by the paired bootstrap, two-sided.
        mcnemar: of accuracies, the exact p of McNemar's test; else None.
        only_first: items that the first alone has right; of other figures None.
        only_second: items that the second alone has right; of other figures None.
    """

    name: str
    metric: str
    first: float
    second: float
    difference: Figure
    p: float
    mcnemar: float | None = None
    only_first: int | None = None
    only_second: int | None = None


def compare(first: Scores | Perplexity, second: Scores | Perplexity) -> list[Difference]:
    """How two models differ on the same suite, or the same texts, in each figure.

    Of texts only bits per byte are compared, as perplexities are of each model's own tokens.

    Raises:
        ConfigError: not the same questions or texts.
    """
    if isinstance(first, Scores) and isinstance(second, Scores):
        if [a.item for a in first.answers] != [b.item for b in second.answers]:
            raise ConfigError(f"{first.name} and {second.name} are not the same questions, so they cannot be compared")
        return [
            _accuracies(first, second, metric)
            if metric.name.startswith("acc")
            else _difference(first.name, metric.name, *_columns(first, second, metric), metric.statistic)
            for metric in METRICS[first.kind]
        ]
    if isinstance(first, Perplexity) and isinstance(second, Perplexity):
        pair = first.pieces, second.pieces
        if first.texts != second.texts or not np.array_equal(first.pieces[:, 2], second.pieces[:, 2]):
            raise ConfigError(f"{first.name} and {second.name} are not the same texts, so they cannot be compared")
        return [_difference(first.name, "bits_per_byte", *pair, bits_per_byte)]
    raise ConfigError("a suite and a text cannot be compared")


def _columns(first: Scores, second: Scores, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    return metric.columns(first.answers), metric.columns(second.answers)


def _accuracies(first: Scores, second: Scores, metric: Metric) -> Difference:
    """The difference of two accuracies, with McNemar's test."""
    pair = _columns(first, second, metric)
    a, b = (columns[:, 0].astype(bool) for columns in pair)
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    made = _difference(first.name, metric.name, *pair, metric.statistic)
    p = mcnemar(only_first, only_second)
    return replace(made, mcnemar=p, only_first=only_first, only_second=only_second)


def _difference(name: str, metric: str, first: np.ndarray, second: np.ndarray, statistic: Statistic) -> Difference:
    """The difference of a figure with its interval, and the p value of none."""
    width = first.shape[1]
    columns = np.concatenate((first, second), axis=1)

    def difference(sums: np.ndarray) -> np.ndarray:
        return statistic(sums[..., width:]) - statistic(sums[..., :width])

    values = float(statistic(first.sum(0))), float(statistic(second.sum(0)))
    return Difference(name, metric, *values, figure(columns, difference), paired_p(columns, difference))
