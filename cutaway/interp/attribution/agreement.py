"""Whether methods of attribution agree on which parts of a text an answer is owed to.

Shapes: M methods, U parts of a text.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.attribution.faithfulness import METHODS
from cutaway.interp.attribution.question import Attribution
from cutaway.interp.attribution.spans import Grain
from cutaway.interp.check import rank_correlation
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.results import Cell, Matrix, Panel, Table
from cutaway.interp.target import Quantity
from cutaway.models import Model, Recurrent
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress


@dataclass(frozen=True)
class Agreement(Panel):
    """What `agreement` found.

    Attributes:
        scores: method -> what it says of the text.
    """

    scores: dict[str, Attribution] = field(kw_only=True, repr=False, compare=False)


def agreement(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    grain: Grain | str = "token",
    steps: int = 32,
    samples: int | None = 16,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Agreement:
    """Ask several methods the same question, and compare the orders in which they rank the parts of the text.

    Methods that disagree cannot all be right, and none of them is because others say the same (Krishna et al. 2022,
    "The Disagreement Problem in Explainable Machine Learning"): `faithfulness` measures each against the model.

    Args:
        model: any model with a text, or a recording.
        text: of several texts the first.
        source: what an encoder–decoder reads.
        methods: two or more names; None: all that the model allows.
        token: which output is explained, as in `target_of`; None takes the likeliest.
        minus: another output, which is subtracted.
        position: after or at which token.
        quantity: "logit", "logprob" or "prob".
        grain: "token", "word" or "sentence".
        steps: of integrated gradients.
        samples: pairs of orders of Shapley values; None asks every coalition.
        seed: of those.
        progress: told while each method computes.

    Returns:
        A panel of Spearman's rank correlation of each pair of methods, of all scores as shares of each method's largest
        (so that they can stand side by side), and a table of each method's sum and completeness gap. The figures are
        the mean correlation and on how many parts' signs all agree.

    Raises:
        ConfigError: an unknown method, fewer than two, or one that the model does not allow.
        InputError: as in `target_of`; or fewer than three parts, of which no order can be compared.
    """
    run = model.model if isinstance(model, Recording) else model
    allowed = [name for name in METHODS if not (name == "attention_x_gradient" and isinstance(run.network, Recurrent))]
    chosen = list(dict.fromkeys(allowed if methods is None else methods))
    for name in chosen:
        if name not in METHODS:
            raise ConfigError(unknown("method", str(name), METHODS))
    if len(chosen) < 2:
        raise ConfigError(f"agreement is of two methods or more, but {len(chosen)} was given")
    given: dict[str, Any] = {"source": source, "token": token, "minus": minus, "position": position}
    given |= {"quantity": quantity, "grain": grain}
    own = {"steps": steps, "samples": samples, "seed": seed}
    shown = model if isinstance(model, Recording) else text
    clock = Clock(run, "agreement", shown, methods=methods and chosen, **given, **own)
    found: dict[str, Attribution] = {}
    for name in chosen:
        stage = name.replace("_", " ")

        def tell(_: Progress | None, stage: str = stage) -> None:  # also within a method, which may take long
            if progress is not None:
                progress(Progress(stage, len(found), len(chosen), "methods"))

        tell(None)
        takes, offered = inspect.signature(METHODS[name]).parameters, {**own, "progress": tell}
        found[name] = METHODS[name](model, text, **given, **{key: offered[key] for key in offered if key in takes})
    first = next(iter(found.values()))
    rows = torch.tensor([[float(score or 0.0) for score in one.scores] for one in found.values()]).double()  # (M, U)
    if rows.shape[1] < 3:
        raise InputError(
            f"a text of {rows.shape[1]} parts has no orders to compare; take a longer text or a finer grain"
        )
    names = [name.replace("_", " ") for name in found]
    pairs = torch.tensor([[rank_correlation(a, b) for b in rows] for a in rows])
    between = [float(pairs[i, j]) for i in range(len(names)) for j in range(i)]
    sizes = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    agreed = ((rows > 0).all(0) | (rows < 0).all(0)).double().mean()
    receipt = clock.receipt(seed=seed if "shapley" in found and samples is not None else None)
    table: list[list[Cell]] = [
        [
            name.replace("_", " "),
            one.value,
            one.baseline,
            float(rows[i].sum()),
            one.receipt.gap,
            one.receipt.milliseconds,
        ]
        for i, (name, one) in enumerate(found.items())
    ]
    heads = ["method", first.unit, "at the baseline", "sum of the scores", "completeness gap", "milliseconds"]
    parts: dict[str, Any] = {
        "rank correlation": Matrix(
            "Do methods rank the parts alike?", "Spearman correlation", names, names, pairs.float(), "method", "method",
            receipt=receipt,
        ),
        "side by side": Matrix(
            "What each method says", "share of its largest", names, first.tokens, (rows / sizes).float(), "method",
            grain, receipt=receipt,
        ),
        "sums": Table(f"Asked about the {first.target}", heads, table, receipt=receipt),
    }  # fmt: skip
    notes = [
        f"Mean rank correlation of {len(names)} methods: {fmean(between):.2f}; 1 is the same order, 0 is none.",
        "That methods agree does not make them right: test each, or take words away in its order (faithfulness).",
    ]
    figures = {"mean correlation": fmean(between), "lowest": min(between), "signs agreed on": float(agreed)}
    return Agreement("Agreement of methods", parts, notes, figures, scores=found, receipt=receipt)
