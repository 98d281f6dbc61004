"""Dictionaries: their formulas, their hand-written gradients, their files, and what they find again."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cutaway.errors import ConfigError, DamagedFile, InputError, NonFinite
from cutaway.interp import record
from cutaway.interp.features import (
    FeaturesConfig,
    SparseAutoencoder,
    Transcoder,
    explain,
    load_features,
    match_directions,
    train_features,
)
from cutaway.interp.features.dictionary import features_of
from cutaway.interp.features.step import Parameters, by_feature, sparse_in_beta, step_gradients
from cutaway.models import Model

KINDS = ["topk", "jumprelu", "l1"]


def planted(
    seed: int, rows: int, channels: int = 64, features: int = 256, share: float = 0.02
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit directions, and rows that are sums of few of them with lengths of 0.5 … 1.5."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(features, channels, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    on = torch.rand(rows, features, generator=generator) < share
    return directions, (on * (torch.rand(rows, features, generator=generator) + 0.5)) @ directions


def plain_loss(
    config: FeaturesConfig, values: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, sparsity: float
) -> torch.Tensor:
    """The loss as its definition says it, for autograd."""
    base = x if config.transcoder else x - values["bias"]
    pre = base @ values["encoder"].T + values["encoder_bias"]
    active = pre.relu()
    if config.kind == "topk":
        top, chosen = pre.topk(config.k, dim=-1)
        active = torch.zeros_like(pre).scatter(-1, chosen, top.relu())
    elif config.kind == "jumprelu":
        active = torch.where(pre > values["log_threshold"].exp(), pre, 0)
    loss = (active @ values["decoder"] + values["bias"] - y).square().sum(-1).mean()
    return loss + sparsity * active.sum(-1).mean() if config.kind == "l1" else loss


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transcoder", [False, True])
def test_gradients_by_hand_are_autograds(kind: str, transcoder: bool):
    config = FeaturesConfig(6, 5 if transcoder else 6, 30, kind, 4 if kind == "topk" else 0, transcoder)
    generator = torch.Generator().manual_seed(0)
    learned = Parameters(config, torch.float64)
    learned.flat.normal_(generator=generator)
    if kind == "jumprelu":
        learned.values["log_threshold"].mul_(0.3)
    x = torch.randn(11, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(11, 5, generator=generator, dtype=torch.float64) if transcoder else x
    with sparse_in_beta():
        step_gradients(learned, x, y, 0.7, 1e-9)  # a kernel so narrow that no place is in it
    values = {name: value.clone().requires_grad_() for name, value in learned.values.items()}
    plain_loss(config, values, x, y, 0.7).backward()
    for name, value in values.items():
        wanted = torch.zeros_like(value) if name == "log_threshold" else value.grad
        assert torch.allclose(learned.grads[name], wanted, atol=1e-12), name


def test_the_thresholds_gradient_is_the_kernels():
    # Rajamanoharan et al. 2024, equations 9 to 12, written out for every place
    config = FeaturesConfig(6, 6, 30, "jumprelu")
    generator = torch.Generator().manual_seed(0)
    learned = Parameters(config, torch.float64)
    learned.flat.normal_(generator=generator)
    x = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    width, sparsity = 0.8, 0.7
    with sparse_in_beta():
        step_gradients(learned, x, x, sparsity, width)
    v = learned.values
    threshold = v["log_threshold"].exp()
    pre = (x - v["bias"]) @ v["encoder"].T + v["encoder_bias"]
    active = torch.where(pre > threshold, pre, 0)
    slope = 2 / len(x) * (active @ v["decoder"] + v["bias"] - x)
    kernel = ((pre - threshold).abs() / width < 0.5).double()
    of_jump = -threshold / width * kernel * (slope @ v["decoder"].T)
    of_step = -sparsity / len(x) / width * kernel
    assert kernel.sum() > 20
    assert torch.allclose(learned.grads["log_threshold"], ((of_jump + of_step) * threshold).sum(0), atol=1e-12)


@pytest.mark.parametrize("width", [7, 2**16, 2**16 + 5])
def test_places_are_sorted_by_feature(width: int):
    columns = torch.randint(width, (500,), generator=torch.Generator().manual_seed(0))
    columns[0], columns[1] = width - 1, 0
    assert torch.equal(columns[by_feature(columns, width)], columns.sort().values)


def test_adam_is_torchs():
    config = FeaturesConfig(3, 3, 4, "l1")
    learned = Parameters(config)
    learned.flat.normal_(generator=torch.Generator().manual_seed(0))
    peer = torch.nn.Parameter(learned.flat.clone())
    optimiser = torch.optim.Adam([peer], lr=0.01)
    for count in range(1, 6):
        learned.flat_grad.normal_(generator=torch.Generator().manual_seed(count))
        peer.grad = learned.flat_grad.clone()
        optimiser.step()
        learned.step(0.01, count)
    assert torch.allclose(learned.flat, peer, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dictionary_is_what_its_formula_says(kind: str):
    features = SparseAutoencoder(5, 12, kind, 3 if kind == "topk" else 0)
    features.reset_parameters(torch.Generator().manual_seed(0))
    assert torch.allclose(features.decoder.norm(dim=1), torch.ones(12))
    assert torch.equal(features.encoder, features.decoder)
    with torch.no_grad():
        features.bias.normal_(generator=torch.Generator().manual_seed(1))
        if kind == "jumprelu":
            features.threshold.fill_(0.5)
    x = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(2))
    pre = torch.einsum("btc,wc->btw", x - features.bias, features.encoder)
    active = features.encode(x)
    if kind == "topk":
        assert ((active > 0).sum(-1) <= 3).all()
        rest = pre.masked_fill(active > 0, -9).amax(-1)
        assert (active.masked_fill(active == 0, 9).amin(-1) >= rest.clamp_min(0)).all()
    else:
        assert torch.equal(active > 0, pre > (0.5 if kind == "jumprelu" else 0))
    assert torch.allclose(active[active > 0], pre[active > 0])
    assert torch.allclose(features(x), torch.einsum("btw,wc->btc", active, features.decoder) + features.bias, atol=1e-6)


def test_planted_features_are_found_again():
    directions, rows = planted(0, 20_000, channels=24, features=48, share=0.03)
    features = train_features(rows, width=48, k=2, samples=250_000, batch=512, lr=4e-3)
    match = match_directions(features.decoder, directions)
    assert match.mcc > 0.97
    assert match.unique > 0.95
    assert explain(features, rows).dead < 0.05
    assert features.run is not None
    assert features.run.steps == 489
    random = torch.randn(48, 24, generator=torch.Generator().manual_seed(1))
    assert match_directions(random, directions).mcc < 0.65


def test_the_order_of_activations_and_their_size_do_not_matter():
    _directions, rows = planted(0, 6_000, channels=16, features=24, share=0.05)
    small = train_features(rows, width=24, kind="jumprelu", samples=60_000, batch=256)
    large = train_features(1000 * rows, width=24, kind="jumprelu", samples=60_000, batch=256)
    assert torch.allclose(small.decoder, large.decoder, atol=1e-3)
    assert torch.allclose(1000 * small(rows[:50]), large(1000 * rows[:50]), rtol=1e-2, atol=1.0)
    again = train_features(rows, width=24, kind="jumprelu", samples=60_000, batch=256)
    assert torch.equal(small.decoder, again.decoder)


def test_features_that_never_fire_begin_anew():
    _, rows = planted(0, 4_000, channels=16, features=24, share=0.05)
    features = train_features(rows, width=200, k=2, samples=100_000, batch=256)
    assert features.run is not None
    assert features.run.resampled > 0


def test_a_transcoder_learns_another_map():
    generator = torch.Generator().manual_seed(0)
    inputs, rows = planted(0, 8_000, channels=16, features=24, share=0.05)
    outputs = torch.randn(24, 10, generator=generator)
    wanted = (rows @ torch.linalg.pinv(inputs)).clamp_min(0) @ outputs
    learned = train_features((rows, wanted), width=48, k=6, transcoder=True, samples=200_000, batch=256, lr=4e-3)
    assert isinstance(learned, Transcoder)
    assert explain(learned, rows, wanted).explained > 0.8


def test_what_a_model_computes_is_learned(model: Model, recurrent: Model):
    texts = ["the cat sat", "a cat sat there", "the hat"] * 5
    features = train_features(model, texts, "layers.1.resid_post", width=40, k=4, samples=30_000, batch=64)
    values = record(model, texts[0], "layers.1.resid_post")["layers.1.resid_post"][0]
    assert features.config.name == "layers.1.resid_post"
    assert explain(features, values).explained > 0.8
    of_mlp = train_features(model, texts, "layers.1.mlp", width=40, k=4, transcoder=True, samples=3_000, batch=64)
    assert (of_mlp.config.reads, of_mlp.config.writes) == (32, 32)
    of_state = train_features(recurrent, texts, "layers.1.hidden", width=30, kind="l1", samples=3_000, batch=64)
    assert of_state.config.reads == 20
    with pytest.raises(ConfigError, match="no MLPs that write into a stream"):
        train_features(recurrent, texts, "layers.1.mlp", width=30, transcoder=True)
    with pytest.raises(ConfigError, match=r"unknown MLP 'layers\.9\.mlp'"):
        train_features(model, texts, "layers.9.mlp", width=30, transcoder=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_dictionary_is_the_same(kind: str, tmp_path: Path):
    features = SparseAutoencoder(5, 12, kind, 3 if kind == "topk" else 0, "layers.0.mlp_out")
    features.reset_parameters(torch.Generator().manual_seed(0))
    features.double().save(tmp_path / "features")
    again = load_features(tmp_path / "features")
    assert again.config == features.config
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), features.parameters(), strict=True))
    weights = tmp_path / "features" / "features.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DamagedFile, match="do not match the checksum"):
        load_features(tmp_path / "features")


def test_memory_mapped_activations_are_read(model: Model, tmp_path: Path):
    from cutaway.interp import open_spill

    record(model, "the cat sat there", "layers.*.mlp_out", spill=tmp_path / "kept")
    mapped = open_spill(tmp_path / "kept")["layers.2.mlp_out"]
    features = train_features(mapped, width=12, k=2, samples=2_000, batch=16)
    assert features.config.reads == 32


def test_what_training_refuses(model: Model):
    rows = torch.randn(50, 8)
    with pytest.raises(ConfigError, match="k must be 1 … 12"):
        train_features(rows, width=12, k=13)
    with pytest.raises(ConfigError, match="unknown kind of features 'topp'"):
        features_of(FeaturesConfig(8, 8, 12, "topp", 3))
    with pytest.raises(ConfigError, match="give the texts"):
        train_features(model, width=12)
    with pytest.raises(ConfigError, match="names 3 activations"):
        train_features(model, ["the cat"], "layers.*.mlp_out", width=12)
    with pytest.raises(ConfigError, match="learns from a pair"):
        train_features(rows, width=12, transcoder=True)
    with pytest.raises(InputError, match="all activations are the same"):
        train_features(torch.ones(50, 8), width=12, k=2)
    rows[3, 3] = float("inf")
    with pytest.raises(NonFinite, match="NaN or an infinity"):
        train_features(rows, width=12, k=2)
    with pytest.raises(ConfigError, match="floating-point"):
        train_features(torch.ones(5, 8, dtype=torch.int64), width=12, k=2)


def test_the_shares_of_an_exact_dictionary():
    features = SparseAutoencoder(4, 5, "l1")
    with torch.no_grad():
        features.decoder[:4] = torch.eye(4)
        features.encoder[:4] = torch.eye(4)
    rows = torch.rand(100, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    found = explain(features, rows)
    assert found.explained == pytest.approx(1.0)
    assert (found.active, found.dead, found.shrinkage) == (4.0, pytest.approx(0.2), pytest.approx(1.0))
    with torch.no_grad():
        features.encoder.mul_(0.5)
    assert explain(features, rows).shrinkage == pytest.approx(0.5)
    assert F.mse_loss(features(rows), rows / 2) < 1e-12
