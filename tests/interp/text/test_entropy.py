"""Surprisal with hidden tokens, entropy and comparison against their formulas."""

import math

import pytest
import torch
from kinds import TEXT, given, letters, made

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp import compare, entropy, record, replace, surprisal
from cutaway.interp.text import predictions


@pytest.mark.parametrize("shape", ["qwen3", "gru", "t5", "whisper"])
def test_entropy_is_the_surprise_to_be_expected(shape: str):
    model = made(shape, letters())
    found = entropy(model, TEXT, **given(model))
    logits = record(model, TEXT, "logits", **given(model))["logits"][0].double()
    shares = logits.softmax(-1)[:-1]
    expected = -(shares * shares.log2()).sum(-1)
    scores = found["entropy"].scores  # pyright: ignore[reportAttributeAccessIssue]
    assert scores[0] is None
    assert scores[1:] == pytest.approx(expected.tolist(), rel=1e-5)
    bits = surprisal(model, TEXT, **given(model)).scores
    excess = found["excess"].scores  # pyright: ignore[reportAttributeAccessIssue]
    assert excess[1:] == pytest.approx([b - e for b, e in zip(bits[1:], scores[1:], strict=True)])  # pyright: ignore
    assert found.figures["mean excess"] == pytest.approx(sum(excess[1:]) / len(excess[1:]))


def test_on_what_a_model_draws_itself_the_excess_is_zero_on_average():
    model = made("qwen3", letters())
    excesses, spread = [], []
    for seed in range(8):
        ids = [model.tokenizer.end_of_text, *model.generate("", max_new_tokens=40, temperature=1.0, seed=seed).ids]
        found = entropy(model, ids)["excess"].scores[1:]  # pyright: ignore
        excesses += found
        spread.append(float(torch.tensor(found).std()))
    deviation = max(spread) / math.sqrt(len(excesses))
    assert abs(sum(excesses) / len(excesses)) < 3 * deviation


@pytest.mark.parametrize("shape", ["bert", "modernbert"])
def test_each_token_is_hidden_in_turn(shape: str, monkeypatch: pytest.MonkeyPatch):
    model = made(shape, letters())
    found = surprisal(model, TEXT, masked=True)
    ids = model.ids(TEXT)
    special = set(model.tokenizer.special.values())
    for place, score in enumerate(found.scores):
        if int(ids[0, place]) in special:
            assert score is None
            continue
        hidden = ids.clone()
        hidden[0, place] = model.tokenizer.mask  # pyright: ignore
        logits = model.logits(hidden)[0, place].double()
        assert score == pytest.approx(-float(logits.log_softmax(-1)[ids[0, place]]) / math.log(2), rel=1e-5)
    monkeypatch.setattr(predictions, "LOGITS", 1)  # one at a time
    assert surprisal(model, TEXT, masked=True).scores == pytest.approx(found.scores, rel=1e-4)
    edited = replace(model, TEXT, {"layers.0.mlp_out": lambda x: 0 * x})
    assert surprisal(edited, masked=True).scores != pytest.approx(found.scores, rel=1e-2)
    assert entropy(model, TEXT, masked=True)["entropy"].scores[1] is not None  # pyright: ignore


def test_a_model_compared_with_itself_and_with_another():
    tokenizer = letters()
    one, other = made("qwen3", tokenizer), made("gru", tokenizer)
    assert compare(one, one, TEXT).scores[1:] == [0.0] * (len(TEXT) - 1)
    found = compare(one, other, TEXT)
    assert found.mean == pytest.approx(surprisal(other, TEXT).mean - surprisal(one, TEXT).mean)  # pyright: ignore
    assert found.signed
    assert "other = cutaway.load_model('a test')" in found.receipt.code
    assert "compare(model, other, " in found.receipt.code


def test_what_cannot_be_predicted_is_refused():
    tokenizer = letters()
    with pytest.raises(ConfigError, match="masked=True hides each in turn"):
        surprisal(made("bert", tokenizer), TEXT)
    with pytest.raises(ConfigError, match="masked is for encoders"):
        entropy(made("qwen3", tokenizer), TEXT, masked=True)
    with pytest.raises(ConfigError, match="a head for none"):
        surprisal(made("bert", tokenizer, head="none"), TEXT, masked=True)
    with pytest.raises(InputError, match="the text is empty"):
        entropy(made("gru", tokenizer), "")
    with pytest.raises(InputError, match="no token but special ones"):
        surprisal(made("bert", tokenizer), [tokenizer.mask], masked=True)  # pyright: ignore
    model = made("bert", tokenizer)
    with torch.no_grad():
        model.network.blocks[1].mlp.up_proj.weight[0, 0] = math.nan  # pyright: ignore
    with pytest.raises(NonFinite, match=r"layers\.1\.mlp\.pre"):
        surprisal(model, TEXT, masked=True)
