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
def test_explicit_steps_equal_the_kernel_in_float32(cell: str):
    network = build(cell)
    stepped = network(tokens(), tap=ActiveTap(edits={"layers.0.candidate": lambda x: x}))
    torch.testing.assert_close(stepped, network(tokens()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_an_edit_takes_effect_once_at_each_step(cell: str):
    network = build(cell, layers=1).double()
    peer = {"gru": nn.GRUCell, "lstm": nn.LSTMCell}[cell](10, 12).double()
    peer.load_state_dict(dict(network.layers[0].named_parameters()))
    hidden, carried, outputs = torch.zeros(3, 12).double(), torch.zeros(3, 12).double(), []
    for x in network.embed_tokens(tokens()).unbind(1):
        if cell == "gru":
            hidden = peer(x, hidden) / 2 + 0.1
        else:
            hidden, carried = peer(x, (hidden, carried))
            hidden = hidden / 2 + 0.1
        outputs.append(hidden)
    expected, seen = torch.stack(outputs, 1), []
    tap = ActiveTap(
        ["layers.0.hidden"], {"layers.0.hidden": lambda x: x / 2 + 0.1}, lambda name, x: seen.append((name, x))
    )
    logits = network(tokens(), tap=tap)
    torch.testing.assert_close(logits, network.lm_head(expected), rtol=1e-12, atol=1e-12)
    assert [name for name, _ in seen] == ["layers.0.hidden"]  # shown once, whole, as it was used
    torch.testing.assert_close(seen[0][1], expected, rtol=1e-12, atol=1e-12)


def test_an_edit_sees_what_was_computed_at_the_steps_before():
    network = build("gru", layers=1).double()
    seen: list[torch.Tensor] = []

    def watch(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return x.fill_(0.5)  # in place, which must not reach what later steps are shown

    network(tokens(), tap=ActiveTap(edits={"layers.0.update": watch}))
    assert len(seen) == 11
    for t, history in enumerate(seen):
        assert history.shape == (3, 11, 12)
        assert torch.equal(history[:, : t + 1], seen[-1][:, : t + 1])
        assert history[:, t].abs().min() > 0
        assert history[:, t + 1 :].abs().sum() == 0


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_through_a_tap_are_those_of_small_changes(cell: str):
    network = build(cell).double().requires_grad_(False)
    names = [name for name in network.tap_names() if name.startswith("layers.")]

    def output(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, 8, 5] + logits[0, 10].square().sum()

    held: dict[str, torch.Tensor] = {}
    logits = network(tokens(), tap=ActiveTap(names, sink=held.__setitem__, formed=True))
    torch.testing.assert_close(logits, network(tokens()), rtol=1e-12, atol=1e-12)
    recorded: dict[str, torch.Tensor] = {}
    network(tokens(), tap=ActiveTap(names, sink=recorded.__setitem__))
    gradients = torch.autograd.grad(output(logits), list(held.values()))
    for name, gradient in zip(held, gradients, strict=True):
        torch.testing.assert_close(held[name].detach(), recorded[name], rtol=1e-12, atol=1e-12)
        assert gradient[1:].abs().sum() == 0
        assert gradient[0].abs().sum() > 0
        for t, unit in ((0, 3), (4, 0), (8, 7), (10, 2)):
            change = torch.zeros(3, 11, 12).double()
            change[0, t, unit] = 1e-6
            up = output(network(tokens(), tap=ActiveTap(edits={name: lambda x, c=change: x + c})))
            down = output(network(tokens(), tap=ActiveTap(edits={name: lambda x, c=change: x - c})))
            slope = float((up - down) / 2e-6)
            assert float(gradient[0, t, unit]) == pytest.approx(slope, rel=1e-5, abs=1e-8), (name, t, unit)


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
