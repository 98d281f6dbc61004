"""Whether scores are true to the model: does taking away what scores high change what the model says?

Shapes: R orders, P parts of a text, K counts of parts taken away.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace as changed
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

import torch

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.attribution.attention import attention_x_gradient
from cutaway.interp.attribution.gradients import gradient_x_input, integrated_gradients
from cutaway.interp.attribution.occlusion import Removal, Replacement, occlusion, removal
from cutaway.interp.attribution.question import Attribution, question_of
from cutaway.interp.attribution.shapley import shapley
from cutaway.interp.attribution.spans import Grain
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.results import Curve, Panel, Table, TokenScores
from cutaway.interp.target import Quantity
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress

METHODS = {
    method.__name__: method
    for method in (integrated_gradients, gradient_x_input, occlusion, shapley, attention_x_gradient)
}
BINS = (0.01, 0.05, 0.1, 0.2, 0.5)  # shares of a text, as DeYoung et al. take them
MOST_COUNTS = 20  # points of a curve


def faithfulness(
    model: Recording | Model,
    text: Text = "",
    scores: TokenScores | None = None,
    *,
    source: Source | Sequence[str] | None = None,
    method: str = "integrated_gradients",
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity | None = None,
    grain: Grain | str = "token",
    replace: Replacement | str = "mean",
    orders: int = 20,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Panel:
    """Take parts of the text away in the order of their scores, and in random orders as a control.

    *Comprehensiveness* is how much a number falls when the best parts are taken away, *sufficiency* how much when only
    they are kept, each the mean over the best 0, 1, 5, 10, 20 and 50 % of the parts, rounded up (DeYoung et al. 2020,
    ERASER). The deletion curve takes away one part after the other, the insertion curve brings them back (Petsiuk et
    al. 2018); their areas are means over the way. Scores are faithful as far as they beat random orders: high
    comprehensiveness and insertion, low sufficiency and deletion.

    Args:
        model: any model with a text, or a recording.
        text: of several texts the first.
        scores: of its tokens, words or sentences, of this model or from elsewhere; None: made by `method`.
        source: what an encoder–decoder reads.
        method: "integrated_gradients", "gradient_x_input", "occlusion", "shapley" or "attention_x_gradient".
        token: which output, as in `target_of`; None takes the likeliest.
        minus: another output, which is subtracted.
        position: after or at which token.
        quantity: "logit", "logprob" or "prob"; None: "prob" where the model gives probabilities.
        grain: of the scores.
        replace: what stands in place of what is taken away, as in `occlusion`.
        orders: random orders, 2 or more.
        seed: of the random orders.
        progress: told how many texts were read, of those with parts taken away, and then of those with parts kept.

    Returns:
        A panel: the curves "deletion" and "insertion", the table "against random", and as figures each number, its mean
        over random orders (`… at random`) and how many of their standard deviations lie between (`… margin`, positive
        where the scores do better).

    Raises:
        ConfigError: an unknown method or option, or one that the model does not allow.
        InputError: too few random orders, fewer than two parts, or scores of another text.
    """
    if method not in METHODS:
        raise ConfigError(unknown("method", str(method), METHODS))
    if orders < 2:
        raise InputError(f"orders must be at least 2, to know how far random orders differ, but {orders} was given")
    run = model.model if isinstance(model, Recording) else model
    head = getattr(run.config, "head", "causal_lm")
    quantity = quantity or ("logit" if head in ("none", "embedding", "replaced_token") else "prob")
    given: dict[str, Any] = {"source": source, "token": token, "minus": minus, "position": position}
    options = {"quantity": quantity, "grain": grain, "replace": replace, "orders": orders, "seed": seed}
    shown = model if isinstance(model, Recording) else text
    clock = Clock(run, "faithfulness", shown, scores=scores, method=method, **given, **options)
    question = question_of(model, text, **given, quantity=quantity)
    if scores is None:
        long: dict[str, Any] = (
            {"progress": progress} if "progress" in inspect.signature(METHODS[method]).parameters else {}
        )
        scores = METHODS[method](model, text, **given, quantity=quantity, grain=grain, **long)
    remove = removal(question, replace, grain)
    values, remove = _by_part(scores, remove, grain)
    count = len(values)
    if count < 2:
        raise InputError(f"a text of {count} part that can be taken away has no order; take a finer grain")
    generator = torch.Generator().manual_seed(seed)
    ranked = [torch.tensor(sorted(range(count), key=lambda i: -values[i]))]
    ranked += [torch.randperm(count, generator=generator) for _ in range(orders)]

    steps = sorted({round(i * count / min(count, MOST_COUNTS)) for i in range(min(count, MOST_COUNTS) + 1)})
    bins = [0, *(math.ceil(share * count) for share in BINS)]
    counts = sorted({*steps, *bins})
    ranks = torch.stack([order.argsort() for order in ranked])  # (R, P), from 0 for the best
    best = ranks[:, None] < torch.tensor(counts)[:, None]  # (R, K, P)
    without = remove(~best.flatten(0, 1), progress).double().cpu().view(len(ranked), len(counts)).tolist()
    only = remove(best.flatten(0, 1), progress).double().cpu().view(len(ranked), len(counts)).tolist()
    whole, at = without[0][0], {number: i for i, number in enumerate(counts)}
    shares = [number / count for number in steps]
    lines = {
        "deletion": [[row[at[number]] for number in steps] for row in without],
        "insertion": [[row[at[number]] for number in steps] for row in only],
    }
    found = {
        "comprehensiveness": [whole - fmean(row[at[number]] for number in bins) for row in without],
        "sufficiency": [whole - fmean(row[at[number]] for number in bins) for row in only],
        "deletion area": [_area(shares, line) for line in lines["deletion"]],
        "insertion area": [_area(shares, line) for line in lines["insertion"]],
    }
    receipt = clock.receipt(seed=seed)
    y = f"{quantity} ({question.target.what})"
    parts: dict[str, Any] = {
        "deletion": _curve(
            "Deletion: the number as parts are taken away, best first",
            "share taken away",
            y,
            shares,
            lines["deletion"],
            receipt,
        ),
        "insertion": _curve(
            "Insertion: the number as parts come back, best first", "share kept", y, shares, lines["insertion"], receipt
        ),
    }
    figures, rows = {}, []
    for name, (own, *random) in found.items():
        better = 1 if name in ("comprehensiveness", "insertion area") else -1
        spread = stdev(random)
        margin = better * (own - fmean(random)) / spread if spread else 0.0
        figures |= {name: own, f"{name} at random": fmean(random), f"{name} margin": margin}
        rows.append([name, own, fmean(random), spread, margin, sum(better * (own - r) > 0 for r in random) / orders])
    columns = ["measure", "by score", "random, mean", "random, spread", "margin in spreads", "random orders beaten"]
    parts["against random"] = Table("Faithfulness against random orders", columns, rows, receipt=receipt)
    parts["scores"] = scores
    beaten = fmean(float(row[-1]) for row in rows)
    notes = [
        f"Of {orders} random orders the scores beat {beaten:.0%} on average over the four measures; chance is 50 %.",
        f"What is taken away is replaced by {replace}: the model may never have read such texts, random orders neither."
        if replace != "delete"
        else "What is taken away is deleted: the model may never have read such texts, random orders neither.",
    ]
    return Panel(f"Faithfulness: {scores.what}", parts, notes, figures, receipt=receipt)


def _by_part(scores: TokenScores, remove: Removal, grain: Grain | str) -> tuple[list[float], Removal]:
    """A score for each part that can be taken away, and the removal of these parts."""
    numbers = [-math.inf if score is None else score for score in scores.scores]
    if isinstance(scores, Attribution):
        units = scores.places
        if max((place for places in units for place in places), default=0) >= len(remove.question.real):
            raise InputError("the scores are of a longer text than this one")
    else:
        units = [places for _, _, places in remove.question.units(grain)]
        if len(units) != len(numbers):
            raise InputError(
                f"{len(numbers)} scores were given, but at the grain of a {grain} the text has {len(units)} parts"
            )
    can_go = {place for player in remove.players for place in player}
    kept = [([p for p in places if p in can_go], number) for places, number in zip(units, numbers, strict=True)]
    kept = [(places, number) for places, number in kept if places]
    return [number for _, number in kept], changed(remove, players=[places for places, _ in kept])


def _area(at: list[float], line: list[float]) -> float:
    """Under a line from 0 to 1, by trapezoids: its mean."""
    return math.fsum((b - a) * (y + z) / 2 for (a, b), (y, z) in zip(pairwise(at), pairwise(line), strict=True))


def _curve(what: str, x: str, y: str, at: list[float], lines: list[list[float]], receipt: Any) -> Curve:
    own, *random = lines
    by_place = list(zip(*random, strict=True))
    shown: dict[str, list[float | None]] = {
        "by score": list(own),
        "random, mean": [fmean(values) for values in by_place],
        "random, lowest": [min(values) for values in by_place],
        "random, highest": [max(values) for values in by_place],
    }
    return Curve(what, x, y, at, shown, receipt=receipt)
