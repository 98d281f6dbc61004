"""GRU and LSTM against torch's own modules, and the explicit steps against the fused kernels."""

import pytest
import torch
from torch import nn

from cutaway.models import ActiveTap, Recurrent, RecurrentConfig

CELLS = ["gru", "lstm"]


def build(cell: str, **features) -> Recurrent:
    torch.manual_seed(0)
    network = Recurrent(
        RecurrentConfig(**{"vocab_size": 19, "width": 10, "hidden": 12, "layers": 2, "cell": cell, **features})
    )
    with torch.no_grad():
        network.lm_head.weight.normal_()
    return network.eval()


def tokens() -> torch.Tensor:
    return torch.randint(0, 19, (3, 11), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cell", CELLS)
def test_equals_torchs_module(cell: str):
    network = build(cell).double()
    peer = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](10, 12, 2, batch_first=True).double()
    names = {
        f"{part}_l{i}": getattr(network.layers[i], part)
        for i in range(2)
        for part in dict(network.layers[i].named_parameters())
    }
    peer.load_state_dict(names)
    out, _ = peer(network.embed_tokens(tokens()))
    torch.testing.assert_close(network(tokens()), network.lm_head(out), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_explicit_steps_equal_the_kernel_and_record_the_same(cell: str):
    network = build(cell).double()
    kernel, explicit = {}, {}
    plain = network(tokens())
    read = network(tokens(), tap=ActiveTap(network.tap_names(), sink=kernel.__setitem__))
    same = {name: lambda x: x for name in network.tap_names()}
    stepped = network(tokens(), tap=ActiveTap(network.tap_names(), same, explicit.__setitem__))
    assert torch.equal(plain, read)
    torch.testing.assert_close(stepped, plain, rtol=1e-12, atol=1e-12)
    assert list(kernel) == network.tap_names()
    for name in kernel:
        torch.testing.assert_close(kernel[name], explicit[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_an_edited_state_is_carried_on(cell: str):
    network = build(cell).double()

    def forget(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, 4] = 0
        return x

    edits = {
        f"layers.{i}.{name}": forget
        for i in range(2)
        for name in (("hidden",) if cell == "gru" else ("hidden", "cell"))
    }
    edited = network(tokens(), tap=ActiveTap(edits=edits))
    assert torch.equal(edited[:, :4], network(tokens(), tap=ActiveTap(edits=dict.fromkeys(edits, lambda x: x)))[:, :4])
    afresh = network(tokens()[:, 5:])  # a state of zeros is a new beginning
    torch.testing.assert_close(edited[:, 5:], afresh, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_gate_held_shut_carries_the_state(cell: str):
    network = build(cell, layers=1).double()
    if cell == "gru":
        edits = {"layers.0.update": torch.ones_like}
    else:
        edits = {"layers.0.input": torch.zeros_like, "layers.0.forget": torch.ones_like}
    seen = {}
    network(tokens(), tap=ActiveTap(["layers.0.hidden"], edits, seen.__setitem__))
    assert seen["layers.0.hidden"].abs().max() == 0


@pytest.mark.parametrize("cell", CELLS)
def test_cached_equals_uncached_in_any_pieces(cell: str):
    network = build(cell)
    cache = network.new_cache(3)
    pieces = [network(part, cache=cache) for part in tokens().split([4, 1, 6], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), network(tokens()), rtol=1e-5, atol=1e-6)
    assert cache.length == 11


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_reach_every_parameter_in_bfloat16_too(cell: str):
    for dtype in (torch.float32, torch.bfloat16):
        network = build(cell).to(dtype).train()
        network(tokens()).float().square().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
