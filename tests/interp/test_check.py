"""A view's claims, tried: a right view is confirmed, a wrong one is not."""

import dataclasses

import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from cutaway.errors import ConfigError
from cutaway.interp import (
    Panel,
    Table,
    TokenScores,
    attention,
    inputs_of,
    ledger,
    record,
    replace,
    surprisal,
    target_of,
)
from cutaway.interp.check import check
from cutaway.interp.claims import Claim, Claims
from cutaway.interp.suggest import of_lens, of_saliency, typical_at
from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.tokenizers import train_tokenizer

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


def attention_only(norm: str = "none") -> Model:
    """One layer of heads and nothing else: what a head writes is what the logit loses without it."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([TEXT * 5], "char", 300)
    shape = {"context": 16, "layers": 1, "width": 24, "heads": 6, "mlp": False, "norm": norm}
    network = Decoder(DecoderConfig(tokenizer.vocab_size, **shape)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(network.eval(), tokenizer, "a test")


def test_what_a_ledger_says_of_the_last_layer_is_what_happens():
    model = attention_only()
    opened = ledger(model, TEXT, position=4)
    assert opened.claims is not None
    assert [claim.label for claim in opened.claims().claims] == [f"layer 0 head {h}" for h in range(6)]
    table = check(opened)["claims"]
    assert isinstance(table, Table)
    assert table.column("actual") == pytest.approx(table.column("predicted (logit)"), abs=1e-9)


def test_a_weight_taken_away_is_shared_by_the_others(model: Model):
    found = attention(model, TEXT)
    assert found.claims is not None
    claims = found.claims()
    assert len(claims.claims) == 12 * 11  # 3 layers of 4 heads, from the last token to all
    first = claims.claims[0]
    assert first.predicted == pytest.approx(float(found.patterns[:, :, -1].max()))
    ((name, edit),) = first.edits.items()
    layer, head = (int(word) for word in first.label.split() if word.isdigit())
    assert name == f"layers.{layer}.attn.pattern"
    changed = replace(model, TEXT, {name: edit})[name][0]
    key = int(found.patterns[layer, head, -1].argmax())
    assert changed[head, -1, key] == 0
    torch.testing.assert_close(changed.sum(-1), torch.ones(4, 11))
    assert torch.equal(changed[head, :-1], found.patterns[layer, head, :-1])
    report = check(found, most=8)
    assert "share" not in report.figures
    assert len(report["claims"].to_json()["rows"]) == 8


def test_a_token_gets_the_mean_embedding_and_keeps_its_place(model: Model):
    recording = record(model, TEXT, "embed")
    edited = replace(model, TEXT, {"embed": typical_at(recording, "target", [2, 5])})
    network = model.network
    assert isinstance(network, Decoder)
    mean = network.embed_tokens.weight.mean(0)
    for place in range(11):
        expected = mean if place in (2, 5) else recording["embed"][0, place]
        torch.testing.assert_close(edited["embed"][0, place], expected.detach(), rtol=1e-5, atol=1e-5)
    target = target_of(model, inputs_of(model, TEXT))
    parts = [("c", "target", [4], 0.5), ("a", "target", [5, 6], -0.5), ("t", "target", [10], 1.0)]
    claims = of_saliency(recording, target, parts)
    table = check(dataclasses.replace(surprisal(model, TEXT), claims=lambda: claims))["claims"]
    assert isinstance(table, Table)
    assert len({row[2] for row in table.rows}) == 3


def test_a_lens_is_tried_layer_by_layer(model: Model):
    """The last layer's claim is exact but for the norm: nothing comes after it that could answer."""
    recording = record(model, TEXT)
    target = target_of(model, inputs_of(model, TEXT))
    places = ["layers.0.resid_pre", *(f"layers.{i}.resid_post" for i in range(3))]
    network = model.network
    assert isinstance(network, Decoder)
    with torch.no_grad():
        said = [float(target(network.read_out(recording[place]), recording.inputs)[0]) for place in places]
    claims = of_lens(recording, target, said)
    table = check(dataclasses.replace(surprisal(model, TEXT), claims=lambda: claims))["claims"]
    assert isinstance(table, Table)
    last = next(row for row in table.rows if row[0] == "layer 2")
    assert last[2] == pytest.approx(last[1], abs=1e-4)
