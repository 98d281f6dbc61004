"""Does what a model gives seven chances in ten come true seven times in ten?

Shapes: N tokens predicted, V vocabulary, K bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.results import Cell, Curve, Panel, Table
from cutaway.interp.text.predictions import predictions
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

MOST = 1000  # bins
COLDEST, HOTTEST = 1 / 32, 32.0  # temperatures that are tried


@dataclass(frozen=True)
class Reliability:
    """How far confidence is from being right.

    Attributes:
        bins: for each with anything in it: (tokens, mean confidence, share that was right).
        error: expected calibration error: the mean over tokens of their bin's |confidence - share right|.
        brier: mean over tokens of Σ (probability - whether it came)² over the vocabulary, 0 … 2 (Brier 1950).
        nats: mean of -log probability of what came.
        accuracy: how often the likeliest came.
        confidence: what it was given on average.
    """

    bins: list[tuple[int, float, float]]
    error: float
    brier: float
    nats: float
    accuracy: float
    confidence: float


def reliability(logprobs: Float64[Tensor, "N V"], came: Int[Tensor, " N"], bins: int = 10) -> Reliability:
    """Confidence, the probability of the likeliest token, against how often that came (Guo et al. 2017).

    Args:
        logprobs: nats of every token of the vocabulary.
        came: the tokens that came.
        bins: K, of equal width between 0 and 1.
    """
    shares = logprobs.exp()
    confidence, guess = shares.max(-1)
    right = (guess == came).double()
    number = (confidence * bins).long().clamp(max=bins - 1)
    found: list[tuple[int, float, float]] = []
    error = 0.0
    for k in range(bins):
        inside = number == k
        count = int(inside.sum())
        if count:
            sure, true = float(confidence[inside].mean()), float(right[inside].mean())
            found.append((count, sure, true))
            error += count / len(came) * abs(sure - true)
    given = shares.gather(1, came[:, None])[:, 0]
    brier = shares.square().sum(-1) - 2 * given + 1
    nats = -logprobs.gather(1, came[:, None]).mean()
    return Reliability(found, error, float(brier.mean()), float(nats), float(right.mean()), float(confidence.mean()))


def fit_temperature(logprobs: Float64[Tensor, "N V"], came: Int[Tensor, " N"]) -> float:
    """The temperature that makes what came likeliest: logits are to be divided by it.

    The loss is convex in its inverse, so that halving the interval by the sign of the slope finds it.
    """
    coldest, hottest = 1 / HOTTEST, 1 / COLDEST  # of the inverse
    given = logprobs.gather(1, came[:, None])[:, 0]
    for _ in range(60):
        middle = math.sqrt(coldest * hottest)
        expected = ((logprobs * middle).softmax(-1) * logprobs.clamp(min=-1e300)).sum(-1)
        if float((expected - given).mean()) > 0:  # the loss grows with the inverse
            hottest = middle
        else:
            coldest = middle
    return 1 / math.sqrt(coldest * hottest)


@torch.no_grad()
def calibration(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    masked: bool = False,
    bins: int = 10,
    temperature: bool = False,
    progress: OnProgress | None = None,
) -> Panel:
    """How well a model's confidence in its likeliest token fits how often it is right.

    Args:
        model: a model with texts, or a recording.
        text: one or, better, several texts; a few thousand tokens are needed for ten bins to mean something.
        source: what an encoder–decoder reads, one for each text.
        masked: of an encoder, as in `surprisal`.
        bins: of equal width.
        temperature: whether to fit one, on every other token, and to show how calibrated the rest then are.
        progress: told after each text.

    Returns:
        A panel: the reliability curve, a table of its bins, and as figures the expected calibration error, the Brier
        score, accuracy and mean confidence; with a temperature also that, and the error on the other half of the tokens
        before and after. The bins' edges matter for the error, which is never quite 0 on few tokens.

    Raises:
        ConfigError: as in `surprisal`; bins outside 2 … 1,000.
        InputError: as in `surprisal`; texts without a token to predict.
    """
    if not 2 <= bins <= MOST:
        raise ConfigError(f"bins must be in 2 … {MOST:,}, but {bins:,} was given")
    run = model.model if isinstance(model, Recording) else model
    given = model if isinstance(model, Recording) else text
    clock = Clock(run, "calibration", given, source=source, masked=masked or None, bins=bins, temperature=temperature)
    texts, sources = _each(model, text, source)
    found = []
    for i, (one, read) in enumerate(zip(texts, sources, strict=True)):
        found.append(predictions(model, one, source=read, masked=masked, purpose="calibration"))
        if progress is not None:
            progress(Progress("texts", i + 1, len(texts), "texts"))
    logprobs = torch.cat([one.logprobs for one in found])
    came = torch.cat([one.ids[one.at] for one in found])
    if not len(came):
        raise InputError("there is no token to predict: give texts of two tokens or more")
    whole = reliability(logprobs, came, bins)
    figures = {
        "expected calibration error": whole.error,
        "Brier score": whole.brier,
        "accuracy": whole.accuracy,
        "mean confidence": whole.confidence,
        "loss in bits": whole.nats / math.log(2),
        "tokens": float(len(came)),
    }
    notes = ["Confidence is the probability of the likeliest token; the other tokens' are not looked at."]
    lines: dict[str, list[float | None]] = {"as it is": [true for _, _, true in whole.bins]}
    if temperature:
        if len(came) < 4:
            raise InputError(f"{len(came)} tokens are too few to fit a temperature on half of them")
        fitted = fit_temperature(logprobs[::2], came[::2])
        rest = logprobs[1::2]
        figures["temperature"] = fitted
        figures["error on the other half"] = reliability(rest, came[1::2], bins).error
        figures["error there with the temperature"] = reliability(
            (rest / fitted).log_softmax(-1), came[1::2], bins
        ).error
        notes.append("The temperature is fitted on every other token; the errors with and without it are of the rest.")
    receipt = clock.receipt(difference=max(one.difference for one in found))
    at = [sure for _, sure, _ in whole.bins]
    lines["ideal"] = [*at]
    curve = Curve("reliability", "mean confidence", "share right", at, lines, receipt=receipt)
    rows: list[list[Cell]] = [[count, sure, true, true - sure] for count, sure, true in whole.bins]
    table = Table(
        "bins of confidence", ["tokens", "mean confidence", "share right", "difference"], rows, receipt=receipt
    )
    return Panel("calibration", {"reliability": curve, "bins": table}, notes, figures, receipt=receipt)


def _each(
    model: Recording | Model, text: Text, source: Source | Sequence[str] | None
) -> tuple[list[Text], list[Source | Sequence[str] | None]]:
    """Several texts one by one, each with its source."""
    if isinstance(model, Recording) or not (isinstance(text, list | tuple) and text and isinstance(text[0], str)):
        return [text], [source]
    texts: list[Text] = [str(one) for one in text]
    if source is None or isinstance(source, str) or not isinstance(source, list | tuple):
        return texts, [source] * len(texts)
    if len(source) != len(texts):
        raise InputError(f"{len(texts)} texts with {len(source)} sources were given; give one source for each text")
    return texts, list(source)  # pyright: ignore[reportReturnType]
