"""How good is it now? The validation loss and the figures that the objective finds natural."""

from collections.abc import Callable
from itertools import islice

import torch
from torch import nn

from cutaway.training.objectives import Causal, Objective, Score, Split
from cutaway.training.ranks import Ranks


@torch.no_grad()
def evaluate(
    network: nn.Module,
    split: Split,
    *,
    context: int,
    tokens: int = 0,
    objective: Objective = Causal(),  # noqa: B008  # frozen
    ranks: Ranks | None = None,
    stop: Callable[[], bool] = bool,
) -> Score | None:
    """The loss on a split and other figures, without dropout, the same for any number of processes.

    Args:
        network: what the objective trains.
        split: what to predict; in windows of `context` tokens, or example by example.
        context: tokens that the network sees at once.
        tokens: about how many to count, from the beginning; 0 counts all.
        objective: what is scored.
        ranks: processes that share the work.
        stop: asked between batches; if true, None is returned.

    Raises:
        InputError: the split is empty.
    """
    ranks = ranks or Ranks()
    training = network.training
    network.eval()
    sums: list[float] = []
    try:
        most = batches(objective, split, context, tokens)
        for batch in islice(objective.in_order(split, context), ranks.rank, most, ranks.world):
            if stop():
                return None
            measured = objective.measure(network, batch.tensors)
            sums = [a + b for a, b in zip(sums or [0.0] * len(measured), measured, strict=True)]
        if not sums:  # there are fewer batches than processes; the sums of all must have one length
            first = next(objective.in_order(split, context))
            sums = [0.0] * len(objective.measure(network, first.tensors))
    finally:
        network.train(training)
    return objective.score(ranks.sum_exact(sums), split)


def batches(objective: Objective, split: Split, context: int, tokens: int) -> int | None:
    """How many batches have about so many tokens; None: all."""
    rows, size = objective.rows(split, context)
    return None if tokens == 0 else max(1, int(tokens / (rows * size)))
