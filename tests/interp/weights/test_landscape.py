"""The landscape goes through the model, moves as it says, and leaves the model as it was."""

import copy
from typing import Any

import pytest
import torch
from kinds import SHAPES, TEXT, given, letters, made

from cutaway.errors import ConfigError
from cutaway.interp import loss_landscape, surprisal
from cutaway.interp.weights.landscape import direction
from cutaway.models import Model


@pytest.mark.parametrize("shape", SHAPES)
def test_the_middle_is_the_model_and_the_model_is_left_alone(shape: str):
    model = made(shape, letters())
    before = copy.deepcopy(model.network.state_dict())
    found = loss_landscape(model, TEXT, steps=5, **given(model))
    assert found.receipt.gap == pytest.approx(0, abs=1e-5)
    after = model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    line: Any = found.lines["loss"]  # pyright: ignore[reportAttributeAccessIssue]
    if model.config.kind != "encoder":
        assert line[2] == pytest.approx(surprisal(model, TEXT, **given(model)).mean, rel=1e-4)
    assert len({round(value, 6) for value in line}) == 5


def test_a_place_is_the_model_with_those_weights():
    model = made("llama", letters())
    found = loss_landscape(model, TEXT, steps=3, extent=0.5, seed=7)
    draw = torch.Generator().manual_seed(7)
    moved = copy.deepcopy(model.network)
    with torch.no_grad():
        for weight in dict(moved.named_parameters()).values():
            way = direction(weight, draw)
            if weight.ndim == 2:
                torch.testing.assert_close(way.norm(dim=1), weight.norm(dim=1))
            else:
                assert not way.any()
            weight.add_(0.5 * way)
    expected = surprisal(Model(moved, model.tokenizer), TEXT).mean
    assert found.lines["loss"][2] == pytest.approx(expected, rel=1e-5)  # pyright: ignore[reportAttributeAccessIssue]


def test_two_directions_hold_one():
    model = made("gpt2", letters())
    flat, one = (loss_landscape(model, [TEXT, "the cat"], steps=3, dimensions=n) for n in (2, 1))
    assert flat.values.shape == (3, 3)  # pyright: ignore[reportAttributeAccessIssue]
    # the first direction drawn is that of the rows' names, and the middle column leaves the second out
    column = flat.values[:, 1].tolist()  # pyright: ignore[reportAttributeAccessIssue]
    assert column == pytest.approx(one.lines["loss"], rel=1e-5)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_trained_model_lies_lower_than_what_is_around_it():
    model = made("llama", letters())
    ids = model.ids(TEXT)
    optimizer = torch.optim.Adam(model.network.parameters(), lr=0.01)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model.network(ids)[0, :-1], ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    line: Any = loss_landscape(model, TEXT, steps=5).lines["loss"]  # pyright: ignore[reportAttributeAccessIssue]
    assert line[2] == min(line)
    assert line[2] < 0.5 < 1 < min(line[0], line[-1])


def test_what_has_no_landscape_is_refused():
    model = made("qwen3", letters())
    with pytest.raises(ConfigError, match="an odd number of steps"):
        loss_landscape(model, TEXT, steps=4)
    with pytest.raises(ConfigError, match="a decoder with no head"):
        loss_landscape(made("gpt2", letters(), head="none", tied=False), TEXT)
