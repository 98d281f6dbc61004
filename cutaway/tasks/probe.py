"""A head that begins as a logistic regression on what a checkpoint makes of the texts already.

One reading of the training texts, and a convex problem: in seconds that is often most of what fine-tuning gives; and
fine-tuning that begins there changes the body less and needs fewer passes (Kumar et al. 2022).

Shapes: N texts, C channels, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.errors import ConfigError
from cutaway.generation.engine import Engine
from cutaway.models import Model
from cutaway.models.heads import Head
from cutaway.progress import OnProgress, Progress
from cutaway.tasks.reading import read_all
from cutaway.tasks.start import with_head
from cutaway.training.plan import matmul_rate

PRIOR = 1e-2  # of small weights, of channels of one spread
ITERATIONS = 100
SMALLEST = 1e-2  # spread of a channel that is scaled up no further


def fit_head(
    model: Model,
    ids: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    *,
    weights: Sequence[float] = (),
    bf16: bool = True,
    progress: OnProgress | None = None,
) -> None:
    """Give a model the head of a logistic regression on its pooled vectors.

    Args:
        model: with a head for labels of whole texts, whose weights are changed.
        ids: of each text, with special tokens.
        targets: of each, the number of its label (1,) int64; or (L,) float32 where several may hold.
        weights: of the labels; (): all 1.
        bf16: whether texts may be read in bfloat16, where that is faster.
        progress: told now and then.

    Raises:
        ConfigError: a head with a layer of its own between the pooled vector and the labels.
    """
    head = getattr(model.network, "head", None)
    if not isinstance(head, Head) or head.config.head_activation != "none":
        raise ConfigError("probe needs a head of one matrix on pooled vectors; leave it out")
    body = with_head(model, {"head": "embedding", "labels": (), "labelling": "one", "normalize": False, "dropout": 0.0})
    if bf16 and matmul_rate(torch.bfloat16) > matmul_rate(torch.float32):
        body.network.to(torch.bfloat16)
    body.network.eval()
    vectors = torch.stack(read_all(Engine(body), [row.tolist() for row in ids], progress=progress)).double()
    if progress:
        progress(Progress("fitting the head", 0))
    true = torch.from_numpy(np.stack(targets))
    weight, bias = logistic_head(
        vectors, true if true.is_floating_point() else true[:, 0], len(head.config.labels), weights
    )
    with torch.no_grad():
        head.out.weight.copy_(weight)
        if isinstance(head.out.bias, nn.Parameter):
            head.out.bias.copy_(bias)


def logistic_head(vectors: Tensor, targets: Tensor, count: int, weights: Sequence[float] = ()) -> tuple[Tensor, Tensor]:
    """A logistic regression on vectors (N, C): its matrix (L, C) and bias (L,).

    Args:
        vectors: (N, C) float64.
        targets: (N,) int64, or (N, L) in 0 … 1 where several labels may hold.
        count: of labels, L.
        weights: of the labels; (): all 1.
    """
    mean, spread = vectors.mean(0), vectors.std(0, correction=0).clamp(min=SMALLEST)
    x = (vectors - mean) / spread
    several, each = targets.ndim == 2, torch.tensor(weights or [1.0] * count, dtype=torch.float64)
    matrix = torch.zeros(vectors.shape[1], count, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([matrix, bias], max_iter=ITERATIONS, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        logits = x @ matrix + bias
        if several:
            loss = F.binary_cross_entropy_with_logits(logits, targets.double(), pos_weight=each, reduction="sum")
            loss = loss / len(x)
        else:
            loss = F.cross_entropy(logits, targets, weight=each)
        loss = loss + PRIOR / 2 * matrix.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        search.step(closure)  # pyright: ignore[reportArgumentType]
    scaled = matrix.detach() / spread[:, None]
    return scaled.T, bias.detach() - mean @ scaled
