"""Losses and their gradients against torch's, and against what the formulas say."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.training import cross_entropy, losses, mse


def example(V: int = 11, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 5, V, generator=draw, dtype=torch.float64)
    targets = torch.randint(0, V, (2, 5), generator=draw)
    targets[0, 3] = targets[1, 0] = -100
    return logits.to(dtype).requires_grad_(), targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 30, 1 << 18])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_equals_torch(smoothing: float, chunk: int, reduction: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(losses, "CHUNK", chunk)
    logits, targets = example()
    ours = cross_entropy(logits, targets, label_smoothing=smoothing, reduction=reduction)
    (our_grad,) = torch.autograd.grad(ours * 3, logits)
    theirs = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=smoothing, reduction=reduction)
    (their_grad,) = torch.autograd.grad(theirs * 3, logits)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(our_grad, their_grad)


def test_z_loss_is_the_square_of_log_z_and_so_is_its_gradient():
    logits, targets = example()
    ours = cross_entropy(logits, targets, label_smoothing=0.2, z_loss=0.3)
    kept = targets != -100
    plain = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.2)
    theirs = plain + 0.3 * logits.logsumexp(-1)[kept].square().mean()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits))


def test_worked_by_hand():
    logits = torch.tensor([[math.log(1.0), math.log(3.0)]])  # probabilities 1/4 and 3/4, Z = 4
    target = torch.tensor([1])
    assert cross_entropy(logits, target).item() == pytest.approx(math.log(4 / 3))
    smoothed = -0.9 * math.log(3 / 4) - 0.05 * (math.log(3 / 4) + math.log(1 / 4)) + 0.05 * math.log(3 / 4) * 0
    assert cross_entropy(logits, target, label_smoothing=0.1).item() == pytest.approx(smoothed)
    assert cross_entropy(logits, target, z_loss=0.5).item() == pytest.approx(math.log(4 / 3) + 0.5 * math.log(4) ** 2)


def test_half_precision_is_summed_in_float32():
    logits, targets = example(dtype=torch.bfloat16)
    ours = cross_entropy(logits, targets)
    exact = F.cross_entropy(logits.detach().double().flatten(0, 1), targets.flatten())
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(exact.item(), rel=1e-6)
    ours.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


def test_what_does_not_count_has_no_gradient_and_a_nan_there_stays_out():
    logits, targets = example()
    with torch.no_grad():
        logits[0, 3] = 1e4
    cross_entropy(logits, targets, z_loss=0.1).backward()
    assert logits.grad is not None
    assert not logits.grad[0, 3].any()
    assert logits.grad[0, 2].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_logits_are_left_as_they_are(dtype: torch.dtype):
    logits, targets = example(dtype=dtype)
    before = logits.detach().clone()
    cross_entropy(logits, targets, z_loss=0.1).backward()
    assert torch.equal(before, logits)


def test_a_nan_is_not_hidden():
    logits, targets = example()
    with torch.no_grad():
        logits[0, 0, 0] = math.nan
    assert cross_entropy(logits, targets).isnan()


def test_mse():
    a, b = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([0.0, 4.0])
    assert mse(a, b).item() == 2.5
    torch.testing.assert_close(torch.autograd.grad(mse(a, b), a)[0], torch.tensor([1.0, -2.0]))
    with pytest.raises(ValueError, match="one shape"):
        mse(a, b[None])
