"""Circuits against what the network computes, composition against whole matrices, both against heads made by hand."""

import math
from typing import Any

import pytest
import torch
from by_hand import alphabet, attention_only, induction
from kinds import SHAPES, TEXT, given, letters, made, parts

from cutaway.errors import ConfigError, InputError
from cutaway.interp import composition_scores, copying_scores, ov_circuit, qk_circuit, record, value_weighted
from cutaway.interp.attention.parts import heads_of
from cutaway.interp.results import sharpness
from cutaway.models import DecoderConfig, Model

DECODERS = [name for name, (kind, _) in SHAPES.items() if kind is DecoderConfig]


def without_positions(shape: str) -> Model:
    learned = SHAPES[shape][1].get("position") == "learned"
    model = made(shape, letters(), **({"position": "none"} if learned else {}))
    model.network.double()
    return model


@pytest.mark.parametrize("shape", DECODERS)
def test_a_qk_circuit_is_the_first_layers_scores(shape: str):
    model = without_positions(shape)
    scores = record(model, TEXT, "layers.0.attn.scores")["layers.0.attn.scores"][0]
    ids = model.ids(TEXT)[0].tolist()
    place = {token: i for i, token in enumerate(dict.fromkeys(ids))}
    for head in (0, 2):
        for distance in (0, 1, 3):
            turned = model.config.position == "rotary"  # pyright: ignore[reportAttributeAccessIssue]
            found = qk_circuit(model, TEXT, layer=0, head=head, distance=distance if turned else 0)
            for t in range(distance, len(ids)):
                expected = float(scores[head, t, t - distance])
                made = float(found.values[place[ids[t]], place[ids[t - distance]]])
                assert math.isinf(expected) or made == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", ["bert", "modernbert"])
def test_an_encoders_qk_circuit_looks_both_ways(shape: str):
    model = made(shape, letters())
    model.network.double()
    if shape == "bert":
        with torch.no_grad():
            model.network.embed_positions.weight.zero_()  # pyright: ignore
    scores = record(model, TEXT, "layers.0.attn.scores")["layers.0.attn.scores"][0, 1]
    ids = model.ids(TEXT)[0].tolist()
    place = {token: i for i, token in enumerate(dict.fromkeys(ids))}
    for distance in (-2, 0, 2) if shape == "modernbert" else (0,):
        found = qk_circuit(model, torch.tensor(ids), layer=0, head=1, distance=distance)
        for t in range(2, len(ids) - 2):
            expected = float(scores[t, t - distance])
            assert float(found.values[place[ids[t]], place[ids[t - distance]]]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", DECODERS)
def test_an_ov_circuit_is_what_the_recorded_value_says(shape: str):
    model = without_positions(shape)
    network = model.network
    values = record(model, TEXT, "layers.0.attn.v")["layers.0.attn.v"][0]
    ids = model.ids(TEXT)[0]
    unique = list(dict.fromkeys(ids.tolist()))
    found = ov_circuit(model, TEXT, layer=0, head=3 % heads_of(model).shape[1])
    H, D = heads_of(model).shape[1], heads_of(model).shape[3]
    head = 3 % H
    weight = network.layers[0].self_attn.o_proj.weight.double()[:, head * D : (head + 1) * D]  # pyright: ignore
    behind: Any = network.blocks[0].norms[1]  # pyright: ignore
    for t, token in enumerate(ids.tolist()):
        written = weight @ values[head // (H // len(values)), t]
        if behind is not None:
            written = written * behind.scale  # its divisor is left out
        norm: Any = network.norm  # pyright: ignore
        if isinstance(norm, torch.nn.LayerNorm):
            written = (written - written.mean()) * norm.weight
        else:
            written = written * norm.scale
        said = network.lm_head.weight[unique] @ written  # pyright: ignore
        torch.testing.assert_close(found.values[unique.index(token)], said.double(), rtol=1e-8, atol=1e-9)


@torch.no_grad()
def test_eigenvalues_are_those_of_the_whole_circuit():
    model = without_positions("llama")
    heads = heads_of(model)
    vocabulary = torch.arange(model.config.vocab_size)
    embedded = heads.alone(vocabulary)
    for head in (0, 3):
        reads, writes = heads.reading(1, "v")[head], heads.writing(1)[head]
        whole = embedded @ reads.T @ writes.T @ heads.unembedding().T  # (V, V)
        values = torch.linalg.eigvals(whole)
        values = values[values.abs().argsort(descending=True)][: reads.shape[0]]
        found = ov_circuit(model, layer=1, head=head, norms="folded")
        torch.testing.assert_close(found.values, whole)
        torch.testing.assert_close(found.eigenvalues.abs(), values.abs(), rtol=1e-6, atol=1e-8)
        score = float(values.real.sum() / values.abs().sum())
        assert found.score == pytest.approx(score, abs=1e-6)
        assert float(copying_scores(model).values[1, head]) == pytest.approx(score, abs=1e-6)
        scores = qk_circuit(model, layer=1, head=head, norms="folded", distance=2)
        values = torch.linalg.eigvals(scores.values)
        assert scores.score == pytest.approx(float(values.real.sum() / values.abs().sum()), abs=1e-6)


def test_a_head_that_copies_scores_one_and_its_opposite_minus_one():
    model = induction(5.0)
    scores = copying_scores(model).values
    assert float(scores[1, 0]) == pytest.approx(1.0, abs=1e-9)
    assert math.isnan(float(scores[0, 0]))  # it writes where nothing is said
    with torch.no_grad():
        model.network.blocks[1].self_attn.o_proj.weight.neg_()  # pyright: ignore
    assert float(copying_scores(model).values[1, 0]) == pytest.approx(-1.0, abs=1e-9)
    found = ov_circuit(model, layer=1, head=0, norms="left out")
    assert found.to_json()["score"] == pytest.approx(-1.0, abs=1e-9)


def test_an_induction_head_composes_by_keys():
    model = induction(5.0)
    V = model.config.vocab_size
    found = composition_scores(model)
    scores = {kind: float(found[kind].values[1, 0]) for kind in "QKV"}  # pyright: ignore[reportAttributeAccessIssue]
    assert scores["K"] == pytest.approx(1 / math.sqrt(V), abs=1e-9)  # the identity of V, between two of them
    assert scores["Q"] == pytest.approx(0, abs=1e-9)
    assert scores["V"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gemma", "bert"])
def test_composition_is_that_of_whole_matrices(shape: str):
    model = made(shape, letters())
    model.network.double()
    heads = heads_of(model)
    found = composition_scores(model, draws=50)
    H = heads.shape[1]
    one, two = 1, H - 1
    q, k, v = (heads.reading(1, which)[two] for which in ("q", "k", "v"))
    written = heads.writing(0)[one] @ heads.reading(0, "v")[one]  # (C, C)
    whole = {"Q": k.T @ q, "K": q.T @ k, "V": heads.writing(1)[two] @ v}
    for kind, matrix in whole.items():
        share = (matrix @ written).norm() / (matrix.norm() * written.norm())
        values = found[kind].values  # pyright: ignore[reportAttributeAccessIssue]
        assert float(values[H + two, one]) == pytest.approx(float(share), rel=1e-9)
        assert bool(values[:H].isnan().all())
        assert bool(values[H:, H:].isnan().sum() >= H * H)
        # noise composes as noise does
        usual, spread = found.figures[f"{kind}, random heads"], found.figures[f"{kind}, their deviation"]
        if shape == "llama":
            assert abs(float(values[H:, :H].mean()) - usual) < 3 * spread


@torch.no_grad()
def test_paths_add_up_to_the_logits():
    """Attention alone, patterns as they are: direct path, heads, and pairs of heads (Elhage et al. 2021)."""
    model = attention_only(alphabet(), 2, 16, heads=4, context=32)
    network = model.network
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    ids = model.ids("theCatSatOnTheMat")
    seen = record(model, ids, ["layers.*.attn.pattern", "logits"])
    heads = heads_of(model)
    embedded = heads.alone(ids[0])
    circuits = [heads.writing(i, folded=False) @ heads.reading(i, "v", folded=False) for i in range(2)]  # (H, C, C)
    patterns = [seen[f"layers.{i}.attn.pattern"][0] for i in range(2)]
    parts = [embedded]
    for layer in range(2):
        parts += [patterns[layer][h] @ embedded @ circuits[layer][h].T for h in range(4)]
    virtual = 0
    for one in range(4):
        for two in range(4):
            path = patterns[1][two] @ patterns[0][one] @ embedded @ (circuits[1][two] @ circuits[0][one]).T
            parts.append(path)
            virtual += float(path.abs().max())
    assert virtual > 0.1  # the pairs are no rounding
    total = torch.stack(parts).sum(0) @ network.lm_head.weight.T  # pyright: ignore
    torch.testing.assert_close(total, seen["logits"][0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "bert", "bart", "t5"])
def test_value_weights_are_lengths_of_what_is_written(shape: str):
    model = made(shape, letters())
    model.network.double()
    for part in parts(model):
        heads = heads_of(model, part)
        found = value_weighted(model, TEXT, part=part, **given(model))
        seen = record(model, TEXT, [heads.name(1, "pattern"), heads.name(1, "v")], **given(model))
        pattern, values = seen[heads.name(1, "pattern")][0], seen[heads.name(1, "v")][0]
        H, D = heads.shape[1], heads.shape[3]
        head = H - 1
        weight = heads.attention(1).o_proj.weight[:, head * D : (head + 1) * D]
        fetched = pattern[head][..., None] * values[head // (H // len(values))]  # (T, S, D)
        expected = (fetched @ weight.T).norm(dim=-1)
        torch.testing.assert_close(found.weights[1, head].double(), expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(found.patterns.sum(-1), torch.ones(found.patterns.shape[:-1]))
        asked = value_weighted(model, TEXT, part=part, layer=1, **given(model))
        assert asked.chosen == (1, int(sharpness(found.patterns[1:], own=part != "cross").argmax()))
        by_value = value_weighted(model, TEXT, part=part, by="value", **given(model)).weights[1, head]
        torch.testing.assert_close(by_value.double(), fetched.norm(dim=-1), rtol=1e-5, atol=1e-7)


def test_what_has_no_circuit_is_refused():
    tokenizer = letters()
    with pytest.raises(ConfigError, match="a dense layer between"):
        ov_circuit(made("bert", tokenizer), layer=0, head=0)
    assert copying_scores(made("bert", tokenizer), through="stream").values.shape == (2, 3)
    with pytest.raises(ConfigError, match="not read as tokens"):
        ov_circuit(made("t5", tokenizer), layer=0, head=0, part="encoder")
    with pytest.raises(ConfigError, match="reads sound"):
        qk_circuit(made("whisper", tokenizer), layer=0, head=0, part="cross")
    with pytest.raises(ConfigError, match="a distance is for rotary"):
        qk_circuit(made("gpt2", tokenizer), layer=0, head=0, distance=1)
    with pytest.raises(InputError, match="head 9 is not there: the decoder has heads 0 … 2"):
        qk_circuit(made("gpt2", tokenizer), layer=0, head=9)
    with pytest.raises(ConfigError, match="one stack"):
        composition_scores(made("bart", tokenizer), part="cross")
    with pytest.raises(ConfigError, match="one layer"):
        composition_scores(made("gpt2", tokenizer, layers=1))
    with pytest.raises(ConfigError, match="unknown way to take norms"):
        copying_scores(made("gpt2", tokenizer), norms="applied")
    large = made("gpt2", tokenizer)
    large = Model(type(large.network)(DecoderConfig(600, layers=1, width=8, heads=1)), tokenizer, "large")  # pyright: ignore
    with pytest.raises(InputError, match="too large to be shown whole"):
        qk_circuit(large, layer=0, head=0)
    with pytest.raises(ConfigError, match="a head for none"):
        ov_circuit(made("gpt2", tokenizer, head="none"), layer=0, head=0)
    for analysis in (copying_scores, composition_scores):
        with pytest.raises(ConfigError, match="no attention"):
            analysis(made("gru", tokenizer))
