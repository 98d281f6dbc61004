"""Shapley's axioms, and games whose values are known."""

import pytest
import torch

from cutaway.errors import InputError, NonFinite
from cutaway.interp.attribution import shapley_values

WEIGHTS = torch.tensor([0.5, -2.0, 3.0, 0.0, 1.25], dtype=torch.float64)


def additive(kept: torch.Tensor) -> torch.Tensor:
    return kept.double() @ WEIGHTS


def glove(kept: torch.Tensor) -> torch.Tensor:
    """One has a left glove, two have a right one; a pair is worth 1."""
    return (kept[:, 0] & (kept[:, 1] | kept[:, 2])).double()


def random_game(players: int, seed: int):
    worth = torch.randn(2**players, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lambda kept: worth[(kept.long() * 2 ** torch.arange(players)).sum(-1)]


@pytest.mark.parametrize("samples", [None, 4])
def test_an_additive_game_gives_each_its_weight(samples):
    found = shapley_values(additive, 5, samples=samples)
    torch.testing.assert_close(found.values, WEIGHTS, rtol=0, atol=1e-14)  # and the dummy, number 3, nothing
    assert float(found.errors.abs().max()) < 1e-14
    assert found.gap < 1e-14


def test_the_glove_game():
    torch.testing.assert_close(
        shapley_values(glove, 3).values, torch.tensor([4.0, 1.0, 1.0], dtype=torch.float64) / 6, rtol=0, atol=1e-15
    )
    drawn = shapley_values(glove, 3, samples=2000, seed=1)
    assert ((drawn.values - torch.tensor([4.0, 1.0, 1.0]) / 6).abs() <= 4 * drawn.errors).all()


def test_a_symmetric_game_shares_equally():
    def square(kept: torch.Tensor) -> torch.Tensor:
        return kept.sum(-1).double() ** 2

    torch.testing.assert_close(
        shapley_values(square, 6).values, torch.full((6,), 6.0, dtype=torch.float64), rtol=0, atol=1e-13
    )
    # an order and its reverse give a quadratic game's values exactly
    drawn = shapley_values(square, 6, samples=2)
    torch.testing.assert_close(drawn.values, torch.full((6,), 6.0, dtype=torch.float64), rtol=0, atol=1e-13)


def test_values_of_sums_are_sums_of_values():
    first, second = random_game(5, 0), random_game(5, 1)
    both = shapley_values(lambda kept: first(kept) + 2 * second(kept), 5).values
    torch.testing.assert_close(both, shapley_values(first, 5).values + 2 * shapley_values(second, 5).values)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_drawn_values_are_within_their_errors_and_add_up(seed):
    game = random_game(6, seed)
    exact, drawn = shapley_values(game, 6), shapley_values(game, 6, samples=400, seed=seed)
    assert ((drawn.values - exact.values).abs() <= 4 * drawn.errors).all()
    assert drawn.gap < 1e-12
    assert exact.gap < 1e-12
    more = shapley_values(game, 6, samples=1600, seed=seed)
    assert float(more.errors.mean()) == pytest.approx(float(drawn.errors.mean()) / 2, rel=0.2)
    assert torch.equal(shapley_values(game, 6, samples=400, seed=seed).values, drawn.values)
    assert not torch.equal(shapley_values(game, 6, samples=400, seed=seed + 10).values, drawn.values)


def test_bad_games_are_named():
    with pytest.raises(InputError, match="at least one player"):
        shapley_values(additive, 0)
    with pytest.raises(InputError, match="21 players form too many coalitions"):
        shapley_values(additive, 21)
    with pytest.raises(InputError, match="at least 2 for a standard error"):
        shapley_values(additive, 5, samples=1)
    with pytest.raises(InputError, match=r"gave shape \(\) for"):
        shapley_values(lambda kept: kept.double().sum(), 3)
    with pytest.raises(NonFinite):
        shapley_values(lambda kept: kept.double().sum(-1).log(), 3)
