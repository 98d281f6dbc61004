"""Ranks and tails of matrices whose singular values are known."""

import math

import numpy as np
import pytest
import torch
from kinds import SHAPES, letters, made

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp import spectra
from cutaway.interp.weights.spectra import effective_rank, fit_tail
from cutaway.models import Model


def with_matrix(matrix: torch.Tensor) -> Model:
    """A model one of whose matrices is this one."""
    model = made("gpt2", letters(), width=24, mlp_width=96)
    with torch.no_grad():
        model.network.blocks[0].mlp.up_proj.weight.copy_(matrix)  # pyright: ignore
    return model


def row(model: Model) -> dict[str, object]:
    found = spectra(model, "layers.0.mlp.up_proj.weight")["matrices"]
    return dict(zip(found.columns, found.rows[0], strict=True))  # pyright: ignore[reportAttributeAccessIssue]


def test_ranks_of_matrices_that_are_known():
    draw = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(96, 24, generator=draw, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(24, 24, generator=draw, dtype=torch.float64)).Q
    alike = row(with_matrix((3 * left @ right).float()))
    assert alike["largest"] == pytest.approx(3, rel=1e-6)
    assert alike["effective rank"] == pytest.approx(24, rel=1e-6)
    assert alike["stable rank"] == pytest.approx(24, rel=1e-5)
    five = row(with_matrix((left[:, :5] @ right[:5]).float()))
    assert five["effective rank"] == pytest.approx(5, rel=1e-3)
    one = row(with_matrix(torch.outer(left[:, 0], right[0]).float()))
    assert one["effective rank"] == pytest.approx(1, rel=1e-4)
    assert row(with_matrix(torch.zeros(96, 24)))["effective rank"] == 0


def test_effective_rank_is_the_exponential_of_an_entropy():
    values = torch.tensor([4.0, 2.0, 1.0, 1.0]).double()
    shares = np.array([0.5, 0.25, 0.125, 0.125])
    assert effective_rank(values) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-12)


@pytest.mark.parametrize("exponent", [2.0, 2.5, 3.5])
def test_a_power_law_is_found_again(exponent: float):
    found = []
    for seed in range(3):
        uniform = torch.rand(4000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        tail = fit_tail(0.5 * uniform ** (-1 / (exponent - 1)))
        assert tail is not None
        assert tail.distance < 0.03
        found.append(tail.exponent)
    assert sum(found) / 3 == pytest.approx(exponent, rel=0.06)


def test_what_is_no_power_law_is_further_from_one():
    draw = torch.Generator().manual_seed(0)
    law = fit_tail(torch.rand(1000, generator=draw, dtype=torch.float64) ** -1.0)
    uniform = fit_tail(1 + torch.rand(1000, generator=draw, dtype=torch.float64))
    assert law is not None
    assert uniform is not None
    assert uniform.exponent > 5  # what is cut off has no tail
    assert fit_tail(torch.ones(5).double()) is None
    assert fit_tail(torch.ones(50).double()) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_has_spectra(shape: str):
    model = made(shape, letters())
    found = spectra(model)
    state = model.network.state_dict()
    assert set(found.values) <= set(state)
    tied = getattr(model.config, "tied", False)
    matrices = {name for name, value in state.items() if value.ndim == 2 and min(value.shape) > 1}
    assert set(found.values) == matrices - ({"lm_head.weight"} if tied else set())
    name = next(name for name in found.values if "proj" in name or "weight_hh" in name)
    torch.testing.assert_close(found.values[name], torch.linalg.svdvals(state[name].double()))


def test_what_has_no_spectrum_is_refused():
    model = made("qwen3", letters())
    with pytest.raises(InputError, match="selects no matrix"):
        spectra(model, "norm.weight")
    with pytest.raises(ConfigError, match=r"unknown weight 'layers\.7\.mlp'"):
        spectra(model, "layers.7.mlp")
    with torch.no_grad():
        model.network.blocks[1].self_attn.q_proj.weight[0, 0] = float("nan")  # pyright: ignore
    with pytest.raises(NonFinite, match=r"layers\.1\.self_attn\.q_proj\.weight"):
        spectra(model)
