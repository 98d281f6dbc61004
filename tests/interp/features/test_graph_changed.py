"""Neurons as nodes of an attribution graph, and nodes that are taken out or doubled: predicted beside the model."""

import pytest
import torch
from test_graph import TEXT, exact, held, made, observed

from cutaway.errors import ConfigError, InputError
from cutaway.interp import graph_intervention, record, replace
from cutaway.interp.features import attribution_graph
from cutaway.models import Model
from cutaway.tokenizers import Tokenizer


@pytest.mark.parametrize("shape", ["gated", "ungated", "parallel"])
def test_doubling_a_neuron_moves_logits_by_its_edges(shape: str, tokenizer: Tokenizer):
    model, _ = made(shape, tokenizer)
    found = attribution_graph(model, TEXT, neurons=60)
    assert found.receipt.gap is not None
    assert found.receipt.gap < 1e-9
    assert len(found.features) == 60
    recorded = record(model, TEXT, "layers.*.mlp.post")
    for (layer, position, number), value in zip(found.features.tolist(), found.values.tolist(), strict=False):
        assert value == pytest.approx(float(recorded[f"layers.{layer}.mlp.post"][0, position, number]))
    frozen, fixed = held(model)
    _, logits = observed(frozen, fixed, [])
    for i in range(0, 60, 7):
        layer, position, number = found.features[i].tolist()
        down = model.network.blocks[layer].mlp.down_proj.weight[:, number]  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
        name = f"layers.{layer}.mlp_out"
        more = torch.zeros_like(recorded["layers.0.mlp.post"][..., : len(down)])
        more[0, position] = down.detach() * found.values[i]
        _, moved = observed(frozen, {**fixed, name: lambda x, name=name, more=more: fixed[name](x) + more}, [])
        direct = torch.tensor([float(row[i]) for row in found.weights[: len(found.ids)]])
        assert (moved - logits)[found.ids].tolist() == pytest.approx(direct.tolist(), abs=1e-5)


def test_all_neurons_leave_nothing_over(tokenizer: Tokenizer):
    model, _ = made("gated", tokenizer)
    count = len(TEXT) * model.config.layers * getattr(model.config, "mlp_width", 0)
    found = attribution_graph(model, TEXT, neurons=count)
    errors = [i for i, name in enumerate(found.names) if ".error" in name]
    assert found.run.errors.abs().max() < 1e-9
    assert found.weights[:, errors].abs().max() < 1e-9
    assert found.figures["through features"] == pytest.approx(1.0)


def test_features_and_neurons_stand_beside_each_other(tokenizer: Tokenizer):
    model, transcoders = made("gated", tokenizer)
    found = attribution_graph(model, TEXT, transcoders[:1], neurons=20)
    kinds = {name.split(".")[2] for name in found.names if name.startswith("layers.") and ".error" not in name}
    assert kinds == {"feature", "neuron"}
    assert {int(f[0]) for f, name in zip(found.features, found.names, strict=False) if ".neuron." in name} <= {1, 2}
    assert found.receipt.gap is not None
    assert found.receipt.gap < 1e-9


@pytest.mark.parametrize("shape", ["norms after", "norms on both sides", "experts"])
def test_neurons_that_do_not_write_by_themselves_are_refused(shape: str, tokenizer: Tokenizer):
    with pytest.raises(ConfigError, match="train transcoders of its MLPs instead"):
        attribution_graph(made(shape, tokenizer)[0], TEXT, neurons=5)


def test_where_the_model_is_what_the_graph_says_it_answers_as_predicted(tokenizer: Tokenizer):
    model, transcoders = exact(tokenizer)
    graph = attribution_graph(model, TEXT, transcoders, token="a", most=10_000)
    reach = graph.effects()[0, : len(graph.features)].abs()
    strongest = [graph.names[i] for i in reach.topk(3).indices.tolist()]
    found = graph_intervention(graph, dict.fromkeys(strongest, 0.98))
    assert found.predicted == pytest.approx(found.actual, rel=0.05, abs=1e-4)
    alone = found["alone"]
    assert sum(alone.column("predicted change")) == pytest.approx(found.predicted[0])


def test_what_is_changed_is_what_the_node_writes(tokenizer: Tokenizer):
    model, transcoders = made("gated", tokenizer)
    graph = attribution_graph(model, TEXT, transcoders, token="a", minus="t")
    a, t = (model.tokenizer.id(letter) for letter in "at")
    plain = model.logits(TEXT)[0, -1]
    name = next(name for name in graph.names if ".feature." in name)
    layer, position, number = graph.features[graph.names.index(name)].tolist()
    wrote = transcoders[layer].decoder[number].detach() * graph.values[graph.names.index(name)]

    def without(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[0, position] -= wrote
        return x

    changed = replace(model, TEXT, {f"layers.{layer}.mlp_out": without}).logits[0, -1]
    found = graph_intervention(graph, {name: 0.0})
    assert found.actual[0] == pytest.approx(float((changed - plain)[a] - (changed - plain)[t]), abs=1e-5)
    assert found.before[0] == pytest.approx(float(plain.softmax(-1)[a]), abs=1e-6)
    assert found.after[0] == pytest.approx(float(changed.softmax(-1)[a]), abs=1e-6)
    assert found.predicted[0] == pytest.approx(-float(graph.effects()[0, graph.names.index(name)]))
    embed = record(model, TEXT, "embed")["embed"]
    doubled = replace(model, TEXT, {"embed": lambda x: x + embed * (torch.arange(len(TEXT)) == 2)[:, None]}).logits[
        0, -1
    ]
    found = graph_intervention(graph, {"embed@2": 2.0})
    assert found.actual[0] == pytest.approx(float((doubled - plain)[a] - (doubled - plain)[t]), abs=1e-5)
    assert "graph = attribution_graph(" in found.receipt.code
    assert "graph_intervention(graph, {'embed@2': 2.0})" in found.receipt.code
    compile(found.receipt.code, "receipt", "exec")


def test_what_an_intervention_refuses(model: Model):
    graph = attribution_graph(model, TEXT, neurons=10)
    with pytest.raises(InputError, match="give 1 … 400 nodes"):
        graph_intervention(graph, {})
    with pytest.raises(InputError, match=r"unknown node of the graph 'embed@99'"):
        graph_intervention(graph, {"embed@99": 0.0})
    for name in ("biases", "logit.0"):
        with pytest.raises(InputError, match="cannot be changed"):
            graph_intervention(graph, {name: 0.0})
