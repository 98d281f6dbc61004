"""Faithfulness: its measures by hand, scores that are right, wrong and drawn, every kind of model, bad input."""

import dataclasses
import math
from statistics import fmean
from typing import Any

import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp import check, replace
from cutaway.interp.attribution import Attribution, faithfulness, integrated_gradients, occlusion, shapley
from cutaway.interp.results import Curve, Table, TokenScores
from cutaway.models import Model
from tests.interp.every_kind import KINDS, TEXT, given, made

ORDERS: dict[str, Any] = {"orders": 3, "grain": "word"}


def removed(model: Model, text: str, gone: list[int]) -> float:
    """The probability of token 1, with some tokens' vectors put to the mean by hand."""
    network: Any = model.network
    ids = model.ids(text)[0]
    mean = network.embed_tokens.weight.detach().mean(0)

    def edit(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        for place in gone:
            x[0, place] += mean - network.embed_tokens.weight[ids[place]].detach()
        return x

    return float(replace(model, text, {"embed": edit}).logits[0, -1].softmax(-1)[1])


def test_the_measures_are_what_deyoung_defines():
    model = made("gpt2")
    scores = integrated_gradients(model, TEXT, token=1, quantity="prob")
    found = faithfulness(model, TEXT, scores, token=1, orders=2)
    count = len(TEXT)
    best = sorted(range(count), key=lambda i: -(scores.scores[i] or 0))
    sizes = [0] + [math.ceil(share * count) for share in (0.01, 0.05, 0.1, 0.2, 0.5)]
    whole = removed(model, TEXT, [])
    wanted = whole - fmean(removed(model, TEXT, best[:size]) for size in sizes)
    assert found.figures["comprehensiveness"] == pytest.approx(wanted, abs=1e-6)
    wanted = whole - fmean(removed(model, TEXT, best[size:]) for size in sizes)
    assert found.figures["sufficiency"] == pytest.approx(wanted, abs=1e-6)
    deletion = found["deletion"]
    assert isinstance(deletion, Curve)
    assert (deletion.at[0], deletion.at[-1], len(deletion.at)) == (0, 1, 21)
    line = [value or 0 for value in deletion.lines["by score"]]
    assert line[0] == pytest.approx(whole, abs=1e-6)
    assert line[-1] == pytest.approx(removed(model, TEXT, best), abs=1e-6)
    area = sum((b - a) * (y + z) / 2 for a, b, y, z in zip(deletion.at, deletion.at[1:], line, line[1:], strict=False))
    assert found.figures["deletion area"] == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_scores_beat_random_ones_and_wrong_ones_lose(seed: int):
    """Shapley values against their negatives; drawn scores are the control."""
    model = made("gpt2")
    scores = shapley(model, TEXT, token=1, quantity="prob", samples=10, seed=seed)
    values = [score or 0 for score in scores.scores]
    right = faithfulness(model, TEXT, scores, token=1, seed=seed)
    wrong = dataclasses.replace(scores, scores=[-value for value in values])
    lost = faithfulness(model, TEXT, wrong, token=1, seed=seed)
    assert min(right.figures[f"{name} margin"] for name in ("comprehensiveness", "deletion area", "insertion area")) > 1
    assert max(lost.figures[f"{name} margin"] for name in ("comprehensiveness", "deletion area", "insertion area")) < -1
    assert right.receipt.seed == seed
    shares = []
    for draw in range(5):
        drawn = torch.randn(len(values), generator=torch.Generator().manual_seed(100 * seed + draw)).tolist()
        control = faithfulness(model, TEXT, dataclasses.replace(scores, scores=drawn), token=1, seed=seed)
        table = control["against random"]
        assert isinstance(table, Table)
        shares += [float(share or 0) for share in table.column("random orders beaten")]
    assert 0.2 < fmean(shares) < 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(kind: str):
    model = made(kind, dtype=torch.float32)
    found = faithfulness(model, TEXT, **given(model), method="occlusion", **ORDERS)
    assert set(found.parts) == {"deletion", "insertion", "against random", "scores"}
    assert len(found.figures) == 12
    scores = found["scores"]
    assert isinstance(scores, Attribution)
    again = faithfulness(model, TEXT, scores, **given(model), **ORDERS)
    assert again.figures == found.figures


def test_deleting_needs_something_that_stays():
    model = made("gpt2", dtype=torch.float32)
    with pytest.raises(InputError, match="nothing would be left of the text"):
        faithfulness(model, TEXT, replace="delete", **ORDERS)
    end = model.tokenizer.end_of_text
    assert end is not None
    ids = [end, *model.tokenizer.encode(TEXT)]
    deleted, replaced = (faithfulness(model, ids, replace=way, **ORDERS) for way in ("delete", "mean"))
    assert deleted.figures != replaced.figures
    curve = deleted["deletion"]
    assert isinstance(curve, Curve)
    likeliest = int(model.logits(ids)[0, -1].argmax())
    alone = float(model.logits([end])[0, -1].softmax(-1)[likeliest])  # what stays when all is deleted
    assert curve.lines["by score"][-1] == pytest.approx(alone, rel=1e-4)


def test_scores_from_elsewhere_are_taken():
    model = made("gpt2", dtype=torch.float32)
    own = occlusion(model, TEXT, grain="word", quantity="prob")
    plain = TokenScores("elsewhere", "", own.tokens, own.ids, own.scores, receipt=own.receipt)
    assert faithfulness(model, TEXT, plain, **ORDERS).figures == faithfulness(model, TEXT, own, **ORDERS).figures
    with pytest.raises(InputError, match="6 scores were given, but at the grain of a token the text has 22 parts"):
        faithfulness(model, TEXT, plain)
    with pytest.raises(InputError, match="of a longer text"):
        faithfulness(model, "the", own)


def test_what_a_saliency_suggests_is_what_occlusion_finds():
    for kind in ("gpt2", "llama", "gru", "bart", "encoder of texts"):
        model = made(kind, dtype=torch.float32)
        found = check(occlusion(model, TEXT, **given(model), grain="word"))
        assert found.figures["Pearson correlation"] > 0.9999


def test_bad_input_is_named():
    model = made("gpt2", dtype=torch.float32)
    with pytest.raises(ConfigError, match="did you mean occlusion"):
        faithfulness(model, TEXT, method="oclusion")
    with pytest.raises(InputError, match="orders must be at least 2"):
        faithfulness(model, TEXT, orders=1)
    with pytest.raises(InputError, match="a text of 1 part"):
        faithfulness(model, TEXT, grain="sentence")
