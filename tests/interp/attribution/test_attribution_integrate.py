"""Integrated gradients of functions whose integrals are known."""

import pytest
import torch

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp.attribution import integrate
from cutaway.interp.attribution.integrate import RULES, nodes

X = torch.tensor([0.7, -1.3, 2.1], dtype=torch.float64)
BASE = torch.tensor([-0.2, 0.4, 0.9], dtype=torch.float64)
MATRIX = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.5, 1.0], [0.3, 0.0, -1.0]], dtype=torch.float64)


def linear(x: torch.Tensor) -> torch.Tensor:
    return x @ MATRIX[0] + 4


def quadratic(x: torch.Tensor) -> torch.Tensor:
    return ((x @ MATRIX) * x).sum(-1)


def cubic(x: torch.Tensor) -> torch.Tensor:
    return (x**3).sum(-1) + x[:, 0] * x[:, 1] * x[:, 2]


@pytest.mark.parametrize("rule", RULES)
def test_a_linear_function_needs_one_step(rule):
    found = integrate(linear, X, BASE, steps=2 if rule == "trapezoid" else 1, rule=rule)
    assert found.gap < 1e-14
    torch.testing.assert_close(found.parts, (X - BASE) * MATRIX[0], rtol=0, atol=1e-15)


@pytest.mark.parametrize(("rule", "steps"), [("midpoint", 1), ("gauss_legendre", 1), ("trapezoid", 2)])
def test_a_quadratic_is_exact_with_one_midpoint(rule, steps):
    found = integrate(quadratic, X, BASE, steps, rule)
    middle = (X + BASE) / 2
    assert found.gap < 1e-14
    torch.testing.assert_close(found.parts, (X - BASE) * ((MATRIX + MATRIX.T) @ middle), rtol=0, atol=1e-14)
    assert integrate(quadratic, X, BASE, steps, "left").gap > 1e-2  # a rule that is not exact misses


def test_a_cubic_is_exact_with_two_gauss_legendre_nodes():
    assert integrate(cubic, X, BASE, 2).gap < 1e-14
    assert integrate(cubic, X, BASE, 1).gap > 1e-2
    assert integrate(cubic, X, BASE, 8, "midpoint").gap > 1e-4


@pytest.mark.parametrize("degree", [3, 7, 11])
def test_n_nodes_are_exact_up_to_degree_2n_minus_1(degree):
    for steps in range(1, 8):
        gap = integrate(lambda x: (x**degree).sum(-1), X, BASE, steps).gap
        assert (gap < 1e-10) == (degree <= 2 * steps), (steps, gap)  # the gradient has one degree less


@pytest.mark.parametrize("rule", RULES)
def test_the_gap_of_relu_nets_falls_with_steps(rule):
    """On average over nets: a kink may fall between two nodes or on one."""
    means = []
    for steps in (4, 32, 256):
        gaps = []
        for seed in range(10):
            torch.manual_seed(seed)
            net = torch.nn.Sequential(torch.nn.Linear(3, 40), torch.nn.ReLU(), torch.nn.Linear(40, 1)).double()
            gaps.append(integrate(lambda x: net(x)[:, 0], X, BASE, steps, rule).gap)  # noqa: B023 (called at once)
        means.append(sum(gaps) / len(gaps))
    assert means[0] > 4 * means[1] > 16 * means[2]


def test_steps_in_batches_give_the_same():
    whole = integrate(cubic, X, BASE, 7, "midpoint", batch=7)
    for batch in (1, 3, 64):
        torch.testing.assert_close(integrate(cubic, X, BASE, 7, "midpoint", batch=batch).parts, whole.parts)


@pytest.mark.parametrize("rule", RULES)
def test_weights_sum_to_one(rule):
    at, weights = nodes(9, rule)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-15)
    assert 0 <= float(at.min()) <= float(at.max()) <= 1


def test_the_baseline_is_zero_unless_given():
    torch.testing.assert_close(integrate(quadratic, X).parts, integrate(quadratic, X, torch.zeros(3)).parts)


def test_bad_functions_are_named():
    with pytest.raises(ConfigError, match="did you mean midpoint"):
        integrate(linear, X, rule="midpiont")
    with pytest.raises(InputError, match="trapezoid needs at least 2 steps"):
        integrate(linear, X, steps=1, rule="trapezoid")
    with pytest.raises(InputError, match="the baseline has shape"):
        integrate(linear, X, BASE[:2])
    with pytest.raises(ConfigError, match=r"gave shape \(32, 3\) for 32 points"):
        integrate(lambda x: x, X)
    with pytest.raises(ConfigError, match="no gradient reaches"):
        integrate(lambda x: torch.zeros(len(x), requires_grad=True) + 0, X)
    with pytest.raises(NonFinite, match="on the way"):
        integrate(lambda x: x.sum(-1).log(), -X.abs())
