"""Each optimiser against torch.optim, or against what its paper promises."""

import copy

import pytest
import torch
from torch import nn

from cutaway.errors import ConfigError, DamagedFile
from cutaway.training.optim import Optimizer, OptimizerConfig, orthogonalise


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def loss_of(net: nn.Module, step: int) -> torch.Tensor:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
    return (net(x) - x[:, :3]).square().mean()


PEERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.03),
    "momentum": lambda groups: torch.optim.SGD(groups, lr=0.03, momentum=0.9),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.03, betas=(0.9, 0.98)),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.03, betas=(0.9, 0.98)),
}


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", PEERS)
def test_equals_torch(name: str, decay: float):
    ours, theirs = network(), network()
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    peer = PEERS[name](groups)
    mine = Optimizer(OptimizerConfig(name, lr=0.03, momentum=0.9, weight_decay=decay), ours)
    for step in range(20):
        loss_of(ours, step).backward()
        mine.step()
        peer.zero_grad()
        loss_of(theirs, step).backward()
        peer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (2, 32, 8)])
def test_orthogonalise_brings_singular_values_near_one_and_keeps_the_directions(shape: tuple[int, ...]):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalise(matrices).float())
    assert values.min() > 0.5
    assert values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    alike = (orthogonalise(matrices).float() * (u @ vh)).sum((-2, -1)) / min(shape[1:])
    assert (alike > 0.6).all()


def test_muon_moves_matrices_by_its_rate_and_leaves_the_rest_to_adamw():
    net = network()
    before = copy.deepcopy(net)
    mine = Optimizer(OptimizerConfig("muon", lr=0.02, lr_rest=0.001), net)
    loss_of(net, 0).backward()
    mine.step()
    bias = (net[0].bias - before[0].bias).detach().norm(2)  # pyright: ignore
    step = torch.linalg.matrix_norm((net[2].weight - before[2].weight).detach(), 2)  # pyright: ignore
    assert 0.7 * 0.02 < step < 1.3 * 0.02
    assert bias == pytest.approx(0.001 * 8**0.5, rel=1e-3)  # Adam's first step is lr in each coordinate


def test_worker_in_bfloat16_follows_the_float32_weights():
    net = network()
    worker = copy.deepcopy(net).bfloat16()
    mine = Optimizer(OptimizerConfig("adamw"), net, worker)
    x = torch.randn(5, 6).bfloat16()
    for _ in range(3):
        worker(x).float().square().mean().backward()
        assert mine.grad_norm() > 0
        mine.step()
        assert mine.grad_norm() == 0
    for master, copied in zip(net.parameters(), worker.parameters(), strict=True):
        assert torch.equal(master.bfloat16(), copied)
        assert master.dtype == torch.float32


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw", "muon"])
def test_state_restored_continues_bit_for_bit(name: str):
    straight, stopped = network(), network()
    one, two = Optimizer(OptimizerConfig(name), straight), Optimizer(OptimizerConfig(name), stopped)
    for step in range(6):
        for net, opt in ((straight, one), (stopped, two)):
            loss_of(net, step).backward()
            opt.step(0.5)
        if step == 2:
            state = {k: v.clone() for k, v in two.state().items()}
            resumed = network()
            resumed.load_state_dict(stopped.state_dict())
            stopped, two = resumed, Optimizer(OptimizerConfig(name), resumed)
            two.load(state)
    for a, b in zip(straight.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(a, b)


def test_state_of_another_network_is_refused():
    state = Optimizer(OptimizerConfig("adam"), network()).state()
    del state["0.weight/mean"]
    with pytest.raises(DamagedFile, match=r"0\.weight/mean"):
        Optimizer(OptimizerConfig("adam"), network()).load(state)


def test_unknown_name_is_met_with_near_matches():
    with pytest.raises(ConfigError, match="did you mean adamw"):
        OptimizerConfig("adamwx")
