"""Do two models differ, or would other items have said otherwise?

Shapes: N items, K columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cutaway.errors import ConfigError
from cutaway.evaluation.evaluate import METRICS, Scores
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
        made = []
        for metric in METRICS[first.kind]:
            pair = [metric.columns(one.answers) for one in (first, second)]
            both = (float(metric.statistic(columns.sum(0))) for columns in pair)
            tests = {}
            if metric.name.startswith("acc"):
                a, b = (columns[:, 0].astype(bool) for columns in pair)
                only = int((a & ~b).sum()), int((b & ~a).sum())
                tests = {"mcnemar": mcnemar(*only), "only_first": only[0], "only_second": only[1]}
            made.append(Difference(first.name, metric.name, *both, *_between(*pair, metric.statistic), **tests))
        return made
    if isinstance(first, Perplexity) and isinstance(second, Perplexity):
        pair = [one.pieces for one in (first, second)]
        if first.texts != second.texts or not np.array_equal(*(pieces[:, 2] for pieces in pair)):
            raise ConfigError(f"{first.name} and {second.name} are not the same texts, so they cannot be compared")
        both = (float(bits_per_byte(pieces.sum(0))) for pieces in pair)
        return [Difference(first.name, "bits_per_byte", *both, *_between(*pair, bits_per_byte))]
    raise ConfigError("a suite and a text cannot be compared")


def _between(first: np.ndarray, second: np.ndarray, statistic: Statistic) -> tuple[Figure, float]:
    """The difference of a figure with its interval, and the p value of none."""
    width = first.shape[1]
    columns = np.concatenate((first, second), axis=1)

    def difference(sums: np.ndarray) -> np.ndarray:
        return statistic(sums[..., width:]) - statistic(sums[..., :width])

    return figure(columns, difference), paired_p(columns, difference)
