"""Values and gradients of the hand-written operations against the plain formulas, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from cutaway.models import fused

B, T, H, D = 2, 7, 3, 8


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def plain_norm(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def plain_rotate(x, angles):
    a, b = x.chunk(2, dim=-1)
    c, s = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat((a * c - b * s, b * c + a * s), dim=-1)


def signed(angles):
    cos = torch.cat((angles.cos(), angles.cos()), -1)[:, None]
    return cos, torch.cat((-angles.sin(), angles.sin()), -1)[:, None]


def plain_attention(q, k, v):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1) @ v


ANGLES = torch.rand(T, D // 2, dtype=torch.float64) * 6


def plain_heads(joined, scales, angles):
    qk, v = joined[:, :, : H + 2], joined[:, :, H + 2 :]
    if scales is not None:
        qk = plain_norm(qk, scales)
    if angles is not None:
        qk = plain_rotate(qk, angles)
    return torch.cat((qk, v), dim=2).transpose(1, 2)


def all_heads(joined, scales, angles):
    cos, sin = signed(angles) if angles is not None else (None, None)
    return torch.cat(fused.heads(joined, scales, cos, sin, H, 1e-6), dim=1)


CASES = {
    "norm": (lambda x, w: fused.rms_norm(x, w, 1e-6), plain_norm, lambda: (draw(B, T, D), draw(D))),
    "relu2": (fused.relu2, lambda x: F.relu(x) ** 2, lambda: (draw(B, T, D),)),
    "heads": (
        lambda x, w: all_heads(x, w, ANGLES),
        lambda x, w: plain_heads(x, w, ANGLES),
        lambda: (draw(B, T, H + 4, D), draw(H + 2, D)),
    ),
    "heads without norm": (
        lambda x: all_heads(x, None, ANGLES),
        lambda x: plain_heads(x, None, ANGLES),
        lambda: (draw(B, T, H + 4, D),),
    ),
    "heads without rotation": (
        lambda x, w: all_heads(x, w, None),
        lambda x, w: plain_heads(x, w, None),
        lambda: (draw(B, T, H + 4, D), draw(H + 2, D)),
    ),
    "joined linear": (
        fused.joined_linear,
        lambda x, *ws: torch.cat([x @ w.T for w in ws], -1),
        lambda: (draw(B, T, D), draw(4, D), draw(2, D), draw(5, D)),
    ),
    "attention": (fused.causal_attention, plain_attention, lambda: tuple(draw(B, H, T, D) for _ in range(3))),
    "attention in blocks": (
        fused.causal_attention,
        plain_attention,
        lambda: tuple(draw(1, 2, 2 * fused.BLOCK + 5, D) for _ in range(3)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_plain_formula(name):
    ours, plain, make = CASES[name]
    torch.manual_seed(0)
    inputs = make()
    value, expected = ours(*inputs), plain(*inputs)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(expected)
    got = torch.autograd.grad(value, inputs, upstream)
    want = torch.autograd.grad(expected, inputs, upstream)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-12)


def test_norm_of_half_precision_sums_in_float32():
    x = torch.full((1, 4096), 3.0, dtype=torch.bfloat16)
    out = fused.rms_norm(x, torch.ones(4096, dtype=torch.bfloat16), 1e-6)
    assert torch.equal(out, torch.ones_like(out))
