"""GRU and LSTM against torch's own modules, and the explicit steps against the fused kernels."""

import pytest
import torch
from torch import nn

from cutaway.errors import ConfigError, InputError
from cutaway.models import ActiveTap, Recurrent, RecurrentConfig
from cutaway.models.config import config_from_dict

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


# heads over whole texts, and texts that are read both ways


def headed(cell: str, **features) -> Recurrent:
    torch.manual_seed(0)
    given = {"vocab_size": 19, "width": 10, "hidden": 12, "layers": 2, "cell": cell, "bidirectional": True}
    labels = {"head": "sequence_classification", "labels": ("a", "b", "c"), "pooling": "max"}
    network = Recurrent(RecurrentConfig(**{**given, **labels, **features})).double().eval()
    with torch.no_grad():
        for parameter in network.head.parameters() if network.head else ():
            parameter.normal_()
    return network


def masked() -> torch.Tensor:
    return torch.arange(11) < torch.tensor([11, 7, 3])[:, None]


@pytest.mark.parametrize("pooling", ["last", "cls", "mean", "max"])
@pytest.mark.parametrize("cell", CELLS)
def test_both_ways_under_a_head_equal_torchs_module_on_packed_texts(cell: str, pooling: str):
    network = headed(cell, pooling=pooling)
    peer = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](10, 12, 2, batch_first=True, bidirectional=True).double()
    ways = ((network.layers, ""), (network.back, "_reverse"))
    peer.load_state_dict(
        {f"{name}_l{i}{way}": x for layers, way in ways for i in range(2) for name, x in layers[i].named_parameters()}
    )
    lengths = masked().sum(1)
    packed = nn.utils.rnn.pack_padded_sequence(
        network.embed_tokens(tokens()), lengths, batch_first=True, enforce_sorted=False
    )
    states, _ = nn.utils.rnn.pad_packed_sequence(peer(packed)[0], batch_first=True)
    texts = [row[:length] for row, length in zip(states, lengths, strict=True)]
    how = {"last": lambda x: x[-1], "cls": lambda x: x[0], "mean": lambda x: x.mean(0), "max": lambda x: x.amax(0)}
    assert network.head is not None
    expected = network.head.out(torch.stack([how[pooling](text) for text in texts]))
    torch.testing.assert_close(network(tokens(), mask=masked()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("head", ["sequence_classification", "token_classification", "embedding", "none"])
@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_nothing_that_is_told_of_a_text(cell: str, head: str, both: bool):
    labels = {} if head in ("embedding", "none") else {"labels": ("a", "b", "c")}
    network = headed(cell, head=head, bidirectional=both, **{"labels": (), **labels})
    together = network(tokens(), mask=masked())
    other = tokens().masked_fill(~masked(), 5)
    real = torch.ones(3) if together.ndim == 2 else masked()
    assert torch.equal(together[real.bool()], network(other, mask=masked())[real.bool()])
    for row, length in enumerate(masked().sum(1).tolist()):
        alone = network(tokens()[row : row + 1, :length])[0]
        shown = together[row] if together.ndim == 2 else together[row, :length]
        torch.testing.assert_close(shown, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_explicit_steps_both_ways_record_what_the_kernel_does_where_it_stands_in_the_text(cell: str):
    network = headed(cell)
    names, kernel, explicit = network.tap_names(), {}, {}
    plain = network(tokens(), mask=masked())
    read = network(tokens(), mask=masked(), tap=ActiveTap(names, sink=kernel.__setitem__))
    same = {name: lambda x: x for name in names}
    stepped = network(tokens(), mask=masked(), tap=ActiveTap(names, same, explicit.__setitem__))
    assert torch.equal(plain, read)
    torch.testing.assert_close(stepped, plain, rtol=1e-12, atol=1e-12)
    assert list(kernel) == names
    for name in names:
        torch.testing.assert_close(kernel[name], explicit[name], rtol=1e-12, atol=1e-12)
    back = kernel["layers.0.back.hidden"]  # of the last token before all others: a text of it alone says the same
    alone: dict[str, torch.Tensor] = {}
    network(tokens()[1:2, 6:7], tap=ActiveTap(["layers.0.back.hidden"], sink=alone.__setitem__))
    torch.testing.assert_close(back[1, 6], alone["layers.0.back.hidden"][0, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_through_a_tap_both_ways_are_those_of_small_changes(cell: str):
    network = headed(cell, pooling="mean", layers=1).requires_grad_(False)
    names = [name for name in network.tap_names() if name.startswith("layers.")]
    held: dict[str, torch.Tensor] = {}
    logits = network(tokens(), mask=masked(), tap=ActiveTap(names, sink=held.__setitem__, formed=True))
    gradients = torch.autograd.grad(logits[1, 2], list(held.values()))
    for name, gradient in zip(held, gradients, strict=True):
        assert gradient[1].abs().sum() > 0
        assert gradient[0].abs().sum() == gradient[2].abs().sum() == gradient[1, 7:].abs().sum() == 0
        for t, unit in ((0, 3), (6, 7)):
            change = torch.zeros(3, 11, gradient.shape[-1]).double()
            change[1, t, unit] = 1e-6
            up, down = (
                network(tokens(), mask=masked(), tap=ActiveTap(edits={name: lambda x, c=c: x + c}))[1, 2]
                for c in (change, -change)
            )
            assert float(gradient[1, t, unit]) == pytest.approx(float((up - down) / 2e-6), rel=1e-5, abs=1e-8), name


def test_what_reads_whole_texts_refuses_parts_of_them_and_padding_before_them():
    network = headed("gru")
    with pytest.raises(InputError, match="reads a whole text at once"):
        network(tokens(), cache=network.new_cache(3))
    with pytest.raises(InputError, match="reads both ways"):
        headed("gru", head="none", labels=())(tokens(), cache=network.new_cache(3))
    with pytest.raises(InputError, match="put it behind"):
        network(tokens(), mask=masked().flip(1))
    with pytest.raises(ConfigError, match="has seen the tokens"):
        RecurrentConfig(19, bidirectional=True)
    with pytest.raises(ConfigError, match="needs the names of its labels"):
        RecurrentConfig(19, head="sequence_classification")


def test_a_config_of_before_there_were_heads_is_still_read():
    old = {"kind": "recurrent", "vocab_size": 19, "context": 256, "layers": 1, "width": 8, "hidden": 8}
    old |= {"cell": "gru", "tied": True, "dropout": 0.0}
    assert config_from_dict(old) == RecurrentConfig(19, width=8, hidden=8, tied=True)


def test_dropout_under_a_head_is_of_what_it_has_pooled():
    network = headed("gru", dropout=0.5, layers=1).train()
    seen: dict[str, torch.Tensor] = {}
    network(tokens(), tap=ActiveTap(["layers.0.states", "head.pooled"], sink=seen.__setitem__))
    assert torch.equal(seen["head.pooled"], seen["layers.0.states"].amax(1))  # the head's own matrix reads half of it
