"""Two texts beside each other; the patch map beside its estimate; one site alone."""

from typing import Any

import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp import (
    attribution_patching,
    pairing,
    patch,
    patch_map,
    patch_site,
    patch_sweep,
)
from cutaway.interp.patching.pairs import partners_of
from cutaway.interp.patching.site import Site
from cutaway.models import Model
from tests.interp.every_kind import TEXT, given, made

OTHER = TEXT.replace("cat", "mat")


@pytest.fixture(params=["llama", "gru", "bert", "t5"])
def model(request: pytest.FixtureRequest) -> Model:
    return made(request.param, dtype=torch.float32)


def test_equal_texts_pair_place_by_place(model: Model):
    found = pairing(model, TEXT, OTHER, **given(model))
    assert found.equal
    assert found.partners == [(i, i) for i in range(len(found.clean))]
    mine, theirs = model.ids(TEXT)[0].tolist(), model.ids(OTHER)[0].tolist()
    assert found.differ == [(i, i) for i in range(len(mine)) if mine[i] != theirs[i]]
    assert found.differ
    logits = model.logits(TEXT, **given(model))[0]
    if model.config.kind != "encoder":
        values, ids = logits[-1].softmax(-1).topk(3)
        assert [answer.id for answer in found.answers[:3]] == ids.tolist()
        assert [answer.value for answer in found.answers[:3]] == pytest.approx(values.tolist(), rel=1e-4)
    assert found.probabilities


def test_unequal_texts_pair_by_beginning_and_end():
    model = made("llama", dtype=torch.float32)
    found = pairing(model, "the cat sat", "the big cat sat")
    assert not found.equal
    assert all(found.clean[a] == found.corrupt[b] for a, b in found.partners)
    assert [row[1] for row in found.rows if row[1] is not None] == found.clean
    assert [row[3] for row in found.rows if row[3] is not None] == found.corrupt
    assert [tuple(row[::2]) for row in found.rows if None not in row] == found.partners


@pytest.mark.parametrize(
    ("clean", "corrupt"),
    [([1, 2, 3], [1, 2, 3]), ([1, 2], [1, 1, 2]), ([5], [6]), ([1, 1], [1, 1, 1]), ([1, 2], [3, 2])],
)
def test_partners_are_one_to_one_and_in_order(clean: list[int], corrupt: list[int]):
    pairs = partners_of(clean, corrupt)
    assert all(corrupt[b] == clean[a] for b, a in pairs)
    for side in (0, 1):
        places = [pair[side] for pair in pairs]
        assert places == sorted(set(places))


def test_the_map_is_the_sweep_beside_its_estimate(model: Model):
    options: dict[str, Any] = {"token": 5, "minus": 9, **given(model)}
    found = patch_map(model, TEXT, OTHER, **options)
    truth = patch_sweep(model, TEXT, OTHER, **options)
    guess = attribution_patching(model, TEXT, OTHER, check=0, **options)
    assert torch.equal(found.patched, truth.values)
    assert torch.equal(found.estimate, guess.values)
    stacked = torch.stack((truth.values.flatten(), guess.values.flatten()))
    assert found.figures["Pearson correlation"] == pytest.approx(float(torch.corrcoef(stacked)[0, 1]), abs=1e-9)
    assert found.figures["largest distance"] == float((truth.values - guess.values).abs().max())
    assert found.figures["clean"] == truth.clean
    assert found["patched"].sites == truth.sites


def test_one_site_alone_is_its_cell_of_the_map(model: Model):
    options: dict[str, Any] = {"token": 5, "minus": 9, **given(model)}
    whole = patch_map(model, TEXT, OTHER, **options)
    row, column = divmod(int(whole.patched.abs().argmax()), whole.patched.shape[1])
    site = whole["patched"].sites[row * whole.patched.shape[1] + column]
    found = patch_site(model, TEXT, OTHER, name=site.name, head=site.head, place=site.position, **options)
    assert found.site == Site(site.name, site.head, site.position)
    assert found.actual == pytest.approx(float(whole["patched"].change[row, column]), abs=1e-5)
    assert found.predicted == pytest.approx(float(whole["estimate"].change[row, column]), abs=1e-5)
    assert found.recovered == found.actual / (found.clean - found.corrupt)
    assert found.patched == pytest.approx(found.corrupt + found.actual)
    alone = patch(model, TEXT, OTHER, site, **options)
    assert found.actual == pytest.approx(float(alone.change[0]), abs=1e-6)


def test_the_last_stream_brings_the_clean_answers_back():
    model = made("llama", dtype=torch.float32)
    last = f"layers.{model.config.layers - 1}.resid_post"
    found = patch_site(model, TEXT, OTHER, name=last, token=5, minus=9, top=4)
    assert found.recovered == pytest.approx(1.0, abs=1e-4)
    assert [row[2] for row in found.rows] == [row[4] for row in found.rows]
    assert [row[3] for row in found.rows] == pytest.approx([row[5] for row in found.rows], rel=1e-4)
    assert found.rows[0][1] != pytest.approx(found.rows[0][5], rel=1e-3)


def test_unaligned_texts_are_refused_until_told_how():
    model = made("llama", dtype=torch.float32)
    clean, corrupt = "the cat sat", "the big cat sat"
    with pytest.raises(InputError, match="align='token'"):
        patch_map(model, clean, corrupt)
    found = patch_map(model, clean, corrupt, align="token", token=5, minus=9)
    alone = [
        b for b in range(found.patched.shape[1]) if b not in {b for _, b in pairing(model, clean, corrupt).partners}
    ]
    assert alone
    assert bool(found.patched[:, alone].isnan().all())
    assert found.figures["largest distance"] >= 0
    with pytest.raises(InputError, match="nothing to recover"):
        patch_map(model, clean, clean)
    with pytest.raises(ConfigError, match="unknown activation"):
        patch_site(model, TEXT, OTHER, name="layers.0.atn")
