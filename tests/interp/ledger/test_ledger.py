"""The ledger: what its terms mean, what it refuses, and that it cannot be made not to add up."""

import math

import pytest
import torch

from cutaway.errors import InputError
from cutaway.interp import Ledger, LedgerError, Receipt, Term, ledger, record, replace
from cutaway.interp.pictures.terminal import name_of
from cutaway.models import Decoder, Model, Recurrent, RecurrentConfig

TEXT = "the cat sat"
RECEIPT = Receipt(0.0, 1.0, 0, "float32", "a test")


def test_a_ledger_that_does_not_add_up_cannot_be_made():
    Ledger("number", (Term("a", 1.0), Term("b", 2.0)), 3.00002, receipt=RECEIPT)
    with pytest.raises(LedgerError, match=r"the terms of the number miss it by 0\.01"):
        Ledger("number", (Term("a", 1.0), Term("b", 2.0)), 3.01, receipt=RECEIPT)
    with pytest.raises(LedgerError):
        Ledger("number", (Term("a", math.nan),), 1.0, receipt=RECEIPT)


def test_a_part_that_the_ledger_does_not_know_is_noticed(model: Model):
    """Were the network to grow a part, its ledger would fail rather than hide it."""
    add = torch.randn(32)
    model.network.norm.register_forward_pre_hook(lambda _, inputs: inputs[0] + add)  # pyright: ignore
    with pytest.raises(LedgerError, match="more than rounding explains"):
        ledger(model, TEXT)


def test_a_logit_difference_is_the_difference_of_ledgers(model: Model):
    both = ledger(model, TEXT, token="t", minus="a")
    one, other = ledger(model, TEXT, token="t"), ledger(model, TEXT, token="a")
    for term, a, b in zip(both.terms, one.terms, other.terms, strict=True):
        assert term.value == pytest.approx(a.value - b.value, abs=1e-9)


def test_a_head_switched_off_loses_what_the_ledger_says(model: Model):
    """The ledger's term is causal where nothing comes after it: a head of the last layer, the norm held."""
    term = next(t for t in ledger(model, TEXT, token="t").terms if t.name == "layers.2.head.1")

    def off(z: torch.Tensor) -> torch.Tensor:
        z = z.clone()
        z[:, 1] = 0
        return z

    mlp = record(model, TEXT, "layers.2.mlp_out")["layers.2.mlp_out"]
    final = record(model, TEXT, "layers.2.resid_post")["layers.2.resid_post"]
    edited = replace(model, TEXT, {"layers.2.attn.z": off, "layers.2.mlp_out": mlp}, "layers.2.resid_post")
    change = (final - edited["layers.2.resid_post"])[0, -1].double()
    scale = (final[0, -1].double().square().mean() + 1e-6).rsqrt()
    network = model.network
    assert isinstance(network, Decoder)
    read = network.lm_head.weight[model.tokenizer.id("t")].double() * network.norm.weight.double()  # pyright: ignore
    assert float((change @ read * scale).detach()) == pytest.approx(term.value, abs=1e-5)


@pytest.mark.parametrize(
    "place",
    [
        "embed",
        "layers.1.resid_pre",
        "layers.1.attn.v",
        "layers.1.attn.pattern",
        "layers.1.attn.z",
        "layers.1.attn_out",
        "layers.0.resid_mid",
        "layers.2.mlp.post",
        "layers.0.mlp_out",
        "layers.2.resid_post",
        "final_norm",
        "logits",
    ],
)
def test_an_edited_run_adds_up_with_the_edit_as_a_term(model: Model, place: str):
    model.network.double()
    edited = replace(model, TEXT, {place: lambda x: x * 0.5 + 0.1})
    opened = edited.ledger(token="t")
    assert opened.total == pytest.approx(float(edited.logits[0, -1, model.tokenizer.id("t")]), abs=1e-5)
    assert opened.error < 1e-9
    assert opened.total != pytest.approx(ledger(model, TEXT, token="t").total, abs=1e-3)
    inside = place.split(".")[-1] in ("v", "pattern", "z", "post")
    assert (f"{place}.edit" in {term.name for term in opened.terms}) is not inside
    for head in range(4):
        below = opened.expand(f"layers.1.head.{head}")
        assert below.error < 1e-9
        assert ("layers.1.attn.z.edit" in {term.name for term in below.terms}) is (place == "layers.1.attn.z")


def test_an_edited_head_is_the_only_term_that_changes_directly(model: Model):
    """Halving what a head of the last layer wrote halves its term, but for the norm's scale."""
    model.network.double()
    plain = {term.name: term.value for term in ledger(model, TEXT, token="t").terms}

    def halve(z: torch.Tensor) -> torch.Tensor:
        z = z.clone()
        z[:, 2] *= 0.5
        return z

    halved = replace(model, TEXT, {"layers.2.attn.z": halve})
    edited = {term.name: term.value for term in halved.ledger(token="t").terms}
    scale = edited["embed"] / plain["embed"]
    for name, value in plain.items():
        factor = 0.5 if name == "layers.2.head.2" else 1
        if name != "layers.2.mlp":  # it reads what the head wrote
            assert edited[name] == pytest.approx(value * scale * factor, rel=1e-9)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_an_edited_recurrent_run_adds_up_too(recurrent: Model, cell: str):
    torch.manual_seed(1)
    config = RecurrentConfig(recurrent.config.vocab_size, layers=2, width=8, hidden=12, cell=cell)  # pyright: ignore
    network = Recurrent(config).double().eval()
    torch.nn.init.normal_(network.lm_head.weight)
    model = Model(network, recurrent.tokenizer)
    state = "hidden" if cell == "gru" else "cell"

    def push(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, 3] += 0.5
        return x

    for place in (f"layers.1.{state}", "layers.0.candidate", "logits"):
        edited = replace(model, TEXT, {place: push if place != "logits" else lambda x: x + 1})
        opened = edited.ledger()
        assert opened.error < 1e-9
        for term in opened.terms:
            if term.opens:
                names = {below.name for below in opened.expand(term.name).terms}
                assert ("step.3.edit" in names) is (place == f"layers.1.{state}")


def test_a_recording_that_holds_enough_is_not_run_again(model: Model, monkeypatch: pytest.MonkeyPatch):
    recording = record(model, TEXT)
    expected = ledger(model, TEXT).to_json(depth=1)
    monkeypatch.setattr(model.network, "forward", None)
    found = recording.ledger().to_json(depth=1)
    assert found["terms"] == expected["terms"]
    with pytest.raises(InputError, match="unknown recorded activation 'losses'"):
        recording.ledger("losses")


def test_brief_keeps_the_sum(model: Model):
    opened = ledger(model, TEXT)
    for count in (1, 5, 100):
        terms = opened.brief(count)
        assert len(terms) == min(count, len(opened.terms)) + (count < len(opened.terms))
        assert math.fsum(term.value for term in terms) == pytest.approx(opened.total, abs=1e-4)
    assert [term.name for term in opened.top(3)] == [term.name for term in opened.brief(3)[:3]]
    assert abs(opened.top(1)[0].value) == max(abs(term.value) for term in opened.terms)


def test_a_leaf_and_a_wrong_name_are_named(model: Model):
    opened = ledger(model, TEXT)
    with pytest.raises(InputError, match="embed is a leaf"):
        opened.expand("embed")
    with pytest.raises(InputError, match=r"did you mean layers\.1\.mlp"):
        opened.expand("layers.1.mpl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": 11}, "position 11 is outside the text of 11 tokens"),
        ({"position": -12}, "position -12 is outside the text of 11 tokens"),
        ({"token": "th"}, "not one token"),
        ({"token": 9999}, "must lie in 0"),
        ({"minus": -1}, "must lie in 0"),
    ],
)
def test_what_cannot_be_opened_is_named(model: Model, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        ledger(model, TEXT, **options)


def test_terms_are_named_to_be_read():
    for name, label, read in (
        ("layers.2.head.3", "", "layer 2 head 3"),
        ("encoder.layers.0.mlp", "", "encoder layer 0 mlp"),
        ("layers.1.cross_head.0", "", "layer 1 cross head 0"),
        ("layers.1.resid_post.edit", "edited", "layer 1 resid_post (edited)"),
        ("source.4", " the", "4 ·the"),
        ("step.3.edit", "edited", "3 (edited)"),
        ("key.3", "a", "key 3 a"),
        ("neuron.17", "", "neuron 17"),
        ("embed", " the", "embed ·the"),
        ("others", "7 others", "7 others"),
    ):
        assert name_of(Term(name, 1.0, label)) == read


def test_the_smallest_numbers_add_up_as_well_as_they_can():
    step = 5e-324  # of numbers below 2e-308, whose rounding is no share of them
    ledger = Ledger("a number", (Term("one", 2.85985e-319), Term("other", 3 * step)), 2.85985e-319, receipt=RECEIPT)
    assert ledger.error <= 4 * step
    with pytest.raises(LedgerError, match="miss"):
        Ledger("a number", (Term("one", 1e-300),), 0.0, receipt=RECEIPT)
