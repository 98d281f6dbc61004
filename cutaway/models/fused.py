"""Operations whose gradients are written by hand.

Autograd's own gradients of these take two to five times as many passes over memory, and on a CPU the passes are what a
small model's training step is made of. Each function computes the plain formula that its docstring states; tests hold
values and gradients against it in float64. They work in every dtype and on every device.

Shapes: B batch, T tokens, C channels, H heads, K key/value heads, D head dim.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from cutaway.models.products import product

# pyright: reportIncompatibleMethodOverride=false
# (autograd.Function declares forward and backward with *args)


# Causal attention in blocks of this many queries, each with the keys up to its last: skips most of the future.
BLOCK = 128


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x²) + eps) over the last dimension, kept; half precision is summed in float32."""
    wide = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = _inverse_rms(x, eps)
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        return unit * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        unit, scale, weight = ctx.saved_tensors
        width = unit.shape[-1]
        along = grad * unit
        weight_grad = along.flatten(0, -1 - weight.ndim).sum(0) if ctx.needs_input_grad[1] else None
        mean = (along.mul_(weight)).sum(-1, keepdim=True)
        return (grad * weight).addcmul_(unit, mean, value=-1 / width).mul_(scale), weight_grad, None


def rms_norm(x: Float[Tensor, "*S C"], weight: Float[Tensor, "*H C"], eps: float) -> Float[Tensor, "*S C"]:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension (Zhang & Sennrich 2019).

    Args:
        x: (…, C).
        weight: (C,), or (H, C) when the last two dimensions of x have scales of their own.
        eps: added to the mean square.
    """
    return _RMSNorm.apply(x, weight, eps)  # pyright: ignore[reportReturnType]


class _ReLU2(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return torch.addcmul(grad.new_zeros(()), grad, positive, value=2)  # one pass


def relu2(x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Squared ReLU, max(x, 0)² (So et al. 2021, Primer)."""
    return _ReLU2.apply(x)  # pyright: ignore[reportReturnType]


def _swap(x: Tensor, turned: int) -> Tensor:
    """The two halves of the first `turned` channels exchanged."""
    if turned == x.shape[-1]:
        return x.roll(turned // 2, -1)
    return torch.cat((x[..., turned // 2 : turned], x[..., : turned // 2], x[..., turned:]), dim=-1)


class _Heads(Function):
    @staticmethod
    def forward(
        ctx: Any,
        joined: Tensor,
        scales: Tensor | None,
        cos: Tensor | None,
        sin: Tensor | None,
        heads: int,
        eps: float,
        turned: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        kv_heads = (joined.shape[2] - heads) // 2
        qk, v = joined.split([heads + kv_heads, kv_heads], dim=2)
        scale = None
        if scales is not None:
            scale = _inverse_rms(qk, eps)
            qk = qk * scale
        ctx.save_for_backward(qk, scale, scales, cos, sin)
        ctx.heads, ctx.turned = heads, turned
        if cos is not None and sin is not None:  # the scales fold into the small tables of cosines and sines
            by, by_swapped = (cos, sin) if scales is None else (scales * cos, _swap(scales, turned) * sin)
            qk = (qk * by).addcmul_(_swap(qk, turned), by_swapped)
        else:
            qk = qk if scales is None else qk * scales
        qk = qk.transpose(1, 2)
        return qk[:, :heads].contiguous(), qk[:, heads:].contiguous(), v.transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, q_grad: Tensor, k_grad: Tensor, v_grad: Tensor) -> tuple[Tensor | None, ...]:
        unit, scale, scales, cos, sin = ctx.saved_tensors
        B, T, N, D = unit.shape
        joined_grad = unit.new_empty(B, T, N + v_grad.shape[1], D)
        joined_grad[:, :, N:] = v_grad.transpose(1, 2)
        grad = torch.empty_like(unit, memory_format=torch.contiguous_format)
        grad[:, :, : ctx.heads] = q_grad.transpose(1, 2)
        grad[:, :, ctx.heads :] = k_grad.transpose(1, 2)
        if cos is not None:
            grad = torch.addcmul(_swap(grad * sin, ctx.turned), grad, cos)
        scales_grad = None
        if scales is not None:
            along = grad * unit
            scales_grad = along.flatten(0, 1).sum(0) if ctx.needs_input_grad[1] else None
            mean = along.mul_(scales).sum(-1, keepdim=True)
            grad = (grad * scales).addcmul_(unit, mean, value=-1 / D).mul_(scale)
        joined_grad[:, :, :N] = grad
        return joined_grad, scales_grad, None, None, None, None, None


def heads(
    joined: Float[Tensor, "B T N D"],
    scales: Float[Tensor, "HK D"] | None,
    cos: Float[Tensor, "*BT 1 D"] | None,
    sin: Float[Tensor, "*BT 1 D"] | None,
    count: int,
    eps: float,
    turned: int | None = None,
) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B K T D"], Float[Tensor, "B K T D"]]:
    """Queries, keys and values out of their joined product; queries and keys are normed and turned on the way.

    Args:
        joined: (B, T, H + 2K, D), the heads of q, then k, then v.
        scales: (H + K, D) of the RMS norm over each query and key head; None leaves them as they are.
        cos: (T, 1, D) or (B, T, 1, D) for rotary positions, which map x to x · cos + swap(x) · sin; None for others.
        sin: like cos, negative in the first half of what is turned.
        count: H.
        eps: of the norm.
        turned: how many channels of a head are turned, the first ones; None: all.

    Returns:
        q (B, H, T, D), k and v (B, K, T, D), each contiguous.
    """
    return _Heads.apply(joined, scales, cos, sin, count, eps, turned or joined.shape[-1])  # pyright: ignore[reportReturnType]


class _JoinedLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        joined = torch.cat(weights)
        ctx.save_for_backward(x, joined)
        ctx.rows = [weight.shape[0] for weight in weights]
        return F.linear(x, joined) if any(ctx.needs_input_grad[1:]) else product(x, joined)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, joined = ctx.saved_tensors
        if not any(ctx.needs_input_grad[1:]):  # attributions ask for the gradient of x alone
            return (product(grad, joined.mT), *[None] * len(ctx.rows))
        grad = grad.flatten(0, -2)
        x_grad = (grad @ joined).view_as(x)
        return (x_grad, *(grad.mT @ x.flatten(0, -2)).split(ctx.rows))


def joined_linear(x: Float[Tensor, "*S C"], *weights: Float[Tensor, "_ C"]) -> Float[Tensor, "*S N"]:
    """x times several matrices as one product: (…, C) and (N_i, C) -> (…, sum of N_i)."""
    if not torch.is_grad_enabled():  # joining what comes out moves less memory than joining matrices
        return torch.cat([product(x, weight) for weight in weights], dim=-1)
    return _JoinedLinear.apply(x, *weights)  # pyright: ignore[reportReturnType]


class _CausalAttention(Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        T, D = q.shape[-2:]
        shape = q.shape
        q, k, v = (x.reshape(-1, T, D) for x in (q, k, v))
        z = torch.empty_like(q)
        patterns = []
        for start in range(0, T, BLOCK):
            end = min(start + BLOCK, T)
            future = q.new_full((end - start, end), -math.inf).triu_(start + 1)
            scores = torch.baddbmm(future, q[:, start:end], k[:, :end].mT, alpha=scale)
            patterns.append(scores.softmax(dim=-1))  # (BH, block, end)
            z[:, start:end] = torch.bmm(patterns[-1], v[:, :end])
        ctx.save_for_backward(q, k, v, *patterns)
        ctx.scale = scale
        return z.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *patterns = ctx.saved_tensors
        shape, T, scale = grad.shape, q.shape[1], ctx.scale
        grad = grad.reshape(q.shape)
        q_grad, k_grad, v_grad = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for start, pattern in zip(range(0, T, BLOCK), patterns, strict=True):
            end = min(start + BLOCK, T)
            block = grad[:, start:end]
            scores = torch.bmm(block, v[:, :end].mT)
            scores = torch.ops.aten._softmax_backward_data(scores, pattern, -1, pattern.dtype)
            q_grad[:, start:end] = torch.bmm(scores, k[:, :end]).mul_(scale)
            k_grad[:, :end].baddbmm_(scores.mT, q[:, start:end], alpha=scale)
            v_grad[:, :end].baddbmm_(pattern.mT, block)
        return q_grad.view(shape), k_grad.view(shape), v_grad.view(shape), None


def causal_attention(
    q: Float[Tensor, "B H T D"], k: Float[Tensor, "B H T D"], v: Float[Tensor, "B H T D"], scale: float | None = None
) -> Float[Tensor, "B H T D"]:
    """softmax(q kᵀ · scale, past only) v, all (B, H, T, D), keeping the whole pattern for the gradient.

    For training on a CPU: torch's own bfloat16 kernel takes three times as long there, most of it in the gradient.
    """
    return _CausalAttention.apply(q, k, v, q.shape[-1] ** -0.5 if scale is None else scale)  # pyright: ignore[reportReturnType]
