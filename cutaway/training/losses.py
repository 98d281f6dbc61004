"""What training makes small.

Shapes: B batch, T tokens, N = B·T positions, V vocabulary.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# pyright: reportIncompatibleMethodOverride=false
# (autograd.Function declares forward and backward with *args)

IGNORE = -100  # the target of a position that does not count
CHUNK = 1 << 18  # logits taken at once, so that their float32 copies stay in the processor's cache


class _CrossEntropy(Function):
    """Sum over positions, and its gradient in the same pass over the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float, z_loss: float) -> Tensor:
        N, V = logits.shape
        wide = torch.promote_types(logits.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=logits.device)
        wanted = ctx.needs_input_grad[0]
        grad = torch.empty_like(logits) if wanted else None
        counts = targets != IGNORE
        places = targets.clamp_min(0)[:, None]  # (N, 1)
        rows = max(1, CHUNK // V)
        for start in range(0, N, rows):
            part = slice(start, start + rows)
            x, place, counted = logits[part].to(wide), places[part], counts[part]
            log_z = x.logsumexp(-1, keepdim=True)  # (rows, 1)
            loss = log_z - (1 - smoothing) * x.gather(1, place)
            if smoothing:
                loss = loss - smoothing * x.mean(-1, keepdim=True)
            if z_loss:
                loss = loss + z_loss * log_z.square()
            total += loss[counted].sum()
            if grad is None:
                continue
            slope = (x - log_z).exp_()  # (rows, V), softmax; x may be the logits themselves, so not in place
            if z_loss:
                slope.mul_(1 + 2 * z_loss * log_z)
            if smoothing:
                slope.sub_(smoothing / V)
            slope.scatter_add_(1, place, torch.full_like(log_z, smoothing - 1))
            grad[part] = slope.mul_(counted[:, None])
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * scale.to(grad.dtype), None, None, None


def cross_entropy(
    logits: Float[Tensor, "*S V"],
    targets: Int[Tensor, "*S"],
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Float[Tensor, ""]:
    """How surprised the model is by the next token, in nats.

    -log p(target), with the target's probability mass `label_smoothing` spread evenly over the vocabulary (Szegedy et
    al. 2016), plus `z_loss` · log(Z)², Z being the sum of the exponentials (Chowdhery et al. 2022, PaLM). Computed in
    float32 or wider whatever the logits are; the gradient has the logits' dtype.

    Args:
        logits: (…, V).
        targets: (…) int64; positions with IGNORE (-100) do not count.
        label_smoothing: in [0, 1).
        z_loss: its weight.
        reduction: "mean" over the positions that count, or "sum".

    Returns:
        A scalar.
    """
    flat = targets.flatten()
    total: Tensor = _CrossEntropy.apply(logits.flatten(0, -2), flat, label_smoothing, z_loss)  # pyright: ignore[reportAssignmentType]
    return total if reduction == "sum" else total / (flat != IGNORE).sum()


def mse(prediction: Float[Tensor, "*S"], target: Float[Tensor, "*T"]) -> Float[Tensor, ""]:
    """The mean squared error, a scalar; the shapes must be equal."""
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must have one shape")
    return (prediction - target).square().mean()
