"""Methods compared with each other, and texts changed in place: by hand, on every kind of model, bad input."""

from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from cutaway.errors import ConfigError, InputError
from cutaway.interp import agreement, counterfactual, integrated_gradients, occlusion, pair_of
from cutaway.models import Model
from tests.interp.every_kind import KINDS, SOURCE, TEXT, given, made

LITTLE: dict[str, Any] = {"steps": 4, "samples": 2}


def test_methods_are_compared_by_their_ranks():
    model = made("gpt2")
    found = agreement(model, TEXT, token=1, **LITTLE)
    assert list(found.scores) == [
        "integrated_gradients", "gradient_x_input", "occlusion", "shapley", "attention_x_gradient",
    ]  # fmt: skip
    alone = [integrated_gradients(model, TEXT, token=1, steps=4), occlusion(model, TEXT, token=1)]
    assert found.scores["integrated_gradients"].scores == alone[0].scores
    assert found.scores["occlusion"].scores == alone[1].scores
    rows = [one.scores for one in found.scores.values()]
    ranks = found["rank correlation"].values
    wanted: Any = spearmanr(rows, axis=1)[0]
    assert ranks.flatten().tolist() == pytest.approx(wanted.ravel().tolist(), abs=1e-6)
    beside = found["side by side"].values
    assert beside.abs().amax(1).tolist() == [1.0] * 5
    assert beside[2, 3] == pytest.approx((rows[2][3] or 0) / max(abs(s or 0) for s in rows[2]))
    assert found.figures["lowest"] == pytest.approx(float(ranks.min()))
    sums = found["sums"]
    gap = sums.column("completeness gap")
    assert gap[0] == pytest.approx(alone[0].receipt.gap)
    assert gap[1] is None
    assert sums.column("sum of the scores")[2] == pytest.approx(sum(s or 0 for s in alone[1].scores))
    compile(found.receipt.code, "receipt", "exec")


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_is_asked_by_the_methods_that_it_allows(kind: str):
    model = made(kind)
    found = agreement(model, TEXT, **LITTLE, **given(model))
    assert ("attention_x_gradient" in found.scores) == (kind not in ("gru", "lstm", "gru both ways", "gru of texts"))
    assert bool(found["rank correlation"].values.isfinite().all())


def test_what_agreement_refuses():
    model = made("gpt2")
    with pytest.raises(ConfigError, match="unknown method 'lime'"):
        agreement(model, TEXT, methods=["occlusion", "lime"])
    with pytest.raises(ConfigError, match="two methods or more"):
        agreement(model, TEXT, methods=["occlusion"])
    with pytest.raises(InputError, match="no orders to compare"):
        agreement(model, "th", **LITTLE)


def test_a_deleted_token_is_gone_and_the_answer_stays_the_same():
    model = made("gpt2")
    ids = model.ids(TEXT)[0].tolist()
    found = counterfactual(model, TEXT, [(2, ""), (5, None)], token="a", minus="t", method="occlusion")
    a, t = (model.tokenizer.id(letter) for letter in "at")
    left = [id for place, id in enumerate(ids) if place not in (2, 5)]
    before, after = model.logits(ids)[0, -1], model.logits(left)[0, -1]
    assert found.ids == left
    assert found.before == pytest.approx(float(before[a] - before[t]), abs=1e-5)
    assert found.after == pytest.approx(float(after[a] - after[t]), abs=1e-5)
    scores = occlusion(model, TEXT, token="a", minus="t").scores
    assert found.expected == pytest.approx(-(scores[2] or 0) - (scores[5] or 0), abs=1e-6)
    assert found.first_order is None
    assert found.text == "".join(model.tokenizer.token(id) for id in left)
    changes = found["changes"]
    assert changes.column("position") == [2, 5]
    alone = model.logits(ids[:2] + ids[3:])[0, -1]
    assert changes.column("actual, alone")[0] == pytest.approx(float(alone[a] - alone[t]) - found.before, abs=1e-5)
    rows = {row[0]: row[1:] for row in found["answers"].rows}
    assert rows["a"][0] == pytest.approx(float(before.softmax(-1)[a]), abs=1e-6)
    assert rows["a"][1] == pytest.approx(float(after.softmax(-1)[a]), abs=1e-6)
    compile(found.receipt.code, "receipt", "exec")


def test_the_answer_is_read_where_it_was():
    model = made("gpt2")
    ids = model.ids(TEXT)[0].tolist()
    new = model.tokenizer.encode("mat")
    found = counterfactual(model, TEXT, [(1, "mat")], position=4, token="a", method="occlusion")
    a = model.tokenizer.id("a")
    assert found.position == 6
    assert found.after == pytest.approx(float(model.logits([ids[0], *new, *ids[2:]])[0, 6, a]), abs=1e-5)
    gone = counterfactual(model, TEXT, [(4, None)], position=4, token="a", method="occlusion")
    assert gone.position == 3
    assert gone.after == pytest.approx(float(model.logits(ids)[0, 3, a]), abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "modernbert", "gru"])
def test_the_gradient_predicts_small_replacements(kind: str):
    model = made(kind)
    network: Any = model.network.double()
    old, new = model.tokenizer.id("c"), model.tokenizer.id("m")
    with torch.no_grad():
        step = 1e-5 * torch.randn(network.embed_tokens.weight.shape[1], dtype=torch.float64)
        network.embed_tokens.weight[new] = network.embed_tokens.weight[old] + step
    place = model.ids(TEXT)[0].tolist().index(old)
    found = counterfactual(model, TEXT, [(place, "m")], token=1, position=-1, method="gradient_x_input")
    assert found.first_order is not None
    if getattr(model.config, "tied", False) and new != 1:
        assert found.after != found.before
    assert found.after - found.before == pytest.approx(found.first_order, rel=1e-2, abs=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_reads_the_changed_text(kind: str):
    model = made(kind)
    place = len(model.ids(TEXT)[0]) - 3
    found = counterfactual(model, TEXT, [(place, "c")], method="occlusion", **given(model))
    assert torch.tensor([found.before, found.after]).isfinite().all()
    same = model.tokenizer.target or model.tokenizer
    kept = same.token(int(model.ids(TEXT)[0, place]))
    still = counterfactual(model, TEXT, [(place, kept)], method="occlusion", **given(model))
    assert still.after == pytest.approx(still.before, abs=1e-6)
    assert still.first_order == pytest.approx(0.0, abs=1e-6)


def test_a_source_is_changed_too():
    model = made("t5")
    ids = model.source_ids(SOURCE)[0].tolist()
    found = counterfactual(model, TEXT, source=SOURCE, source_changes=[(2, "")], token=1, method="occlusion")
    left = torch.tensor([[id for place, id in enumerate(ids) if place != 2]])
    output = model.network(model.ids(TEXT), source=left).detach()
    assert found.after == pytest.approx(float(output[0, -1, 1]), abs=1e-5)
    assert len(found.tokens) == left.shape[1] + len(found.ids)


def test_types_of_tokens_stay_with_their_places():
    model = made("bert")
    inputs = pair_of(model, "the cat", "the mat")
    assert inputs.token_types is not None
    found = counterfactual(model, inputs, [(1, "ca"), (2, None)], token=1, method="occlusion")
    ids = inputs.ids[0].tolist()
    types = inputs.token_types[0].tolist()
    made_ids = [ids[0], *model.tokenizer.encode("ca"), *ids[3:]]
    made_types = torch.tensor([[types[0], types[1], types[1], *types[3:]]])
    output = model.network(torch.tensor([made_ids]), token_types=made_types)[0].detach()
    row = output[-1] if output.ndim == 2 else output
    assert found.after == pytest.approx(float(row[1]), abs=1e-5)


def test_what_a_change_refuses():
    model: Model = made("gpt2")
    for changes, message in (
        ([(99, "a")], "position 99 is outside the text"),
        ([(1, "a"), (1, "b")], "changed twice"),
        ([(1, 2.5)], "must be text or ids"),
        ([("1", "a")], r"a change is \(position, new text\)"),
        ([(1, [10_000])], "is no id of this model's"),
        ([(place, "") for place in range(len(TEXT))], "nothing would be left"),
    ):
        with pytest.raises(InputError, match=message):
            counterfactual(model, TEXT, changes)
    with pytest.raises(ConfigError, match="give at least one change"):
        counterfactual(model, TEXT)
    with pytest.raises(InputError, match="reads no source"):
        counterfactual(model, TEXT, source_changes=[(0, "a")])
    with pytest.raises(ConfigError, match="unknown method"):
        counterfactual(model, TEXT, [(1, "a")], method="lime")
