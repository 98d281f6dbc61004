"""Which of several continuations are the best, as the model sees it."""

from __future__ import annotations

from collections.abc import Sequence


def best(logprobs: Sequence[Sequence[float]], n: int) -> list[int]:
    """The numbers of the n continuations of the highest log-probability per token, best first.

    Args:
        logprobs: of each continuation's tokens.
        n: how many.
    """
    means = [sum(one) / len(one) if one else 0.0 for one in logprobs]
    return sorted(range(len(means)), key=lambda number: -means[number])[:n]
