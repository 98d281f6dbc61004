"""Known answers that take a training, three seeds each: planted features, toy superposition, a planted MLP."""

import math

import pytest
import torch

from cutaway.interp.features import Features, dimensionality, explain, match_directions, train_features

SEEDS = [0, 1, 2]
pytestmark = pytest.mark.slow


def planted(seed: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """256 unit directions in 64 dimensions, each on in 2 % of the rows with a length of 0.5 … 1.5."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(256, 64, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    on = torch.rand(rows, 256, generator=generator) < 0.02
    return directions, (on * (torch.rand(rows, 256, generator=generator) + 0.5)) @ directions


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["topk", "jumprelu", "l1"])
def test_planted_features_are_recovered(kind: str, seed: int):
    directions, rows = planted(seed, 200_000)
    features = train_features(rows, width=256, kind=kind, k=5, samples=1_000_000, seed=seed)
    match = match_directions(features.decoder, directions)
    assert match.mcc >= 0.95
    assert match.unique >= 0.95
    found = explain(features, rows[:20_000])
    assert found.dead < 0.05
    random = torch.randn(256, 64, generator=torch.Generator().manual_seed(seed + 100))
    assert match_directions(random, directions).mcc < 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sum_of_activations_as_a_cost_shrinks_them_and_counting_does_not(seed: int):
    _, rows = planted(seed, 100_000)
    written = {}
    for kind in ("topk", "l1"):
        features = train_features(rows, width=256, kind=kind, k=5, samples=600_000, seed=seed)
        written[kind] = explain(features, rows[:20_000]).shrinkage
    assert written["topk"] == pytest.approx(1.0, abs=0.02)
    assert written["l1"] < 0.9


def toy(seeds: int, inputs: int, hidden: int, sparsity: float, importance: float, seed: int, steps: int) -> list:
    """Elhage et al. 2022's ReLU(WᵀWx + b), several at once: the W (inputs, hidden) of each, with its loss."""
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(seeds, inputs, hidden, generator=generator) * 0.5).requires_grad_()
    bias = torch.zeros(seeds, inputs, requires_grad=True)
    scale = importance ** torch.arange(inputs).float()
    optimiser = torch.optim.AdamW([weight, bias], lr=3e-3, weight_decay=0.0)
    loss = torch.zeros(seeds)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        x = torch.rand(seeds, 512, inputs, generator=generator)
        x = x * (torch.rand(x.shape, generator=generator) >= sparsity)
        out = (x @ weight @ weight.transpose(1, 2) + bias[:, None]).relu()
        loss = (scale * (x - out).square()).mean(dim=(1, 2))
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    return [(w, float(v)) for w, v in zip(weight.detach(), loss.detach(), strict=True)]


@pytest.mark.parametrize("seed", SEEDS)
def test_dense_features_take_a_dimension_each_and_the_others_are_dropped(seed: int):
    weight, _ = min(toy(6, 5, 2, 0.0, 0.9, seed, 2500), key=lambda made: made[1])
    lengths = weight.norm(dim=1)
    assert (lengths > 0.5).sum() == 2
    assert dimensionality(weight)[lengths > 0.5].tolist() == pytest.approx([1.0, 1.0], abs=0.02)
    assert set(lengths.topk(2).indices.tolist()) == {0, 1}  # the two that count most


@pytest.mark.parametrize("seed", SEEDS)
def test_sparse_features_stand_in_antipodal_pairs_then_in_a_pentagon(seed: int):
    pairs, _ = min(toy(8, 4, 2, 0.8, 1.0, seed, 2500), key=lambda made: made[1])
    assert dimensionality(pairs).tolist() == pytest.approx([0.5] * 4, abs=0.02)
    cosines = torch.nn.functional.cosine_similarity(pairs[:, None], pairs[None], dim=-1)
    assert cosines.amin(dim=1).tolist() == pytest.approx([-1.0] * 4, abs=0.02)
    pentagon, _ = min(toy(8, 5, 2, 0.95, 1.0, seed, 4000), key=lambda made: made[1])
    assert dimensionality(pentagon).tolist() == pytest.approx([2 / 5] * 5, abs=0.02)
    angles = torch.atan2(pentagon[:, 1], pentagon[:, 0]).sort().values
    turns = torch.diff(angles, append=angles[:1] + 2 * math.pi) * 180 / math.pi
    assert turns.tolist() == pytest.approx([72.0] * 5, abs=5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_transcoder_finds_the_edges_of_a_planted_mlp(seed: int):
    """An MLP that maps each of 24 input features to one of 24 output features; the transcoder must do the same."""
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = (torch.randn(24, 32, generator=generator) for _ in range(2))
    inputs, outputs = (d / d.norm(dim=1, keepdim=True) for d in (inputs, outputs))
    order = torch.randperm(24, generator=generator)
    on = (torch.rand(60_000, 24, generator=generator) < 0.04) * (torch.rand(60_000, 24, generator=generator) + 0.5)
    how = {"width": 48, "kind": "l1", "sparsity": 0.2, "transcoder": True, "batch": 512, "seed": seed, "lr": 4e-3}
    features = train_features((on @ inputs, on @ outputs[order]), samples=600_000, **how)
    assert match_directions(features.decoder, outputs).mcc > 0.95
    strength = edges(features, inputs, outputs)
    assert strength.argmax(dim=1).tolist() == order.tolist()
    others = strength.scatter(1, order[:, None], 0.0)
    assert others.max() < 0.05 * strength.max()
    # a transcoder of pairs that do not belong together finds no such edges
    shuffled = (on @ outputs[order])[torch.randperm(60_000, generator=generator)]
    none = train_features((on @ inputs, shuffled), samples=100_000, **how)
    assert (edges(none, inputs, outputs).argmax(dim=1) == order).float().mean() < 0.3


@torch.no_grad()
def edges(features: Features, inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """How much each input feature makes the transcoder write along each output: by the output that is nearest."""
    nearest = (features.decoder @ outputs.T).argmax(dim=1)
    return features.encode(inputs) @ torch.nn.functional.one_hot(nearest, len(outputs)).float()
