"""Waves that were put in are found; addition modulo p by hand is made of them (Gromov 2023, arXiv 2301.02679)."""

import math

import pytest
import torch
from kinds import letters, made

from cutaway.errors import ConfigError, InputError
from cutaway.interp import fourier, frequencies_of


@pytest.mark.parametrize("P", [23, 24])
def test_waves_are_taken_apart_and_put_together(P: int):
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(P, 5, generator=draw, dtype=torch.float64)
    values[:, 4] = 2.5
    found = frequencies_of(values)
    x = torch.arange(P).double()[:, None, None]
    k = torch.arange(P // 2 + 1).double()[None, :, None]
    waves = found.amplitude * torch.cos(2 * math.pi * k * x / P + found.phase.where(k[0] > 0, 0.0))
    torch.testing.assert_close(waves.sum(1), values, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.power.sum(0)[:4], torch.ones(4).double())
    assert float(found.power[:, 4].abs().max()) == 0
    alone = 3 * torch.cos(2 * math.pi * 7 * x[:, :, 0] / P + 1.25)
    one = frequencies_of(alone)
    assert int(one.strongest) == 7
    assert float(one.share) == pytest.approx(1)
    assert float(one.phase[7]) == pytest.approx(1.25)
    assert float(one.amplitude[7]) == pytest.approx(3)


def adder(p: int, neurons: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A quadratic network that adds modulo p, by formula: weights of a, of b and of the sum, and frequencies."""
    draw = torch.Generator().manual_seed(seed)
    k = torch.randint(1, (p - 1) // 2 + 1, (neurons,), generator=draw)
    one, two = 2 * math.pi * torch.rand(2, neurons, generator=draw, dtype=torch.float64)
    angle = 2 * math.pi * torch.arange(p).double()[:, None] * k / p
    return torch.cos(angle + one), torch.cos(angle + two), torch.cos(angle + one + two), k


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("p", [23, 59, 97])
def test_addition_by_formula_is_right_and_made_of_waves(p: int, seed: int):
    read_a, read_b, write, k = adder(p, 512, seed)
    a, b = torch.cartesian_prod(torch.arange(p), torch.arange(p)).T
    hidden = (read_a[a] + read_b[b]).square()
    logits = hidden @ write.T
    right = (a + b) % p
    assert bool((logits.argmax(-1) == right).all())
    of_a, of_b, of_sum = (frequencies_of(x) for x in (read_a, read_b, write))
    for found in (of_a, of_b, of_sum):
        assert torch.equal(found.strongest, k)
        assert float(found.share.min()) == pytest.approx(1)
    column = torch.arange(512)
    phases = [found.phase[k, column] for found in (of_a, of_b, of_sum)]
    off = torch.remainder(phases[0] + phases[1] - phases[2] + math.pi, 2 * math.pi) - math.pi
    assert float(off.abs().max()) < 1e-9
    # without the neurons of one frequency its wave is gone from the logits, up to the noise of random phases
    gone = int(k.mode().values)
    without = hidden[:, k != gone] @ write[:, k != gone].T
    far = torch.remainder(torch.arange(p)[None] - right[:, None], p)  # c - (a + b)
    for output, there in ((logits, True), (without, False)):
        by_distance = torch.zeros(p, dtype=torch.float64).scatter_add(0, far.flatten(), output.flatten()) / len(a)
        power = frequencies_of(by_distance[:, None]).amplitude[gone, 0]
        assert (float(power) > 3) == there
        if not there:
            assert float(power) < 1e-9
    # the control: weights of noise have no frequency of their own
    noise = frequencies_of(torch.randn(p, 512, generator=torch.Generator().manual_seed(seed)))
    assert float(noise.share.mean()) < 0.6


def test_an_embedding_of_circles_shows_its_frequencies():
    model = made("llama", letters())
    P, C = 12, model.network.embed_tokens.weight.shape[1]
    with torch.no_grad():
        angle = 2 * math.pi * 3 * torch.arange(P) / P
        circle = torch.stack((angle.cos(), angle.sin()), dim=1) @ torch.randn(2, C)
        model.network.embed_tokens.weight[4 : 4 + P] = circle
    found = fourier(model, tokens=range(4, 4 + P))
    power = found["power"]
    assert power.at[power.lines["power"].index(max(power.lines["power"]))] == 3  # pyright: ignore
    assert found.figures["share of the strongest frequency"] == pytest.approx(1, abs=1e-5)
    spread = fourier(model, embedding="output", tokens=range(4, 4 + P))
    assert spread.figures["share of the strongest frequency"] < 0.5
    with pytest.raises(ConfigError, match="did you mean output"):
        fourier(model, embedding="outputs")
    with pytest.raises(InputError, match="token ids must lie in"):
        fourier(model, tokens=[0, 1, 10_000])
    with pytest.raises(InputError, match="at least 3"):
        fourier(model, tokens=[0, 1])
