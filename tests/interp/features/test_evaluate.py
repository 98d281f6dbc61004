"""What a dictionary is worth: against its own definitions, on a model whose answers are known."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from cutaway.errors import ConfigError, InputError
from cutaway.interp import evaluate_features, feature_dashboard, record, replace, train_features
from cutaway.interp.features import (
    SparseAutoencoder,
    Transcoder,
    dimensionality,
    explain,
    match_directions,
    replaced_mlps,
)
from cutaway.models import Model

TEXTS = ["the cat sat", "a cat sat there", "the hat", "eat the tea"]
PLACE = "layers.1.resid_post"


def whole(name: str = PLACE, width: int = 32) -> SparseAutoencoder:
    """A dictionary that writes exactly what it reads: each channel's two signs are features."""
    features = SparseAutoencoder(width, 2 * width, "l1", name=name)
    with torch.no_grad():
        features.encoder.copy_(torch.cat((torch.eye(width), -torch.eye(width))))
        features.decoder.copy_(features.encoder)
    return features


def loss(logits: torch.Tensor, ids: torch.Tensor) -> float:
    return float(F.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum"))


def test_an_exact_dictionary_loses_nothing(model: Model):
    found = evaluate_features(model, whole(), TEXTS)
    assert found.figures["loss recovered"] == pytest.approx(1.0, abs=1e-4)
    assert found.figures["explained variance"] == pytest.approx(1.0)
    assert found.figures["active features"] == pytest.approx(32.0)
    assert found.figures["shrinkage"] == pytest.approx(1.0, abs=1e-5)


def test_losses_are_those_of_replaced_runs(model: Model):
    features = train_features(model, TEXTS, PLACE, width=16, k=2, samples=4_000, batch=32)
    found = evaluate_features(model, features, TEXTS, batch=3)
    count = sum(len(text) - 1 for text in TEXTS)
    values = torch.cat([record(model, text, PLACE)[PLACE][0] for text in TEXTS])
    ways = {
        "plain": lambda x: x,
        "replaced": features,
        "zeros": torch.zeros_like,
        "mean": lambda x: values.mean(0).expand_as(x),
    }
    for way, edit in ways.items():
        runs = [replace(model, text, {PLACE: edit}) for text in TEXTS]
        total = sum(loss(run.logits, run.ids) for run in runs)
        assert found.figures[f"loss, {way}"] == pytest.approx(total / count, rel=1e-5), way
    plain, replaced, zeros = (found.figures[f"loss, {way}"] for way in ("plain", "replaced", "zeros"))
    assert found.figures["loss recovered"] == pytest.approx((zeros - replaced) / (zeros - plain), rel=1e-6)
    runs = [replace(model, text, {PLACE: features}).receipt.difference for text in TEXTS]
    assert (
        0 < found.receipt.difference <= max(runs) + 1e-4
    )  # the last token of each text, after which none comes, is out
    assert found.figures["explained variance"] == pytest.approx(explain(features, values).explained, abs=1e-6)


def test_a_transcoder_stands_in_the_model(model: Model):
    transcoder = train_features(
        model, TEXTS, "layers.1.mlp", width=24, k=4, transcoder=True, samples=4_000, batch=32
    )  # fmt: skip
    assert isinstance(transcoder, Transcoder)
    found = evaluate_features(model, transcoder, TEXTS)
    assert math.isfinite(found.figures["loss recovered"])
    plain = record(model, TEXTS[0], ["layers.1.resid_mid", "layers.1.mlp_out"])
    network: Any = model.network
    norm = network.layers[1].post_attention_layernorm
    wanted = transcoder(norm(plain["layers.1.resid_mid"]))
    run = replace(model, TEXTS[0], replaced_mlps(network, {1: transcoder}), "layers.1.mlp_out")
    assert torch.allclose(run["layers.1.mlp_out"], wanted, atol=1e-5)


def test_other_networks_are_evaluated_as_far_as_they_can_be(recurrent: Model):
    features = whole("layers.0.hidden", 20)
    assert evaluate_features(recurrent, features, TEXTS).figures["loss recovered"] == pytest.approx(1.0, abs=1e-4)


def test_planted_directions_are_matched_one_to_one():
    generator = torch.Generator().manual_seed(0)
    planted = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    order = torch.randperm(8, generator=generator)
    match = match_directions(-3 * planted[order], planted)
    assert match.mcc == pytest.approx(1.0)
    assert match.unique == 1.0
    assert torch.equal(match.pairs[:, 1], order)
    # two features of one direction: one of them must take what is left, and neither has it alone
    doubled = planted.clone()
    doubled[0] = doubled[1]
    match = match_directions(doubled, planted)
    assert match.mcc == pytest.approx(7 / 8)
    assert match.unique == pytest.approx(6 / 8)
    found = evaluate_features(planted, _of(planted), planted=planted)
    assert found.figures["mcc"] == pytest.approx(1.0)
    assert 0.2 < found.figures["mcc of random directions"] < 0.8


def _of(directions: torch.Tensor) -> SparseAutoencoder:
    features = SparseAutoencoder(directions.shape[1], len(directions), "l1")
    with torch.no_grad():
        features.decoder.copy_(directions)
        features.encoder.copy_(directions)
    return features


def test_dimensionality_of_known_shapes():
    assert dimensionality(torch.eye(3)).tolist() == pytest.approx([1, 1, 1])
    assert dimensionality(torch.tensor([[1.0, 0], [-1, 0], [0, 1]])).tolist() == pytest.approx([0.5, 0.5, 1])
    for corners in (3, 5, 8):  # m corners in a plane have 2 / m each
        turn = 2 * math.pi * torch.arange(corners) / corners
        shape = torch.stack((turn.cos(), turn.sin()), dim=1)
        assert dimensionality(shape).tolist() == pytest.approx([2 / corners] * corners, abs=1e-6)
    tetrahedron = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    assert dimensionality(tetrahedron).tolist() == pytest.approx([3 / 4] * 4)
    assert dimensionality(torch.zeros(2, 3)).tolist() == [0, 0]


def test_a_dashboard_shows_where_a_feature_is_active(model: Model):
    features = whole()
    board = feature_dashboard(model, features, TEXTS, feature=7, top=3)
    values = [record(model, text, PLACE)[PLACE][0, :, 7].clamp_min(0) for text in TEXTS]
    best = sorted(range(4), key=lambda i: -float(values[i].max()))
    for context, i in zip(board.contexts, best, strict=False):
        assert context.scores == pytest.approx(values[i].tolist(), abs=1e-5)
        assert "".join(context.tokens) == TEXTS[i]
    together = torch.cat(values)
    assert board.figures["share of tokens"] == pytest.approx(float((together > 0).float().mean()))
    assert sum(board["histogram"].lines["tokens"]) == int((together > 0).sum())
    # one unit more in the last stream's channel, read without the norm's scale
    assert board["promoted"].rows[0][1] >= board["promoted"].rows[1][1] > 0 > board["suppressed"].rows[0][1]
    network: Any = model.network
    effects = (network.lm_head.weight[:, 7] * network.norm.weight[7]).detach()
    token = model.tokenizer.token(int(effects.argmax()))
    assert board["promoted"].rows[0] == [token, pytest.approx(float(effects.max() - effects.mean()))]
    assert board["nearest"].rows[-1][0] != 7


def test_a_dashboard_of_a_silent_feature_and_of_other_networks(model: Model, recurrent: Model):
    features = whole()
    with torch.no_grad():
        features.encoder_bias[3] = -100.0
    board = feature_dashboard(model, features, TEXTS, feature=3)
    assert board.contexts == []
    assert any("active nowhere" in note for note in board.notes)
    board = feature_dashboard(recurrent, whole("layers.0.hidden", 20), TEXTS)
    assert "promoted" not in board.parts
    assert board.figures["largest"] > 0


def test_what_evaluation_refuses(model: Model):
    with pytest.raises(ConfigError, match="does not say what it was trained on"):
        evaluate_features(model, whole(""), TEXTS)
    with pytest.raises(ConfigError, match=r"reads 20 channels, but layers\.1\.resid_post has 32"):
        evaluate_features(model, whole(PLACE, 20), TEXTS)
    with pytest.raises(InputError, match="features are 0 … 63, but 64"):
        feature_dashboard(model, whole(), TEXTS, feature=64)
    with pytest.raises(InputError, match="give the texts"):
        evaluate_features(model, whole())
    with pytest.raises(ConfigError, match="directions of 3 and of 4 channels"):
        match_directions(torch.eye(3), torch.eye(4))
