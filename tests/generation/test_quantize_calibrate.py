"""Calibration: what matrices read is what they read, scaling channels changes nothing, and errors are made good."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cutaway.errors import InputError, NonFinite
from cutaway.generation.quantize import compare, quantize, rows_of
from cutaway.generation.quantize.calibrate import Sums, _replace, divide, fold_channels
from cutaway.generation.quantize.gptq import DAMPING, gptq_matrix, inverse_factor
from cutaway.generation.quantize.grid import GRIDS
from cutaway.generation.quantize.readings import readings
from cutaway.generation.quantize.rounding import round_matrix
from cutaway.models import (
    ActiveTap,
    DecoderConfig,
    EncoderConfig,
    Model,
    NetworkConfig,
    RecurrentConfig,
    Seq2SeqConfig,
    build_network,
)
from cutaway.models.quantised import blocks_in, floats_in
from cutaway.tokenizers import Tokenizer, train_tokenizer

TEXT = "the quick brown fox jumps over the lazy dog "
BIASES = {"attention_bias": True, "output_bias": True, "mlp_bias": True}
GPT2 = {"norm": "layernorm", "position": "learned", "activation": "gelu_tanh", "gated": False, "qk_norm": False}
SHAPES: dict[str, tuple[type, dict[str, Any]]] = {
    "llama": (DecoderConfig, {"heads": 4, "kv_heads": 2, "qk_norm": False, "tied": False}),
    "gpt2": (DecoderConfig, {"heads": 2, **GPT2, **BIASES}),
    "gemma": (DecoderConfig, {"heads": 2, "norm_plus_one": True, "norm_place": "both", "embed_scale": 3.0}),
    "neox": (DecoderConfig, {"heads": 2, "parallel": True, "norm": "layernorm", "tied": False, **BIASES}),
    "olmo": (DecoderConfig, {"heads": 2, "norm_place": "after"}),
    "bert": (EncoderConfig, {"heads": 2, "norm_place": "sum", "position": "learned", "gated": False, **BIASES}),
    "modernbert": (EncoderConfig, {"heads": 2, "tied": False}),
    "t5": (Seq2SeqConfig, {"encoder_layers": 2, "heads": 2, "relative_buckets": 8, "tied": False}),
    "bart": (
        Seq2SeqConfig,
        {"heads": 2, "norm": "layernorm", "norm_place": "sum", "position": "learned", "gated": False, **BIASES},
    ),
    "gru": (RecurrentConfig, {"hidden": 64}),
    "lstm": (RecurrentConfig, {"hidden": 64, "cell": "lstm"}),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT * 20], vocab_size=300)


def make(shape: str, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32) -> Model:
    kind, fields = SHAPES[shape]
    config: NetworkConfig = kind(vocab_size=tokenizer.vocab_size, context=48, layers=2, width=64, **fields)
    torch.manual_seed(0)
    network = build_network(config).eval().to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.1)
    return Model(network, tokenizer, shape)


def run(model: Model, tap: ActiveTap | None = None) -> Tensor:
    ids = torch.tensor([[5, 9, 40, 77, 31, 8]])
    given: dict[str, Any] = {"source": ids.flip(1)} if isinstance(model.config, Seq2SeqConfig) else {}
    if tap is not None:
        given["tap"] = tap
    return model.network(ids, **given)


@pytest.mark.parametrize("shape", SHAPES)
def test_matrices_read_what_the_readings_say(shape: str, tokenizer: Tokenizer):
    """The gradient of a matrix is a sum of outer products with what it reads: its rows lie in the span of those."""
    model = make(shape, tokenizer, torch.float64)
    layers = readings(model.network)
    seen: dict[str, Tensor] = {}
    places = {reading.place for layer in layers for reading in layer}
    made = run(model, ActiveTap(places, sink=lambda name, x: seen.update({name: x.detach()})))
    made.square().sum().backward()
    covered = set()
    for reading in (reading for layer in layers for reading in layer):
        rows = reading.rows(seen[reading.place]).detach().flatten(0, -2)
        span, _ = torch.linalg.qr(rows.T)  # (C, tokens), fewer tokens than channels
        assert span.shape[1] < span.shape[0]
        for name in reading.matrices:
            grad = model.network.get_parameter(name).grad
            assert grad is not None
            assert grad.norm() > 0
            left = grad - (grad @ span) @ span.T
            assert left.norm() < 1e-9 * grad.norm(), name
            covered.add(name)
    tied = getattr(model.config, "tied", False)
    matrices = {name for name, tensor in floats_in(model.network).items() if tensor.ndim == 2 and "embed" not in name}
    expected = {name for name in matrices if not name.endswith(("relative_bias.weight", "head.dense.weight"))}
    assert covered == expected - ({"lm_head.weight"} if tied or shape in ("bert", "modernbert") else set())


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in ("gru", "lstm")])
def test_scaling_channels_changes_nothing(shape: str, tokenizer: Tokenizer):
    model = make(shape, tokenizer, torch.float64)
    before, generator, folds = run(model).detach(), torch.Generator().manual_seed(1), 0
    for reading in (reading for layer in readings(model.network) for reading in layer):
        if reading.fold is None:
            continue
        width = model.network.get_parameter(reading.matrices[0]).shape[-1]
        by = torch.rand(width, generator=generator, dtype=torch.float64) + 0.5
        if (fold := reading.fold).shared > 1:
            by = by.view(-1, fold.shared, fold.head_dim)[:, :1].expand(-1, fold.shared, -1).reshape(-1)
        for name in reading.matrices:
            _replace(model.network, name, model.network.get_parameter(name).detach() * by)
        divide(model.network, reading.fold, by)
        folds += 1
    assert folds >= 2
    torch.testing.assert_close(run(model), before, rtol=1e-9, atol=1e-9)


def test_the_best_power_is_chosen(tokenizer: Tokenizer):
    """Folded for matrices that read some large channels, the network computes the same, and rounds better."""
    model = make("llama", tokenizer)
    reading = readings(model.network)[0][0]
    x = torch.randn(512, 64, generator=torch.Generator().manual_seed(2))
    x[:, [3, 40]] *= 30
    sums = Sums(torch.zeros(64, 64, dtype=torch.float64))
    sums.add(x)
    before = run(model).detach()
    weights = [model.network.get_parameter(name).detach().clone() for name in reading.matrices]
    kinds = dict.fromkeys(reading.matrices, "Q4_0")
    by = fold_channels(model.network, reading, sums, kinds)
    assert by is not None
    torch.testing.assert_close(run(model), before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.curvature, ((x / by).mT @ (x / by)).double(), rtol=1e-4, atol=1e-4)
    scaled = sum(
        float(((round_matrix(model.network.get_parameter(n), "Q4_0").numbers() / by - w) @ x.T).square().sum())
        for n, w in zip(reading.matrices, weights, strict=True)
    )
    plain = sum(float(((round_matrix(w, "Q4_0").numbers() - w) @ x.T).square().sum()) for w in weights)
    assert scaled < 0.5 * plain


def correlated(channels: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=generator) * torch.linspace(0.05, 2, channels)[:, None]
    return torch.randn(2048, channels, generator=generator) @ mix


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("by_size", [False, True])
def test_gptq_beats_rounding_on_correlated_inputs(kind: str, by_size: bool):
    matrix = torch.randn(48, 512, generator=torch.Generator().manual_seed(3))
    x = correlated(512)
    made = gptq_matrix(matrix, kind, (x.mT @ x).double(), by_size=by_size)
    off = ((made.numbers() - matrix) @ x.T).norm()
    assert off < 0.8 * ((round_matrix(matrix, kind).numbers() - matrix) @ x.T).norm()


@pytest.mark.parametrize("kind", GRIDS)
def test_gptq_is_rounding_where_inputs_are_not_correlated(kind: str):
    matrix = torch.randn(16, 256, generator=torch.Generator().manual_seed(4))
    made = gptq_matrix(matrix, kind, torch.eye(256, dtype=torch.float64))
    assert torch.equal(made.data, round_matrix(matrix, kind).data)


def test_columns_make_up_for_errors_as_the_closed_form_says():
    """Optimal Brain Surgeon (Hassibi & Stork 1993): an error e in column i moves others by -e H⁻¹[i] / H⁻¹[i, i]."""
    x = correlated(24, seed=5).double()
    H = x.mT @ x
    U = inverse_factor(H, damping=1e-12).double()
    for i in (0, 7, 22):
        inverse = torch.linalg.inv(H[i:, i:])  # of the columns that are not yet rounded
        torch.testing.assert_close(U[i, i:] / U[i, i], inverse[0] / inverse[0, 0], rtol=1e-3, atol=1e-4)


def test_gptq_of_two_columns_by_hand():
    """With one free column left, it moves to where the squared error of what is written is least."""
    a, b, c = 2.0, 1.2, 1.0  # the curvature of the first two columns; the others read nothing that varies with them
    H = torch.eye(32, dtype=torch.float64)
    H[0, 0], H[0, 1], H[1, 0], H[1, 1] = a, b, b, c
    matrix = torch.zeros(1, 32)
    matrix[0, :4] = torch.tensor([0.3, -0.2, 0.0, 1.27])  # the largest makes levels of 0.01
    matrix[0, 0], matrix[0, 1] = 0.304, -0.2049
    made = gptq_matrix(matrix, "Q8_0", H, damping=1e-9, by_size=False)
    scale = float(made.data[0, :2].view(torch.float16))
    first = round(0.304 / scale) * scale
    moved = -0.2049 + (0.304 - first) * b / c
    assert made.numbers()[0, 0] == pytest.approx(first, abs=1e-6)
    assert made.numbers()[0, 1] == pytest.approx(round(moved / scale) * scale, abs=1e-6)


def test_channels_that_read_nothing_do_no_harm():
    x = correlated(64)
    x[:, 10:40] = 0
    matrix = torch.randn(8, 64, generator=torch.Generator().manual_seed(6))
    made = gptq_matrix(matrix, "Q4_1", (x.mT @ x).double())
    assert bool(made.numbers().isfinite().all())
    assert (made.numbers() - matrix).abs().max() < 0.5
    zero = gptq_matrix(matrix, "Q4_1", torch.zeros(64, 64, dtype=torch.float64))
    assert torch.equal(zero.data, round_matrix(matrix, "Q4_1").data)
    with pytest.raises(NonFinite, match="NaN or infinity on the calibration texts"):
        inverse_factor(torch.full((4, 4), torch.nan, dtype=torch.float64), DAMPING)


@pytest.mark.parametrize(
    ("shape", "method"),
    [*((shape, "gptq") for shape in SHAPES), ("llama", "awq"), ("gemma", "awq"), ("bert", "awq"), ("bart", "awq")],
)
def test_every_network_can_be_calibrated(shape: str, method: str, tokenizer: Tokenizer):
    model = make(shape, tokenizer)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    made = quantize(model, "Q4_0", calibrate=[TEXT * 3, TEXT * 2], method=method)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    assert made.report.method == method
    assert blocks_in(made.model.network).keys() == blocks_in(quantize(model, "Q4_0").model.network).keys()
    texts = rows_of(model, [TEXT * 3, TEXT * 2], most=10_000)
    plain = quantize(model, "Q4_0").model
    away, without = (compare(model.network, m.network, texts, free=False).distance for m in (made.model, plain))
    # random weights have no channels that stand out, so that scaling them gains nothing
    assert away < (0.9 if method == "gptq" else 1.25) * without


def test_texts_that_say_nothing(tokenizer: Tokenizer):
    with pytest.raises(InputError, match="no two tokens"):
        quantize(make("llama", tokenizer), calibrate=[""])
    with pytest.raises(InputError, match="a list of texts"):
        quantize(make("llama", tokenizer), calibrate=TEXT)


def test_texts_begin_with_the_token_that_begins_texts(tokenizer: Tokenizer):
    """As `Model.ids` has them, which is what is generated from."""
    model = Model(build_network(DecoderConfig(tokenizer.vocab_size, 64, layers=1, width=16, heads=2)), tokenizer)
    pieces = [{"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"B": {"id": "B", "ids": [5], "tokens": ["b"]}}
    before = tokenizer.around
    tokenizer.around = [{"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": special}]
    try:
        (made,) = rows_of(model, ["the cat", "a dog"], most=500)
        one, other = (model.ids(text)[0].tolist() for text in ("the cat", "a dog"))
    finally:
        tokenizer.around = before
    end = tokenizer.end_of_text
    assert one[0] == other[0] == 5
    assert made.ids[0].tolist() == [
        *one,
        *([end] if end is not None else []),
        *other,
        *([end] if end is not None else []),
    ]
    (plain,) = rows_of(model, [one], most=500)
    assert plain.ids[0].tolist() == one  # ids are taken as they are


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_network_that_compares_two_texts_is_calibrated_by_halves(method: str, tokenizer: Tokenizer):
    torch.manual_seed(0)
    fields: dict[str, Any] = {"head": "sequence_classification", "labels": ("no", "yes"), "pooling": "mean"}
    config = EncoderConfig(tokenizer.vocab_size, context=48, layers=2, width=64, heads=2, apart=True, **fields)
    model = Model(build_network(config).eval(), tokenizer, "apart")
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    (text,) = rows_of(model, [TEXT * 9], most=1)
    assert text.types is not None
    assert text.types.tolist()[0] == [0] * 24 + [1] * 24
    made = quantize(model, "int8", calibrate=[TEXT * 3, "a lazy dog"], method=method, text=[TEXT * 2]).model
    assert blocks_in(made.network)
    before, after = (text.output(one.network).detach() for one in (model, made))
    distance = float((after - before).norm() / before.norm())
    assert 0 < distance < 0.05
