"""Attribution by the gradient with respect to the token vectors.

Shapes: N places (source, then text), C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cutaway.errors import InputError
from cutaway.interp.attribution.baseline import Baseline, baseline_of
from cutaway.interp.attribution.integrate import Rule, integrate
from cutaway.interp.attribution.question import Attribution, question_of
from cutaway.interp.attribution.spans import Grain
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.target import Quantity
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress

DOUBTFUL = 0.1  # a gap of this share of what there is to explain is said in the result's name


def gradient_x_input(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    grain: Grain | str = "token",
) -> Attribution:
    """The gradient of a number with respect to each token's vector, times that vector (Denil et al. 2014).

    What the number would lose if every token vector were taken away at the present rate: one pass forward and back. The
    scores add up to the number only for a network that is linear.

    Args:
        model: any model with a text, or a recording, whose run (with its edits) is explained.
        text: of several texts the first.
        source: what an encoder–decoder reads; its tokens (or frames) get scores too.
        token: which output is explained, as in `target_of`; None takes the likeliest.
        minus: another output, which is subtracted: why the one rather than the other (Yin & Neubig 2022).
        position: after or at which token.
        quantity: "logit", "logprob" or "prob".
        grain: "token", "word" or "sentence"; a word's score is the sum of its tokens'.

    Raises:
        ConfigError, InputError: as in `target_of`, or an unknown grain.
        NonFinite: the gradient is not finite.
    """
    given = {"source": source, "token": token, "minus": minus, "position": position, "quantity": quantity}
    run = model.model if isinstance(model, Recording) else model
    clock = Clock(run, "gradient_x_input", model if isinstance(model, Recording) else text, **given, grain=grain)
    question = question_of(model, text, **given)
    question.units(grain)
    with torch.enable_grad():
        vectors = question.vectors[None].clone().requires_grad_()
        number = question(vectors)
        (slopes,) = torch.autograd.grad(number.sum(), vectors)
    scores = question.finite((slopes * vectors.detach())[0].sum(-1))
    return question.result("gradient × input", scores, grain, clock.receipt(), value=float(number.detach()))


def integrated_gradients(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    grain: Grain | str = "token",
    baseline: Baseline | str = "mean",
    reference: Text | None = None,
    reference_source: Source | None = None,
    steps: int = 32,
    rule: Rule | str = "gauss_legendre",
    tolerance: float = 0.0,
    progress: OnProgress | None = None,
) -> Attribution:
    """Integrated gradients (Sundararajan et al. 2017) along the straight way from a baseline to the token vectors.

    The scores add up to the number less what it is at the baseline; `receipt.gap` is how far they miss, which more
    steps make smaller. A gap of more than a tenth is said in the result's name: the network is too rough on this way,
    as large language models often are, and `occlusion` or `shapley` should be asked instead.

    Only gradients of the vectors are computed, several steps at a time, and only the output that is asked for.

    Args:
        model: as in `gradient_x_input`.
        text: likewise.
        source: likewise.
        token: likewise.
        minus: likewise.
        position: likewise.
        quantity: likewise.
        grain: likewise.
        baseline: what stands in place of each token where the way begins: the "mean" of all token vectors, "zero", or
            the "pad" or "mask" token's. Special tokens stay. A network that begins with an RMS norm hardly sees the
            length of a vector, so that from "zero" all changes at the very beginning of the way, where no rule looks:
            the gap shows it.
        reference: another text of as many tokens, to begin from instead.
        reference_source: likewise, of what an encoder–decoder reads.
        steps: at how many points of the way the gradient is taken.
        rule: "gauss_legendre", "midpoint", "trapezoid", "left" or "right".
        tolerance: a gap that is small enough, as a share of the number less that at the baseline; 4, 8, 16 … steps are
            taken until it is reached, and `steps` at most. 0: all steps at once.
        progress: told of the steps.

    Raises:
        ConfigError, InputError: as in `gradient_x_input`; an unknown baseline or rule, too few steps, or a reference
            of another length.
        NonFinite: something on the way is not finite.
    """
    given = {"source": source, "token": token, "minus": minus, "position": position, "quantity": quantity}
    ways = {"baseline": baseline, "reference": reference, "reference_source": reference_source}
    run = model.model if isinstance(model, Recording) else model
    clock = Clock(
        run,
        "integrated_gradients",
        model if isinstance(model, Recording) else text,
        **given,
        grain=grain,
        **ways,
        steps=steps,
        rule=rule,
        tolerance=tolerance,
    )
    question = question_of(model, text, **given)
    question.units(grain)
    start = baseline_of(question, baseline, reference, reference_source)
    if not 0 <= tolerance < 1:
        raise InputError(f"tolerance must lie in 0 … 1, but {tolerance} was given")
    tried = 4 if tolerance else steps
    while True:
        tried = min(tried, steps)
        found = integrate(question, question.vectors, start, tried, rule, batch=question.at_once, progress=progress)
        if tried == steps or found.gap <= tolerance * abs(found.total):
            break
        tried *= 2
    what = f"integrated gradients, {found.steps} steps"
    if found.gap > DOUBTFUL * abs(found.total):
        what += f" (the scores miss their sum of {found.total:.3g} by {found.gap:.2g}: do not trust them)"
    return question.result(
        what,
        found.parts.sum(-1),
        grain,
        clock.receipt(gap=found.gap),
        value=found.at_x,
        baseline=found.at_baseline,
    )
