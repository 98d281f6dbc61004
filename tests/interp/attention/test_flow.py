"""Rollout and flow against closed forms, and flow against networkx."""

import pytest
import torch
from kinds import SOURCE, TEXT, given, letters, made, parts

from cutaway.errors import ConfigError, InputError
from cutaway.interp import attention, attention_flow, replace, rollout
from cutaway.interp.attention import flow as flow_module
from cutaway.interp.attention.flow import maximum_flow, product
from cutaway.models import Model


def uniform(layers: int) -> Model:
    """An encoder whose every token looks at all alike: without queries all scores are 0."""
    model = made("modernbert", letters(), layers=layers, windows=())
    model.network.double()
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if "q_proj" in name:
                parameter.zero_()
    return model


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_rollout_of_uniform_attention_has_a_closed_form(layers: int):
    model = uniform(layers)
    found = rollout(model, TEXT)
    T = len(found.rows)
    kept = 2.0**-layers
    expected = kept * torch.eye(T).double() + (1 - kept) * torch.ones(T, T).double() / T
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-15)
    assert found.receipt.gap == pytest.approx(0, abs=1e-14)
    assert found.by_layer.shape == (layers, T, T)


def test_rollout_multiplies_layers():
    model = made("gpt2", letters())
    patterns = attention(model, TEXT).patterns.double().mean(1)
    T = patterns.shape[-1]
    mixed = torch.eye(T).double()
    for pattern in patterns:
        mixed = (0.3 * torch.eye(T) + 0.7 * pattern / pattern.sum(-1, keepdim=True)).double() @ mixed
    torch.testing.assert_close(rollout(model, TEXT, residual=0.3).values, mixed)
    assert torch.equal(rollout(model, TEXT, residual=1.0).values, torch.eye(T).double())
    strongest = rollout(model, TEXT, heads="max").values
    assert (strongest - mixed).abs().max() > 1e-3
    assert float((strongest.sum(-1) - 1).abs().max()) < 1e-9


def test_flow_of_one_layer_is_its_rollout():
    model = made("qwen3", letters(), layers=1)
    rolled, flow = rollout(model, TEXT), attention_flow(model, TEXT, position=None)
    torch.testing.assert_close(flow.values, rolled.values, rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", ["gpt2", "modernbert"])
def test_flow_fits_its_pipes(shape: str):
    model = made(shape, letters())
    flow, rolled = attention_flow(model, TEXT[:9], position=None), rollout(model, TEXT[:9])
    assert float(flow.values.max()) <= 1 + 1e-12  # what a token passes on in all
    # rollout is one flow among those that fit: it lets no more through than each pipe's share of what comes
    assert bool((flow.values >= rolled.values - 1e-9).all())
    assert float((flow.values - rolled.values).max()) > 1e-3
    one = attention_flow(model, TEXT[:9], position=-2)
    assert torch.equal(one.values[0], flow.values[-2])
    assert one.rows == [flow.rows[-2]]


def test_flow_is_what_networkx_finds():
    import networkx  # torch brings it along

    draw = torch.Generator().manual_seed(0)
    for trial in range(12):
        layers, size = 1 + trial % 4, 3 + trial % 5
        steps = torch.rand(layers, size, size, generator=draw, dtype=torch.float64)
        steps = torch.where(torch.rand(steps.shape, generator=draw) < 0.4, 0.0, steps)
        graph = networkx.DiGraph()
        graph.add_nodes_from((layer, node) for layer in range(layers + 1) for node in range(size))
        for layer, step in enumerate(steps.tolist()):
            for row, shares in enumerate(step):
                for column, share in enumerate(shares):
                    graph.add_edge((layer + 1, row), (layer, column), capacity=share)
        for end in range(size):
            expected = networkx.maximum_flow_value(graph, (layers, trial % size), (0, end))
            assert maximum_flow(steps.tolist(), trial % size, end) == pytest.approx(expected, abs=1e-12)


def test_flow_takes_pipes_backwards():
    """The first shortest path blocks both ways unless it is undone."""
    middle = [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    steps = [[[1.0, 0, 0], [1.0, 0, 0], [0, 0, 0]], middle]
    assert maximum_flow(steps, 0, 0) == 2.0
    assert maximum_flow(steps, 1, 0) == 0.0


@pytest.mark.parametrize("shape", ["t5", "bart", "whisper"])
def test_between_target_and_source_shares_still_sum_to_one(shape: str):
    model = made(shape, letters())
    found = rollout(model, TEXT, part="cross", **given(model))
    S = 16 if shape == "whisper" else len(SOURCE)
    assert len(found.columns) == S + len(found.rows)
    assert found.receipt.gap == pytest.approx(0, abs=1e-6)
    # one layer of each: half of half of what cross-attention reads is of the source
    one = made(shape, letters(), layers=1, encoder_layers=1)
    rolled = rollout(one, TEXT, part="cross", **given(one)).values
    T = len(found.rows)
    torch.testing.assert_close(rolled[:, :S].sum(-1), torch.full((T,), 0.5).double())
    patterns = {part: attention(one, TEXT, part=part, **given(one)).patterns[0].double().mean(0) for part in parts(one)}
    half = torch.eye(S) / 2
    expected = 0.5 * patterns["cross"] @ (half + patterns["encoder"] / 2)
    torch.testing.assert_close(rolled[:, :S], expected, rtol=1e-5, atol=1e-6)
    if shape == "bart":
        flow = attention_flow(one, TEXT[:5], part="cross", **given(one))
        assert flow.values.shape == (1, S + 6)


def test_what_cannot_flow_is_refused():
    model = made("gpt2", letters())
    with pytest.raises(InputError, match="outside the text of 3 tokens"):
        attention_flow(model, "the", position=3)
    with pytest.raises(ConfigError, match="did you mean mean"):
        rollout(model, TEXT, heads="means")
    with pytest.raises(ConfigError, match="a share"):
        rollout(model, TEXT, residual=1.5)
    with pytest.raises(ConfigError, match="no attention"):
        attention_flow(made("lstm", letters()), TEXT)


def test_the_product_of_causal_layers_is_the_plain_one():
    torch.manual_seed(0)
    step, mixed = (torch.rand(300, 300, dtype=torch.float64).tril() for _ in range(2))
    torch.testing.assert_close(product(step, mixed, causal=True), step @ mixed)
    assert torch.equal(product(step, mixed.T, causal=False), step @ mixed.T)


@pytest.mark.parametrize(("kind", "part", "count"), [("llama", "decoder", 2), ("t5", "cross", 7)])
def test_rollout_tells_how_far_it_is_and_can_be_ended(kind: str, part: str, count: int):
    model, told = made(kind, letters()), []
    rolled = rollout(model, TEXT, part=part, **given(model), progress=told.append)
    assert [(one.done, one.total) for one in told] == [(i + 1, count) for i in range(count)]
    assert len(rolled.by_layer) == count

    def leave(report: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rollout(model, TEXT, part=part, **given(model), progress=leave)


def test_rollout_of_an_edited_pattern_keeps_what_an_edit_put_above_the_diagonal():
    model = made("llama", letters())
    flat = lambda pattern: torch.full_like(pattern, 1 / pattern.shape[-1])  # noqa: E731
    name = "layers.0.attn.pattern"
    rolled = rollout(replace(model, TEXT, {name: flat}, "*pattern"))
    assert float(rolled.by_layer[0][0, -1]) == pytest.approx(0.5 / len(rolled.columns))


def test_a_flow_can_be_ended_while_it_is_found_and_one_of_too_many_pipes_is_refused(monkeypatch: pytest.MonkeyPatch):
    model, told = made("llama", letters()), []
    attention_flow(model, TEXT[:6], progress=told.append)
    assert [one.done for one in told if one.done == one.total] == [6]
    assert len(told) > 6  # also between
    monkeypatch.setattr(flow_module, "MOST", 100)
    with pytest.raises(InputError, match=r"22 tokens through 2 attentions are 506 pipes.*or ask for rollout"):
        attention_flow(model, TEXT)
