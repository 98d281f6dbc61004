"""Calibration against forecasts whose reliability is known, and against scikit-learn's bins."""

import math
from typing import Any

import pytest
import torch
from kinds import SOURCE, TEXT, given, letters, made

from cutaway.errors import ConfigError, InputError
from cutaway.interp import calibration, surprisal
from cutaway.interp.text.calibration import fit_temperature, reliability


def forecasts(count: int, sharper: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities, and what came if those at `sharper` = 1 are true."""
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 6, generator=draw, dtype=torch.float64)
    came = torch.multinomial(logits.softmax(-1), 1, generator=draw)[:, 0]
    return (sharper * logits).log_softmax(-1), came


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_true_forecasts_are_calibrated_and_too_sharp_ones_are_not(seed: int):
    true = reliability(*forecasts(20_000, seed=seed))
    assert true.error < 0.02
    assert true.accuracy == pytest.approx(true.confidence, abs=0.02)
    logprobs, came = forecasts(20_000, 3.0, seed)
    sharp = reliability(logprobs, came)
    assert sharp.error > 0.1
    assert sharp.confidence > sharp.accuracy + 0.1
    assert sharp.accuracy == true.accuracy  # the likeliest is the same
    assert fit_temperature(logprobs, came) == pytest.approx(3.0, rel=0.05)
    assert fit_temperature(*forecasts(20_000, 0.25, seed)) == pytest.approx(0.25, rel=0.05)


def test_bins_and_brier_are_those_of_scikit_learn():
    from sklearn import metrics
    from sklearn.calibration import calibration_curve

    logprobs, came = forecasts(3000, 2.0)
    found = reliability(logprobs, came, bins=10)
    sure, guess = logprobs.exp().max(-1)
    true, mean = calibration_curve((guess == came).numpy(), sure.numpy(), n_bins=10)
    assert [one for _, one, _ in found.bins] == pytest.approx(mean.tolist())
    assert [one for _, _, one in found.bins] == pytest.approx(true.tolist())
    assert sum(count for count, _, _ in found.bins) == 3000
    brier = sum(metrics.brier_score_loss((came == k).numpy(), logprobs[:, k].exp().numpy()) for k in range(6))
    assert found.brier == pytest.approx(brier)
    assert found.nats == pytest.approx(metrics.log_loss(came.numpy(), logprobs.exp().numpy(), labels=range(6)))


@pytest.mark.parametrize("shape", ["qwen3", "lstm", "t5", "bert"])
def test_several_texts_are_counted_together(shape: str):
    model = made(shape, letters())
    masked: dict[str, Any] = {"masked": True} if shape == "bert" else {}
    texts, reads = [TEXT, "sat on"], given(model)
    sources = {"source": [SOURCE, SOURCE[::-1]]} if reads else {}
    found = calibration(model, texts, temperature=True, **sources, **masked)
    alone = [
        surprisal(model, text, **({"source": read} if reads else {}), **masked)
        for text, read in zip(texts, [SOURCE, SOURCE[::-1]], strict=True)
    ]
    bits = [score for one in alone for score in one.scores if score is not None]
    assert found.figures["tokens"] == len(bits)
    assert found.figures["loss in bits"] == pytest.approx(sum(bits) / len(bits), rel=1e-6)
    assert 1 / 32 <= found.figures["temperature"] <= 32
    counts = found["bins"].column("tokens")  # pyright: ignore[reportAttributeAccessIssue]
    assert sum(counts) == len(bits)
    curve = found["reliability"]
    assert curve.lines["ideal"] == curve.at  # pyright: ignore[reportAttributeAccessIssue]


def test_a_temperature_makes_a_sharpened_model_honest():
    """The output matrix of a model is made four times as large; the model itself drew the texts."""
    model = made("llama", letters())
    with torch.no_grad():
        model.network.lm_head.weight.mul_(0.5)  # pyright: ignore
    texts = [
        [model.tokenizer.end_of_text, *model.generate("", max_new_tokens=40, temperature=1.0, seed=s).ids]
        for s in range(24)
    ]
    texts = [ids for ids in texts if len(ids) == 41]
    ids = torch.tensor(texts)
    assert len(ids) > 10
    with torch.no_grad():
        model.network.lm_head.weight.mul_(4)  # pyright: ignore
    logprobs = model.logits(ids)[:, :-1].double().log_softmax(-1).flatten(0, 1)
    came = ids[:, 1:].flatten()
    fitted = fit_temperature(logprobs, came)
    assert fitted == pytest.approx(4, rel=0.15)
    assert reliability((logprobs / fitted).log_softmax(-1), came).error < reliability(logprobs, came).error / 2


def test_what_cannot_be_calibrated_is_refused():
    model = made("qwen3", letters())
    for bins in (1, 1001):
        with pytest.raises(ConfigError, match=f"bins must be in 2 … 1,000, but {bins:,} was given"):
            calibration(model, TEXT, bins=bins)
    with pytest.raises(InputError, match="no token to predict"):
        calibration(model, "t")
    with pytest.raises(InputError, match="too few"):
        calibration(model, "the", temperature=True)
    t5 = made("t5", letters())
    with pytest.raises(InputError, match="2 texts with 1 sources"):
        calibration(t5, [TEXT, TEXT], source=[SOURCE])
    assert math.isfinite(calibration(t5, [TEXT, TEXT], source=SOURCE).figures["Brier score"])
