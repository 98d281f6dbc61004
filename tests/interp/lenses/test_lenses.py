"""Lenses against the model, against each other, and against derivatives that are known."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.interp import record, replace
from cutaway.interp.inputs import forward
from cutaway.interp.lenses import (
    Translators,
    average_jacobians,
    fit_jacobian_lens,
    jacobian_lens,
    lens_distance,
    load_lens,
    logit_lens,
    train_tuned_lens,
    tuned_lens,
)
from cutaway.interp.lenses.stream import fingerprint, places
from cutaway.models import ActiveTap, Decoder, DecoderConfig, Model
from cutaway.models.assemble import write_tensors
from tests.interp.every_kind import SOURCE, TEXT, given, made

SPEAK = ["gpt2", "llama", "gemma", "experts", "modernbert", "bert", "t5", "bart", "whisper"]
SILENT = {
    "gru": "a recurrent model does not have",
    "encoder of texts": "through a head for masked_lm",
    "decoder of texts": "needs a model that predicts the next token",
}
TEXTS = [TEXT, SOURCE, TEXT[::-1], SOURCE[::-1]]


def sources(model: Model, count: int = len(TEXTS)) -> list[Any] | None:
    read = given(model)
    return [read["source"]] * count if read else None


@pytest.fixture(params=SPEAK)
def model(request: pytest.FixtureRequest) -> Model:
    return made(request.param, dtype=torch.float32)


@torch.no_grad()
def test_the_last_layer_read_is_the_models_output(model: Model):
    """A7: soft-caps, output scales, experts and heads included."""
    recording = record(model, TEXT, places(model), **given(model))
    network: Any = model.network
    read = network.read_out(recording[places(model)[-1]])
    plain = model.logits(TEXT, **given(model))
    assert float((read - plain).abs().max() / plain.abs().max()) <= 2e-6
    earlier = network.read_out(recording[places(model)[-2]])
    assert float((earlier - plain).abs().max() / plain.abs().max()) > 1e-2


def test_a_lens_that_was_not_trained_is_the_logit_lens(model: Model):
    """A8: the same cells, and no distance at the last layer."""
    lens = train_tuned_lens(model, TEXTS, sources=sources(model), steps=0)
    assert torch.equal(lens.matrices, torch.eye(lens.matrices.shape[1]).expand_as(lens.matrices))
    plain = logit_lens(model, TEXT, **given(model))
    assert plain.cells == tuned_lens(model, TEXT, lens, **given(model)).cells
    assert plain.layers == tuned_lens(model, TEXT, lens, **given(model)).layers
    distance = lens_distance(model, TEXTS, lens, sources=sources(model))
    assert distance.lines["tuned"] == distance.lines["logit"]
    assert distance.lines["logit"][-1] == 0
    assert distance.agreement["logit"][-1] == 1
    assert min(filter(None, distance.lines["logit"][:-1])) > 1e-3


def test_training_brings_the_lens_nearer(model: Model):
    lens = train_tuned_lens(model, TEXTS, sources=sources(model), steps=40, batch=32, seed=1)
    distance = lens_distance(model, TEXTS, lens, sources=sources(model))
    logit, tuned = distance.lines["logit"], distance.lines["tuned"]
    assert all((b or 0) < 0.95 * (a or 0) for a, b in zip(logit[:-1], tuned[:-1], strict=True))
    assert tuned[-1] == 0
    same = train_tuned_lens(model, TEXTS, sources=sources(model), steps=40, batch=32, seed=1)
    assert torch.equal(lens.matrices, same.matrices)
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_distances_are_what_they_are_defined_as():
    model = made("gpt2", dtype=torch.float32)
    network: Any = model.network
    found = lens_distance(model, [TEXT, "cat"])
    kl, loss, same = 0.0, 0.0, 0
    with torch.no_grad():
        for text in (TEXT, "cat"):
            recording = record(model, text, places(model))
            said = network.read_out(recording["layers.0.resid_post"])[0].double().log_softmax(-1)
            final = recording.logits[0].double().log_softmax(-1)
            kl += float(torch.nn.functional.kl_div(said, final, log_target=True, reduction="sum")) / math.log(2)
            same += int((said.argmax(-1) == final.argmax(-1)).sum())
            loss += float(torch.nn.functional.nll_loss(said[:-1], recording.ids[0, 1:], reduction="sum")) / math.log(2)
    count = len(TEXT) + 3
    assert found.positions == count
    assert found.lines["logit"][1] == pytest.approx(kl / count, rel=1e-4)
    assert found.agreement["logit"][1] == pytest.approx(same / count)
    assert found.loss["logit"][1] == pytest.approx(loss / (count - 2), rel=1e-4)
    assert lens_distance(made("bert", dtype=torch.float32), TEXTS).loss == {}


def linear_decoder() -> tuple[Model, list[torch.Tensor]]:
    """A decoder whose layers are h + A h: silent attention, norms with a huge eps, activations far above their kink."""
    base = made("gpt2")
    shape: dict[str, Any] = {"layers": 3, "width": 8, "heads": 2, "mlp_width": 16, "activation": "relu", "gated": False}
    options: dict[str, Any] = {"norm_eps": 1e12, "qk_norm": False, "mlp_bias": True, "tied": False}
    network = Decoder(DecoderConfig(base.tokenizer.vocab_size, context=32, **shape, **options)).double().eval()
    torch.manual_seed(1)
    maps = []
    with torch.no_grad():
        for layer in network.blocks:
            up: Any = layer.mlp.up_proj
            down: Any = layer.mlp.down_proj
            up.weight.copy_(1e6 * torch.randn_like(up.weight) * 0.3)  # the norm divides by a million
            down.weight.copy_(torch.randn_like(down.weight) * 0.3)
            up.bias.fill_(1e3)
            down.bias.copy_(-1e3 * down.weight.sum(1))
            maps.append(down.weight @ up.weight / 1e6)
    return Model(network, base.tokenizer, "a linear test"), maps


@pytest.mark.parametrize("targets", ["later", "same"])
def test_the_jacobian_of_a_linear_network_is_the_product_of_its_layers(targets: str):
    """A9: J = Π (1 + A); nothing of it depends on texts or positions."""
    model, maps = linear_decoder()
    recording = record(model, TEXT, "layers.*.resid_p*")
    moved = recording["layers.1.resid_pre"] @ maps[1].T
    written = recording["layers.1.resid_post"] - recording["layers.1.resid_pre"]
    torch.testing.assert_close(written - written[:, :1], moved - moved[:, :1], rtol=1e-6, atol=1e-8)  # it is linear
    lens = fit_jacobian_lens(model, TEXTS, targets=targets)
    eye = torch.eye(8, dtype=torch.float64)
    for place in range(4):
        product = eye
        for change in maps[place:]:
            product = (eye + change) @ product
        torch.testing.assert_close(lens.matrices[place].double(), product, rtol=1e-5, atol=1e-5)
    assert torch.equal(lens.matrices[-1], torch.eye(8))


def test_the_average_jacobian_of_any_linear_streams_is_exact():
    torch.manual_seed(0)
    maps = [torch.randn(5, 5, dtype=torch.float64) * 0.4 for _ in range(3)]
    start = torch.randn(7, 5, dtype=torch.float64)

    def stream(copies: int) -> list[torch.Tensor]:
        found = [start.repeat(copies, 1, 1).requires_grad_()]
        for change in maps:
            found.append(found[-1] + found[-1] @ change.T)
        return found

    eye = torch.eye(5, dtype=torch.float64)
    wanted = (eye + maps[2]) @ (eye + maps[1]) @ (eye + maps[0])
    real = torch.ones(7, dtype=torch.bool)
    for at_once in (1, 3, 64):
        found = average_jacobians(stream, real, at_once=at_once)
        torch.testing.assert_close(found[0], wanted.float())
        torch.testing.assert_close(found[3], torch.eye(5))
    errors = []
    for probes in (50, 5000):
        drawn = average_jacobians(stream, real, probes=probes, generator=torch.Generator().manual_seed(0), at_once=64)
        errors.append(float((drawn[0] - wanted.float()).norm() / wanted.norm()))
    assert errors[1] < 0.05
    assert 5 < errors[0] / errors[1] < 20  # the root of a hundred


@pytest.mark.parametrize("kind", ["llama", "bert", "bart"])
def test_jacobians_are_those_of_the_network(kind: str):
    """Against torch's own, of the whole rest of the network: later positions are added up, sources averaged."""
    model = made(kind)
    recording = record(model, "the cat", places(model), **given(model))
    T, skip = recording.ids.shape[1], 2

    def rest(stream: torch.Tensor) -> torch.Tensor:
        run: Any = {}
        tap = ActiveTap([places(model)[-1]], {places(model)[1]: lambda _: stream[None]}, run.__setitem__)
        forward(model, recording.inputs, tap)
        return run[places(model)[-1]][0]

    full: Any = torch.autograd.functional.jacobian(rest, recording[places(model)[1]][0])  # (T, C, T, C)
    wanted = full[skip:, :, skip:].sum(0).mean(1)
    lens = fit_jacobian_lens(model, ["the cat"], sources=sources(model, 1), skip=skip)
    torch.testing.assert_close(lens.matrices[1], wanted.float(), rtol=1e-4, atol=1e-5)
    same = fit_jacobian_lens(model, ["the cat"] * 30, sources=sources(model, 30), skip=skip, targets="same")
    own = torch.stack([full[t, :, t] for t in range(skip, T)])
    mean, spread = own.mean(0), own.std(0) / 30**0.5
    assert (((same.matrices[1] - mean).abs() <= 5 * spread + 1e-5).float().mean()) == 1


def test_a_jacobian_lens_reads_what_it_says(model: Model):
    lens = fit_jacobian_lens(model, TEXTS, sources=sources(model))
    read = jacobian_lens(model, TEXT, lens, **given(model))
    network: Any = model.network
    recording = record(model, TEXT, places(model), **given(model))
    with torch.no_grad():
        said = network.read_out(recording[places(model)[1]] @ lens.matrices[1].T)[0].softmax(-1).max(-1)
    for t, cell in enumerate(read.cells[1]):
        assert cell.top[0][1] == pytest.approx(float(said.values[t]), rel=1e-4)
    assert read.cells[-1] == logit_lens(model, TEXT, **given(model)).cells[-1]
    alone = jacobian_lens(model, TEXT, **given(model))
    assert alone.cells[-1] == read.cells[-1]
    assert alone.cells[0] != read.cells[0]


def test_parts_of_layers_can_be_read_too():
    model = made("bart", dtype=torch.float32)
    for part in ("attn_out", "mlp_out", "cross_attn_out"):
        found = logit_lens(model, TEXT, **given(model), part=part)
        assert found.layers == ["layer 0", "layer 1"]
    with pytest.raises(ConfigError, match="did you mean mlp_out"):
        logit_lens(model, TEXT, **given(model), part="mlp")


def test_a_lens_is_read_on_an_edited_run():
    model = made("gpt2", dtype=torch.float32)
    lens = train_tuned_lens(model, TEXTS, steps=3)
    edited = replace(model, TEXT, {"layers.1.mlp_out": lambda x: 2 * x})
    assert tuned_lens(edited, lens=lens).cells[-1] == logit_lens(edited).cells[-1]
    assert tuned_lens(edited, lens=lens).cells[-1] != logit_lens(model, TEXT).cells[-1]


def test_saved_and_loaded_is_the_same(tmp_path: Path):
    model = made("llama", dtype=torch.float32)
    lens = train_tuned_lens(model, TEXTS, steps=3)
    path = lens.save(tmp_path / "lenses" / "tuned.safetensors")
    again = load_lens(path)
    assert torch.equal(again.matrices, lens.matrices)
    assert (again.kind, again.fingerprint, again.about) == ("tuned", lens.fingerprint, lens.about)
    assert tuned_lens(model, TEXT, path).cells == tuned_lens(model, TEXT, lens).cells
    with pytest.raises(ConfigError, match="made for another model"):
        tuned_lens(made("gpt2", dtype=torch.float32), TEXT, path)
    before = fingerprint(model)
    with torch.no_grad():
        model.network.lm_head.weight += 1e-3  # pyright: ignore
    assert fingerprint(model) != before
    (tmp_path / "x.safetensors").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedFile, match="cannot be read as safetensors"):
        load_lens(tmp_path / "x.safetensors")
    misshapen = {"matrices": lens.matrices[:, :3].contiguous(), "biases": lens.biases}
    write_tensors(misshapen, tmp_path / "y.safetensors", {"kind": "tuned", "fingerprint": "x"})
    with pytest.raises(DamagedFile, match="holds a lens of shapes"):
        load_lens(tmp_path / "y.safetensors")
    with pytest.raises(DamagedFile):
        load_lens(tmp_path / "missing.safetensors")


def test_memory_is_bounded_by_drawing_positions():
    model = made("gpt2", dtype=torch.float32)
    each = 3 * 24 * 4
    lens = train_tuned_lens(model, TEXTS, steps=2, limit=30 * each)
    assert lens.about["positions"] == 27  # a tenth is for choosing
    with pytest.raises(InputError, match="holds no two positions"):
        train_tuned_lens(model, TEXTS, steps=2, limit=each)


@pytest.mark.parametrize("kind", SILENT)
def test_models_that_name_no_tokens_say_why(kind: str):
    model = made(kind)
    for analysis in (logit_lens, tuned_lens, jacobian_lens):
        options: dict[str, Any] = {"lens": Translators("x", torch.zeros(1, 1, 1), torch.zeros(1, 1), "")}
        with pytest.raises(ConfigError, match=SILENT[kind]):
            analysis(model, TEXT, **(options if analysis is not logit_lens else {}))
    for make in (train_tuned_lens, fit_jacobian_lens, lens_distance):
        with pytest.raises(ConfigError, match=SILENT[kind]):
            make(model, [TEXT])


def test_bad_input_is_named():
    model = made("gpt2", dtype=torch.float32)
    with pytest.raises(ConfigError, match="must be trained first"):
        tuned_lens(model, TEXT)
    with pytest.raises(InputError, match="give a list of texts"):
        train_tuned_lens(model, TEXT)
    with pytest.raises(InputError, match="give a list of texts"):
        fit_jacobian_lens(model, [])
    with pytest.raises(InputError, match="2 texts with 1 sources"):
        lens_distance(made("t5"), ["a", "b"], sources=["a"])
    with pytest.raises(InputError, match="one token is too few"):
        train_tuned_lens(model, ["a"])
    with pytest.raises(InputError, match="text 1 has 3 tokens, of which the first 4 are left out"):
        fit_jacobian_lens(model, [TEXT, "the"])
    with pytest.raises(ConfigError, match="did you mean later"):
        fit_jacobian_lens(model, TEXTS, targets="latter")
    with pytest.raises(InputError, match="probes must be at least 1"):
        fit_jacobian_lens(model, TEXTS, probes=0)
    with pytest.raises(ConfigError, match="steps must be 0 or more"):
        train_tuned_lens(model, TEXTS, steps=-1)
    with pytest.raises(InputError, match="top must be at least 1"):
        jacobian_lens(model, TEXT, top=0)
