"""A view's claims, tried: a right view is confirmed, a wrong one is not."""

import dataclasses

import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from cutaway.errors import ConfigError
from cutaway.interp import Panel, Table, TokenScores, inputs_of, record, replace, surprisal, target_of
from cutaway.interp.check import check
from cutaway.interp.claims import Claim, Claims
from cutaway.models import Model

TEXT = "the cat sat"


def without(head: int):
    def edit(z: torch.Tensor) -> torch.Tensor:
        z = z.clone()
        z[:, head] = 0
        return z

    return edit


def view(model: Model, predicted: list[float], signed: bool = True) -> TokenScores:
    """Says of each head of all layers what happens without it."""
    inputs = inputs_of(model, TEXT)
    target = target_of(model, inputs)
    claims = tuple(
        Claim(f"layer {i} head {h}", predicted[4 * i + h], {f"layers.{i}.attn.z": without(h)})
        for i in range(3)
        for h in range(4)
    )
    made = Claims(model, inputs, target, claims, "the head writes zeros", "logits", signed)
    return dataclasses.replace(surprisal(model, TEXT), claims=lambda: made)


@pytest.fixture
def effects(model: Model) -> list[float]:
    target = target_of(model, inputs_of(model, TEXT))
    plain = float(record(model, TEXT, "logits").logits[0, -1, target.chosen])
    return [
        plain - float(replace(model, TEXT, {f"layers.{i}.attn.z": without(h)}).logits[0, -1, target.chosen])
        for i in range(3)
        for h in range(4)
    ]


def test_a_view_that_is_right_is_confirmed(model: Model, effects: list[float]):
    found = check(view(model, effects))
    assert isinstance(found, Panel)
    assert found.figures["Pearson correlation"] == pytest.approx(1.0)
    assert found.figures["sign is right"] == 1.0
    table = found["claims"]
    assert isinstance(table, Table)
    assert table.column("actual") == pytest.approx(table.column("predicted (logits)"), abs=1e-5)
    assert sorted(table.column("actual")) == pytest.approx(sorted(effects), abs=1e-5)  # pyright: ignore
    assert "agrees with what happens" in found.notes[-1]


def test_a_view_that_is_wrong_is_not(model: Model, effects: list[float]):
    wrong = effects[6:] + effects[:6]
    found = check(view(model, wrong))
    assert found.figures["Pearson correlation"] == pytest.approx(pearsonr(wrong, effects)[0], abs=1e-5)
    assert found.figures["Spearman correlation"] == pytest.approx(spearmanr(wrong, effects)[0], abs=1e-6)
    assert found.figures["Pearson correlation"] < 0.8
    sizes = check(view(model, [abs(effect) for effect in effects], signed=False))
    assert sizes.figures["Pearson correlation"] == pytest.approx(1.0)
    assert "sign is right" not in sizes.figures


def test_half_of_the_claims_are_drawn(model: Model, effects: list[float]):
    seen = []
    found = check(view(model, effects), most=6, seed=1, progress=seen.append)
    table = found["claims"]
    assert isinstance(table, Table)
    assert len(table.rows) == len(seen) == 6
    assert seen[-1].done == seen[-1].total == 6
    strongest = sorted(effects, key=abs)[-3:]
    for value in strongest:
        assert any(row[2] == pytest.approx(value, abs=1e-5) for row in table.rows)
    drawn = {tuple(sorted(str(row[0]) for row in t.rows)) for t in (_table(model, effects, s) for s in range(5))}
    assert len(drawn) > 1


def _table(model: Model, effects: list[float], seed: int) -> Table:
    found = check(view(model, effects), most=6, seed=seed)["claims"]
    assert isinstance(found, Table)
    return found


def test_a_token_may_be_taken_away(model: Model):
    inputs = inputs_of(model, TEXT)
    target = target_of(model, inputs)
    claims = tuple(Claim(str(i), 0.0, ids={i: 0}) for i in range(10))
    made = Claims(model, inputs, target, claims, "the token becomes token 0", "logits")
    found = check(dataclasses.replace(surprisal(model, TEXT), claims=lambda: made))["claims"]
    assert isinstance(found, Table)
    ids = inputs.ids.clone()
    ids[0, 4] = 0
    actual = target(model.logits(inputs.ids), inputs)[0] - target(model.logits(ids), inputs)[0]
    assert next(row[2] for row in found.rows if row[0] == "4") == pytest.approx(float(actual), abs=1e-5)


def test_what_suggests_nothing_cannot_be_checked(model: Model):
    with pytest.raises(ConfigError, match="this TokenScores suggests nothing that can be tried"):
        check(surprisal(model, TEXT))
