"""How good is it now? The validation loss, in nats per token and in bits per byte.

Shapes: B batch, T tokens, V vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch

from cutaway.models import Network
from cutaway.tokenizers import TokenSplit
from cutaway.training.losses import IGNORE, cross_entropy
from cutaway.training.ranks import Ranks

ROWS = 4096  # tokens per forward pass; more is no faster and its logits take a lot of memory


@dataclass(frozen=True)
class Score:
    """A validation loss.

    Attributes:
        loss: mean nats per token.
        bits_per_byte: the same per byte of text, which does not depend on the tokenizer.
        tokens: how many were predicted.
    """

    loss: float
    bits_per_byte: float
    tokens: int


@torch.no_grad()
def evaluate(
    network: Network,
    split: TokenSplit,
    *,
    context: int,
    tokens: int = 0,
    ranks: Ranks | None = None,
    stop: Callable[[], bool] = bool,
) -> Score | None:
    """The loss on a split in windows of `context` tokens, each token predicted once, without dropout.

    Args:
        network: (B, T) ids -> (B, T, V) logits.
        split: what to predict.
        context: T.
        tokens: about how many to count, from the beginning; 0 counts all.
        ranks: processes that share the work.
        stop: asked between batches; if true, None is returned.
    """
    ranks = ranks or Ranks()
    training = network.training
    network.eval()
    rows = max(1, ROWS // context)
    most = None if tokens == 0 else max(1, tokens // (rows * context))
    total, counted = 0.0, 0
    try:
        for ids, targets in islice(split.in_order(rows, context), ranks.rank, most, ranks.world):
            if stop():
                return None
            target = torch.from_numpy(targets)
            total += float(cross_entropy(network(torch.from_numpy(ids)), target, reduction="sum"))
            counted += int((target != IGNORE).sum())
    finally:
        network.train(training)
    total, counted = ranks.sum_exact([total, counted])
    loss = total / counted
    return Score(loss, loss / math.log(2) * split.tokens / max(1, split.bytes), int(counted))
