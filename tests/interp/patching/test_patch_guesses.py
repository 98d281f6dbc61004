"""Attribution, paths, traces and circuits against what is known of them exactly."""

import math
from typing import Any

import pytest
import torch
from kinds import SHAPES, TEXT, given, letters, made
from torch import Tensor

from cutaway import record, replace
from cutaway.errors import ConfigError, InputError
from cutaway.interp import (
    Site,
    attribution_patching,
    causal_trace,
    circuit,
    patch,
    patch_sweep,
    path_patching,
    target_of,
)
from cutaway.interp.inputs import forward, inputs_of
from cutaway.interp.patching.circuit import Parts, left_of
from cutaway.interp.patching.patch import study
from cutaway.interp.patching.trace import span_of
from cutaway.models import ActiveTap, Model

OTHER = TEXT.replace("on the m", "on the c")


def model_of(shape: str, **fields: Any) -> Model:
    model = made(shape, letters(), **fields)
    model.network.double()
    return model


def linear() -> Model:
    """Attention without norms and MLPs that looks at all tokens alike: every number is a sum of embeddings."""
    model = model_of("llama", layers=3, mlp=False, norm="none")
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if "q_proj" in name:
                parameter.zero_()
    return model


@pytest.mark.parametrize("what", ["residual", "heads", "head positions", "attention"])
def test_a22_attribution_is_exact_in_a_linear_model(what: str):
    model = linear()
    guessed = attribution_patching(model, TEXT, OTHER, what=what, token=3, minus=5)
    true = patch_sweep(model, TEXT, OTHER, what=what, token=3, minus=5)
    torch.testing.assert_close(guessed.change, true.change, atol=1e-12, rtol=0)
    torch.testing.assert_close(guessed.values, true.values, atol=1e-9, rtol=0)
    assert guessed.receipt.gap == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "bert", "gru"])
def test_a22_the_gap_falls_with_the_square_of_the_difference(shape: str):
    model = model_of(shape)
    base = record(model, TEXT, "embed")
    direction = torch.randn(base["embed"].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    what = "hidden" if shape == "gru" else "residual"
    steps, gaps = [1e-2, 1e-3, 1e-4], []
    for step in steps:
        clean = replace(model, TEXT, {"embed": base["embed"] + step * direction}, ["embed"])
        true = patch_sweep(model, clean, TEXT, what=what, token=3, normalise=False)
        guessed = attribution_patching(model, clean, TEXT, what=what, token=3, normalise=False, check=0)
        gaps.append(float((true.change - guessed.change).norm()))
    for i in (0, 1):
        slope = math.log(gaps[i] / gaps[i + 1]) / math.log(steps[i] / steps[i + 1])
        assert slope == pytest.approx(2, abs=0.1)


def test_attribution_says_how_far_it_is_from_the_truth():
    model = model_of("gpt2")
    guessed = attribution_patching(model, TEXT, OTHER, what="heads", token=3, check=4)
    rows = guessed.checked.rows
    assert len(rows) == 4
    gaps = []
    for label, predicted, actual in rows:
        site = next(site for site in guessed.sites if site.label == label)
        true = patch(model, TEXT, OTHER, site, token=3)
        assert actual == pytest.approx(float(true.change[0]), abs=1e-12)
        gaps.append(abs(float(predicted) - float(actual)))  # pyright: ignore[reportArgumentType]
    assert guessed.receipt.gap == pytest.approx(max(gaps))


# paths


@pytest.mark.parametrize("shape", ["gpt2", "llama", "bert", "modernbert", "t5", "neox"])
def test_a_path_is_two_runs_with_everything_else_held(shape: str):
    model = model_of(shape)
    reads = given(model)
    clean, corrupt = record(model, TEXT, **reads), record(model, OTHER, **reads)
    base = inputs_of(model, OTHER, **reads)
    target = target_of(model, clean.inputs, token=3, output=clean.logits)
    held = [n for n in model.network.tap_names() if n.startswith("layers.") and n.endswith((".z", "mlp_out"))]
    receiver = f"layers.{model.config.layers - 1}.attn.q"
    direct = path_patching(model, TEXT, OTHER, token=3, normalise=False, **reads)
    through = path_patching(model, TEXT, OTHER, token=3, normalise=False, receiver=receiver, head=1, **reads)

    def run(edits: dict[str, Any], keep: tuple[str, ...] = ()) -> tuple[float, dict[str, Tensor]]:
        kept: dict[str, Tensor] = {}
        with torch.no_grad():
            output = forward(model, base, ActiveTap(keep, edits, kept.__setitem__))
        return float(target(output, base)[0]), kept

    plain, _ = run({})
    for column, name in ((1, "layers.0.attn.z"), (-1, "layers.0.mlp_out")):
        sender = corrupt[name].clone()
        if column == 1:
            sender[:, 1] = clean[name][:, 1]
        else:
            sender = clean[name]
        edits = {n: (lambda x, n=n: corrupt[n]) for n in held} | {name: lambda x, sender=sender: sender}
        number, kept = run(edits, (receiver,))
        assert float(direct.change[0, column]) == pytest.approx(number - plain, abs=1e-9)

        def only(x: Tensor, kept: dict[str, Tensor] = kept) -> Tensor:
            x = x.clone()
            x[:, 1] = kept[receiver][:, 1]
            return x

        number, _ = run({receiver: only})
        assert float(through.change[0, column]) == pytest.approx(number - plain, abs=1e-9)
    assert through.values[-1].isnan().all()  # nothing in the receiver's layer speaks to it


def test_direct_paths_add_up_where_nothing_bends_them():
    model = linear()
    direct = path_patching(model, TEXT, OTHER, token=3, normalise=False)
    with torch.no_grad():
        pairs = [record(model, text, ["layers.0.resid_pre", "logits"]) for text in (TEXT, OTHER)]
        embeds = [model.network.read_out(pair["layers.0.resid_pre"])[0, -1, 3] for pair in pairs]  # pyright: ignore[reportCallIssue]
        moved = pairs[0]["logits"][0, -1, 3] - pairs[1]["logits"][0, -1, 3]
    assert float(direct.change.sum()) + float(embeds[0] - embeds[1]) == pytest.approx(float(moved), abs=1e-9)


def test_paths_need_parts():
    with pytest.raises(ConfigError, match="speak through one state"):
        path_patching(model_of("gru"), TEXT, OTHER)
    with pytest.raises(ConfigError, match=r"unknown receiver 'layers\.9\.attn\.q'; did you mean"):
        path_patching(model_of("gpt2"), TEXT, OTHER, receiver="layers.9.attn.q")


# traces


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "whisper"])
def test_a_trace_restores_all_at_the_embedding_and_nothing_before_it(shape: str):
    model = model_of(shape)
    reads = given(model)
    traced = causal_trace(model, TEXT, subject="c", samples=2, token=3, quantity="logprob", **reads)
    again = causal_trace(model, TEXT, subject="c", samples=2, token=3, quantity="logprob", batch=7, **reads)
    torch.testing.assert_close(traced.values, again.values, atol=1e-9, rtol=0)
    assert traced.receipt.seed == 0
    tokens = model.source_ids(reads["source"])[0] if reads else model.ids(TEXT)[0]
    first, behind = span_of(model, tokens, "c")
    assert behind == first + 1
    if shape in ("gpt2", "llama", "qwen3", "t5", "modernbert"):  # there the stream begins with the embedding
        assert float(traced.values[0, first]) == pytest.approx(1, abs=1e-9)
        others = [i for i in range(len(tokens)) if i != first]
        assert float(traced.values[0, others].abs().max()) < 1e-9


def test_a_trace_may_restore_several_layers_at_once():
    model = model_of("gpt2")
    wide = causal_trace(model, TEXT, subject="cat", what="mlps", window=3, samples=1)
    narrow = causal_trace(model, TEXT, subject="cat", what="mlps", samples=1)
    assert not torch.allclose(wide.values, narrow.values)
    with pytest.raises(InputError, match="does not hold 'dog'"):
        causal_trace(model, TEXT, subject="dog")
    with pytest.raises(ConfigError, match="no subject"):
        causal_trace(model, TEXT)
    with pytest.raises(InputError, match="within 0 … 22"):
        causal_trace(model, TEXT, subject=(3, 3))
    with pytest.raises(ConfigError, match="listens"):
        causal_trace(made("whisper", letters()), TEXT, subject="cat", **given(made("whisper", letters())))


# circuits


@pytest.mark.parametrize("shape", ["gpt2", "llama", "neox", "qwen3", "modernbert"])
def test_all_edges_keep_everything_and_none_nothing(shape: str):
    model = model_of(shape)
    whole = circuit(model, TEXT, OTHER, edges=10**6, token=3)
    assert whole.faithfulness == pytest.approx(1, abs=1e-9)
    assert len(whole.edges) == len(whole.scores)
    compared = study(model, TEXT, OTHER, token=3)
    assert left_of(Parts(model), compared.pairs[0], compared, []) == pytest.approx(whole.corrupt, abs=1e-12)
    few = circuit(model, TEXT, OTHER, edges=12, token=3)
    assert 0 < len(few.edges) <= 12
    sizes = [abs(edge.weight) for edge in few.scores]
    assert sizes == sorted(sizes, reverse=True)
    assert set(few.edges) <= set(few.scores[:12])
    names = {node.name for node in few.nodes}
    assert names >= {edge.source for edge in few.edges} | {edge.target for edge in few.edges}
    assert [node.depth for node in few.nodes] == sorted(node.depth for node in few.nodes)


def test_scores_are_true_where_the_model_is_linear():
    model = linear()
    found = circuit(model, TEXT, OTHER, edges=10**6, token=3)
    into_logits = {edge.source: edge.weight for edge in found.scores if edge.target == "logits"}
    assert sum(into_logits.values()) == pytest.approx(found.clean - found.corrupt, abs=1e-9)
    compared = study(model, TEXT, OTHER, token=3)
    parts = Parts(model)
    for edge in (found.scores[0], found.scores[3]):
        others = [
            (writer, reader)
            for reader in parts.readers
            for writer in parts.writers
            if parts.feeds(writer, reader)
            and (writer, reader.node, reader.reads) != (edge.source, edge.target, edge.reads)
        ]
        left = left_of(parts, compared.pairs[0], compared, others)
        if edge.target == "logits":  # of the others, what is written has changed on the way too
            assert found.clean - left == pytest.approx(edge.weight, abs=1e-9)


def test_integrated_gradients_take_a_bend_into_account():
    model = model_of("gpt2")
    last = {}
    for steps in (0, 16):
        found = circuit(model, TEXT, OTHER, edges=5, steps=steps, token=3)
        last[steps] = sum(edge.weight for edge in found.scores if edge.target == "logits")
        way = found.clean - found.corrupt
    assert abs(last[16] - way) < abs(last[0] - way)


@pytest.mark.parametrize("shape", ["gemma", "bert", "t5", "gru"])
def test_circuits_need_one_stream(shape: str):
    with pytest.raises(ConfigError, match="one stream that the others read"):
        circuit(model_of(shape), TEXT, OTHER)


def test_sites_read_as_they_are():
    site = Site("layers.0.attn.z", head=[0, 2], position=-1, neuron=3)
    assert site.label == "layers.0.attn.z head 0, 2 position -1 neuron 3"
    x = torch.arange(3 * 4 * 5).view(3, 4, 5)
    assert torch.equal(x[site.index(x.shape)].flatten(), torch.stack((x[0, -1, 3], x[2, -1, 3])))
    both = Site("a", head=[0, 2], position=[0, 3])
    assert torch.equal(x[both.index(x.shape)], x[[0, 2]][:, [0, 3]])
