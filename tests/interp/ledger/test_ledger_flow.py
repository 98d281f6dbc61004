"""A logit's way through the stages, against its ledger; and the ledger's greedy path with what it opens."""

import sys
from pathlib import Path

import pytest

from cutaway.errors import InputError
from cutaway.interp import ledger, logit_flow, record
from cutaway.models import Model
from cutaway.tokenizers import Tokenizer, train_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from every_kind import KINDS, SOURCE, TEXT, given, made


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([(TEXT + SOURCE) * 3], "char", 300)


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Model:
    return made(request.param, tokenizer)


def test_the_stages_sum_to_the_number_and_name_terms_of_its_ledger(model: Model):
    flow = logit_flow(model, TEXT[:14], **given(model))
    whole = ledger(model, TEXT[:14], **given(model))
    assert sum(stage.value for stage in flow.stages) == pytest.approx(flow.total, abs=1e-4)
    assert flow.stages[-1].after == pytest.approx(flow.total, abs=1e-4)
    for stage in flow.stages:
        for part in stage.parts:
            above = whole.path(*part.path[:-1])
            assert above[part.path[-1]].value == pytest.approx(part.value, rel=1e-6, abs=1e-9)
            assert above[part.path[-1]].opens == part.opens
        if stage.kind != "step":  # of a step the largest units alone are listed
            assert sum(part.value for part in stage.parts) == pytest.approx(stage.value)
    pooled = [term for term in whole.terms if term.name.startswith("token.")]
    if pooled:
        assert flow.total == max(pooled, key=lambda term: abs(term.value)).value
        other = logit_flow(model, TEXT[:14], position=3, **given(model))
        assert other.total == pytest.approx(whole["token.3"].value)
        with pytest.raises(InputError, match="position 99 was asked for"):
            logit_flow(model, TEXT[:14], position=99, **given(model))
    else:
        assert flow.total == whole.total


def test_a_layers_heads_and_biases_are_one_stage(tokenizer: Tokenizer):
    model = made("gpt2", tokenizer)
    flow = logit_flow(model, TEXT)
    kinds = [(stage.layer, stage.kind) for stage in flow.stages]
    layers = [(layer, kind) for layer in (0, 1) for kind in ("attention", "mlp")]
    assert kinds == [(-1, "embedding"), *layers, (-1, "output")]
    assert [part.name for part in flow.stages[0].parts] == ["embed", "position"]
    heads = ["layers.0.head.0", "layers.0.head.1", "layers.0.head.2"]
    assert sorted(part.name for part in flow.stages[1].parts) == ["layers.0.attn.bias", *heads]
    assert flow.rows[1] == ["layer 0 attention", flow.stages[1].value, flow.stages[1].after]


def test_a_decoder_with_a_source_reads_it_in_stages_of_their_own(tokenizer: Tokenizer):
    model = made("bart", tokenizer)
    flow = logit_flow(model, TEXT, **given(model))
    assert [stage.kind for stage in flow.stages if stage.layer == 0] == ["attention", "cross-attention", "mlp"]


def test_a_recurrent_models_stages_are_its_steps(tokenizer: Tokenizer):
    model = made("gru", tokenizer)
    flow = logit_flow(model, TEXT)
    steps = [stage for stage in flow.stages if stage.kind == "step"]
    assert [stage.label for stage in steps] == list(TEXT)
    whole = ledger(model, TEXT)
    units = [term.name for term in whole.terms if ".unit." in term.name]
    written = sum(whole.expand(unit)["step.3"].value for unit in units)
    assert steps[3].value == pytest.approx(written)


def test_why_one_token_rather_than_another(tokenizer: Tokenizer):
    model = made("llama", tokenizer)
    recording = record(model, TEXT)
    a, b = (logit_flow(recording, token=token, position=4) for token in ("a", "t"))
    both = logit_flow(recording, token="a", minus="t", position=4)
    for one, other, difference in zip(a.stages, b.stages, both.stages, strict=True):
        assert difference.value == pytest.approx(one.value - other.value, abs=1e-6)
    assert both.position == 4
    likeliest = recording.logits[0, 4].softmax(-1).topk(8)
    assert [p for _, p in both.likeliest] == likeliest.values.tolist()
    assert "minus" in both.what


def test_following_the_largest_is_the_trace_with_its_levels(model: Model):
    whole = ledger(model, TEXT[:14], **given(model))
    steps = whole.follow()
    assert [term for term, _ in steps] == whole.trace()
    path: list[str] = []
    for term, opened in steps:
        path.append(term.name)
        if opened is None:
            assert not term.opens
        else:
            assert opened.terms == whole.path(*path).terms
            assert opened.total == pytest.approx(term.value, rel=1e-5, abs=1e-7)
    assert len(whole.follow(depth=1)) == 1
