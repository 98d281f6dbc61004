"""What a number's terms are, against what they are defined by: path expansion, pairs of scores, softmaxes, steps."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp import Ledger, ledger, record, replace, score_pairs
from cutaway.interp.ledger.nonlinear import Game, integrated, shapley
from cutaway.interp.ledger.reading import Run
from cutaway.models import Decoder, DecoderConfig, Encoder, EncoderConfig, Model, Recurrent, RecurrentConfig
from cutaway.tokenizers import Tokenizer

TEXT = "the cat sat"


def with_noise(network: torch.nn.Module, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network.double().eval()


def values(opened: Ledger) -> dict[str, float]:
    return {term.name: term.value for term in opened.terms}


@pytest.fixture
def attention_only(tokenizer: Tokenizer) -> Model:
    """Two layers of attention alone, without norms."""
    plain: dict[str, Any] = {"mlp": False, "norm": "none", "qk_norm": False, "tied": False}
    return Model(with_noise(Decoder(DecoderConfig(tokenizer.vocab_size, 32, 2, 16, 2, **plain))), tokenizer, "a test")


def test_path_expansion_of_an_attention_only_model(attention_only: Model):
    """The logits are the direct path, the heads, and the virtual heads (Elhage et al. 2021), to 1e-9."""
    model, network = attention_only, attention_only.network
    assert isinstance(network, Decoder)
    recording = record(model, TEXT)
    x = recording["embed"][0]  # (T, C)
    T, D = len(TEXT), network.config.head_dim
    token = model.tokenizer.id("t")
    read = network.lm_head.weight[token].detach()

    def circuit(layer: int, head: int) -> tuple[Tensor, Tensor]:
        attention: Any = network.blocks[layer].self_attn
        part = slice(head * D, (head + 1) * D)
        matrix = attention.o_proj.weight[:, part] @ attention.v_proj.weight[part]  # (C, C)
        return recording[f"layers.{layer}.attn.pattern"][0, head], matrix.detach()

    opened = ledger(recording, token="t")
    direct = float(x[-1] @ read)
    assert opened["embed"].value == pytest.approx(direct, abs=1e-9)
    total = direct
    for head in range(2):
        pattern, matrix = circuit(0, head)
        alone = float((pattern @ x @ matrix.T)[-1] @ read)
        assert opened[f"layers.0.head.{head}"].value == pytest.approx(alone, abs=1e-9)
        total += alone
        later_pattern, later = circuit(1, head)
        sources = opened.expand(f"layers.1.head.{head}")
        for s in range(T):
            below = sources.expand(f"source.{s}")
            straight = float(later_pattern[-1, s] * (later @ x[s]) @ read)
            assert below["embed"].value == pytest.approx(straight, abs=1e-9)
            total += straight
            for first in range(2):  # what a head of the first layer passes on to this one
                pattern, matrix = circuit(0, first)
                virtual = float(later_pattern[-1, s] * (later @ matrix @ (pattern[s] @ x)) @ read)
                assert below[f"layers.0.head.{first}"].value == pytest.approx(virtual, abs=1e-9)
                assert below.expand(f"layers.0.head.{first}").path("source.0")["embed"].value == pytest.approx(
                    float(later_pattern[-1, s] * pattern[s, 0] * (later @ matrix @ x[0]) @ read), abs=1e-9
                )
                total += virtual
    assert total == pytest.approx(float(recording["logits"][0, -1, token]), abs=1e-9)


def test_a_score_is_its_pairs_with_rotary_positions_applied(attention_only: Model):
    """The pair of two embeddings depends on their distance alone, and the pairs sum to the score."""
    model, network = attention_only, attention_only.network
    assert isinstance(network, Decoder)
    recording = record(model, TEXT)
    attention: Any = network.blocks[0].self_attn
    D, query, key, head = network.config.head_dim, 9, 4, 1
    part = slice(head * D, (head + 1) * D)
    q, k = (
        w.weight[part].detach() @ recording["embed"][0, t] for w, t in ((attention.q_proj, 9), (attention.k_proj, 4))
    )
    rates = 10_000.0 ** -(torch.arange(0, D, 2, dtype=torch.float64) / D)
    turn = torch.polar(torch.ones(D // 2, dtype=torch.float64), (key - query) * rates)
    q, k = (torch.complex(x[: D // 2], x[D // 2 :]) for x in (q, k))
    expected = float((q.conj() * k * turn).real.sum() / math.sqrt(D))
    pairs = score_pairs(recording, layer=0, head=head, position=query, key=key)
    assert float(pairs.values[pairs.rows.index("embed"), pairs.columns.index("embed")]) == pytest.approx(
        expected, rel=1e-5
    )
    for layer, head in ((0, 0), (1, 1)):
        opened = recording.ledger(f"layers.{layer}.attn.scores", head=head, position=query, index=key)
        matrix = score_pairs(recording, layer=layer, head=head, position=query, key=key)
        assert (matrix.receipt.gap or 0.0) < 1e-12
        for row, term in enumerate(opened.terms):
            below = opened.expand(term)
            assert [t.name for t in below.terms] == matrix.columns
            assert [t.value for t in below.terms] == pytest.approx(matrix.values[row].tolist(), abs=1e-6)


def test_a_pattern_is_opened_as_its_logarithm(model: Model):
    model.network.double()
    recording = record(model, TEXT)
    opened = recording.ledger("layers.1.attn.pattern", head=2, position=6, index=3)
    scores = recording["layers.1.attn.scores"][0, 2, 6, :7]
    assert opened.total == pytest.approx(float(scores.log_softmax(0)[3]), abs=1e-12)
    assert opened["score"].value == pytest.approx(float(scores[3]), abs=1e-12)
    normaliser = opened.expand("logsumexp")
    for s in range(7):
        share = -float(scores.softmax(0)[s])
        assert normaliser[f"key.{s}"].value == pytest.approx(share * float(scores[s]), abs=1e-12)
        assert normaliser.expand(f"key.{s}").total == pytest.approx(share * float(scores[s]), abs=1e-12)
    assert opened.expand("score").expand("embed").error < 1e-12


def test_a_neuron_holds_its_gate_and_says_so(model: Model):
    model.network.double()
    network, recording = model.network, record(model, TEXT)
    assert isinstance(network, Decoder)
    opened = recording.ledger("layers.1.mlp.post", index=7)
    block: Any = network.blocks[1]
    read = block.norms[2](recording["layers.1.resid_mid"][0, -1])
    gate = torch.nn.functional.silu(recording["layers.1.mlp.pre"][0, -1, 7])
    made = gate * (block.mlp.up_proj.weight[7] @ read)
    assert opened.total == pytest.approx(float(made.detach()), abs=1e-12)
    assert {term.frozen for term in opened.terms} == {"gate at its actual value; norm at its actual scale"}
    logit = recording.ledger(token="t")
    neuron = logit.path("layers.1.mlp", "neuron.7")
    scale = neuron.total / opened.total
    assert values(neuron) == pytest.approx({name: value * scale for name, value in values(opened).items()}, abs=1e-12)


def test_norms_on_sums_are_counted(tokenizer: Tokenizer):
    config = EncoderConfig(
        tokenizer.vocab_size, 32, layers=2, width=16, heads=2, norm_place="sum", position="learned", norm_bias=True
    )
    model = Model(with_noise(Encoder(config)), tokenizer, "a test")
    opened = ledger(model, TEXT, position=3)
    assert "5 norms at their actual scales" in opened["layers.0.head.0"].frozen  # 4 - 1 of the layers, 1 of the head
    assert opened["logits.bias"].frozen == ""


@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "last"])
def test_pooled_texts_open_by_their_real_tokens(tokenizer: Tokenizer, pooling: str):
    features: dict[str, Any] = {"head": "embedding", "head_activation": "none", "pooling": pooling, "normalize": True}
    model = Model(
        with_noise(Encoder(EncoderConfig(tokenizer.vocab_size, 32, 2, 16, 2, **features))), tokenizer, "a test"
    )
    for row, text in enumerate(["the", TEXT]):
        alone = ledger(model, text, token=3)
        for pad, first in (("left", len(TEXT) - len(text)), ("right", 0)):
            opened = record(model, ["the", TEXT], pad=pad).ledger(token=3, row=row)  # pyright: ignore[reportArgumentType]
            assert [t.value for t in opened.terms] == pytest.approx([t.value for t in alone.terms], abs=1e-9)
            if pooling in ("mean", "max"):
                assert [t.name for t in opened.terms] == [f"token.{first + i}" for i in range(len(text))]
                assert [t.label for t in opened.terms] == list(text)
                assert opened.expand(opened.terms[0]).error < 1e-12
            assert "length at its actual value" in opened.terms[0].frozen


def test_readers_are_linear_and_may_be_vectors(model: Model):
    """A direction is the sum of the numbers that it reads."""
    model.network.double()
    recording = record(model, TEXT)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(1))
    whole = values(recording.ledger("layers.1.resid_post", index=direction))
    parts = [values(recording.ledger("layers.1.resid_post", index=i)) for i in range(32)]
    for name, value in whole.items():
        assert value == pytest.approx(sum(float(d) * p[name] for d, p in zip(direction, parts, strict=True)), abs=1e-9)


def test_a_trace_ends_at_a_token(model: Model):
    opened = ledger(model, TEXT)
    steps = opened.trace()
    assert steps[-1].name == "embed"
    assert steps[0] == max((t for t in opened.terms if t.opens or t.name == "embed"), key=lambda t: abs(t.value))
    below = opened.path(*[step.name for step in steps[:-1]]) if len(steps) > 1 else opened
    assert below["embed"] == steps[-1]
    assert len(opened.trace(depth=1)) == 1


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_recurrent_number_opens_down_to_the_tokens(tokenizer: Tokenizer, cell: str):
    config = RecurrentConfig(tokenizer.vocab_size, layers=2, width=6, hidden=5, cell=cell)  # pyright: ignore[reportArgumentType]
    network = with_noise(Recurrent(config))
    model = Model(network, tokenizer, "a test")
    recording = record(model, TEXT)
    unit = recording.ledger("layers.1.hidden", index=2)
    step = unit.expand("step.4")
    assert any(term.name.startswith("layers.0.unit") for term in step.terms)
    assert any(term.name.startswith("layers.1.unit") for term in step.terms)
    below = step.path("layers.0.unit.1", "step.4")
    inputs: Any = network.layers[0]
    row = 2 * 5 + 1  # of the candidate, which is third in both
    fed = float(inputs.weight_ih[row].detach() @ recording["embed"][0, 4])
    assert below["embed"].label == TEXT[4]
    assert below["embed"].value / below["bias"].value == pytest.approx(
        fed / candidate_bias(recording, inputs, cell, row), rel=1e-9
    )
    gate = recording.ledger(f"layers.1.{'update' if cell == 'gru' else 'forget'}", index=0)
    assert gate["half"].value == 0.5


def candidate_bias(recording: Any, cells: Any, cell: str, row: int) -> float:
    reset = float(recording["layers.0.reset"][0, 4, 1]) if cell == "gru" else 1.0
    return float((cells.bias_ih[row] + reset * cells.bias_hh[row]).detach())


def test_shapley_values_are_those_of_all_orders(model: Model):
    """Against every subset of the parts; and an additive number has its own terms, whatever the orders."""
    model.network.double()
    recording = record(model, TEXT)
    plain = recording.ledger("layers.0.resid_post", index=3)
    sampled = recording.ledger("layers.0.resid_post", index=3, nonlinear="shapley", samples=3)
    assert [t.value for t in sampled.terms[1:]] == pytest.approx([t.value for t in plain.terms], abs=1e-12)
    assert max(t.spread for t in sampled.terms) < 1e-12

    opened = recording.ledger("layers.1.mlp.post", index=4)  # its parts: embed, heads, MLP, heads
    sampled = recording.ledger("layers.1.mlp.post", index=4, nonlinear="shapley", samples=400, seed=1)
    names = [term.name for term in opened.terms]
    network = model.network
    assert isinstance(network, Decoder)
    block: Any = network.blocks[1]
    eye = [recording.ledger("layers.1.resid_mid", index=i) for i in range(32)]
    vectors = torch.tensor([[channel[name].value for channel in eye] for name in names], dtype=torch.float64)

    def number(x: Tensor) -> Tensor:
        read = block.norms[2](x)
        gate = torch.nn.functional.silu(read @ block.mlp.gate_proj.weight[4])
        return (gate * (read @ block.mlp.up_proj.weight[4])).detach()

    count = len(names)
    subsets = torch.tensor([[(s >> i) & 1 for i in range(count)] for s in range(2**count)], dtype=torch.float64)
    worth, sizes = number(subsets @ vectors), subsets.sum(1)
    for i, name in enumerate(names):
        without = (subsets[:, i] == 0).nonzero().flatten()
        weight = torch.tensor([1 / (count * math.comb(count - 1, int(n))) for n in sizes[without]], dtype=torch.float64)
        exact = float((weight * (worth[without + 2**i] - worth[without])).sum())
        assert abs(sampled[name].value - exact) < 4.5 * sampled[name].spread + 1e-12
    assert sampled.error < 1e-12


def test_the_glove_game_and_exact_integrals():
    """Shapley: one left and two right gloves are worth 2/3, 1/6, 1/6. Integrated gradients: a cubic is exact."""
    config = DecoderConfig(8, 8, layers=1, width=8, heads=1)
    run = Run(record(Model(with_noise(Decoder(config)), None, "a test"), torch.tensor([[1, 2]])))  # pyright: ignore[reportArgumentType]
    gloves = torch.eye(3, dtype=torch.float64)

    def pairs(x: Tensor) -> Tensor:
        return torch.minimum(x[..., 0], x[..., 1] + x[..., 2])

    opened = shapley(run, Game("gloves", ["left", "right", "other"], [""] * 3, gloves, pairs, 1.0), 6000, 0)
    for name, worth in (("left", 2 / 3), ("right", 1 / 6), ("other", 1 / 6)):
        assert abs(opened[name].value - worth) < 4.5 * opened[name].spread
    assert opened.error < 1e-12
    again = shapley(run, Game("gloves", ["left", "right", "other"], [""] * 3, gloves, pairs, 1.0), 6000, 0)
    assert again.terms == opened.terms

    parts = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]], dtype=torch.float64)

    def cubic(x: Tensor) -> Tensor:
        return x[..., 0] ** 3 + x[..., 0] * x[..., 1]

    total = float(cubic(parts.sum(0)))
    opened = integrated(run, Game("a cubic", ["a", "b", "c"], [""] * 3, parts, cubic, total), 64)
    x, y = parts.sum(0).tolist()
    for name, (a, b) in zip("abc", parts.tolist(), strict=True):  # the integral of the gradient along the way
        assert opened[name].value == pytest.approx(x * x * a + (y * a + x * b) / 2, rel=1e-6)
    assert opened.receipt.gap == opened.error < 1e-6


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("layers.9.mlp.post", {}, "unknown recorded activation"),
        ("layers.0.mlp.post", {}, "has 96 numbers at a position, 0 … 95, but none was chosen"),
        ("layers.0.mlp.post", {"index": 96}, "but 96 was asked for"),
        ("layers.0.mlp.post", {"index": torch.ones(3)}, "a vector of 96 numbers"),
        ("layers.0.mlp.post", {"index": 0, "head": 1}, "has no heads"),
        ("layers.0.mlp.post", {"index": 0, "token": "t"}, "token and minus choose a logit"),
        ("layers.0.mlp.post", {"index": 0, "position": 11}, "position 11 is outside the text of 11 tokens"),
        ("layers.0.mlp.post", {"index": 0, "row": 1}, "there are 1 texts"),
        ("layers.0.attn.k", {"index": 0}, "has heads 0 … 1; choose one by head="),
        ("layers.0.attn.k", {"index": 0, "head": 2}, "has heads 0 … 1, but 2 was asked for"),
        ("layers.0.attn.scores", {"head": 0}, "a number for each key"),
        ("layers.0.attn.scores", {"head": 0, "position": 3, "index": 5}, "does not see position 5"),
        ("layers.0.attn.pattern", {"head": 0, "position": 3, "index": 5}, "gives nothing to position 5"),
        ("logits", {"index": 3}, "an output is chosen by token="),
    ],
)
def test_what_is_not_there_is_named(model: Model, what: str, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        record(model, TEXT).ledger(what, **options)


def test_ways_that_there_are_not_are_named(model: Model, recurrent: Model):
    recording = record(model, TEXT)
    with pytest.raises(ConfigError, match="unknown way through what is not linear 'shap'"):
        recording.ledger(nonlinear="shap")
    with pytest.raises(ConfigError, match="no function of a single sum"):
        recording.ledger("layers.0.attn.z", head=0, index=0, nonlinear="shapley")
    with pytest.raises(ConfigError, match="at least 2 orders"):
        recording.ledger(nonlinear="shapley", samples=1)
    with pytest.raises(ConfigError, match="only one unit of a gate or candidate"):
        ledger(recurrent, TEXT, nonlinear="shapley")
    with pytest.raises(InputError, match="99"):
        score_pairs(recording, layer=99)
    with pytest.raises(ConfigError, match="no attention"):
        score_pairs(recurrent, TEXT)


def test_the_receipt_has_the_code_that_makes_the_ledger(model: Model):
    opened = ledger(model, TEXT, "layers.0.mlp.post", index=3)
    names: dict[str, Any] = {}
    exec(opened.receipt.code.replace("cutaway.load_model('a test')", "given"), names | {"given": model}, names)  # noqa: S102
    assert names["result"].terms == opened.terms
    edited = replace(model, TEXT, {"layers.0.mlp_out": lambda x: 2 * x})
    assert edited.ledger().receipt.difference == edited.receipt.difference > 0
