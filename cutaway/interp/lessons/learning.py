"""The lessons of learning: a loss, its gradient at one weight, one step of AdamW there, and some steps in a row.

Shapes: T tokens, V outputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cutaway.errors import ConfigError, InputError
from cutaway.interp.inputs import Text, forward
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.training import Gradient, Lesson, by_token, lesson_of, weight_of
from cutaway.interp.lessons.asked import Asked, asked_of
from cutaway.interp.lessons.worked import Opens, Shown, Worked, cells, model_of, strongest
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.results import Curve
from cutaway.interp.target import name_of
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.models.quantised import Blocks
from cutaway.progress import OnProgress, Progress
from cutaway.training.losses import cross_entropy

TOP = 6  # answers that are shown
ALL = 8_000_000  # parameters up to which all of a network is trained, and not its last layer alone
MOST = 500  # steps
NUDGES = (
    -24.0,
    -16.0,
    -10.0,
    -5.0,
    -2.0,
    0.0,
    2.0,
    5.0,
    10.0,
    16.0,
    24.0,
)  # times the typical size of the matrix's weights


@torch.no_grad()
def loss_by_hand(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    position: int | None = None,
    target: str | int | None = None,
    raised: float = 0.0,
) -> Worked:
    """The cross-entropy of one answer: softmax of the logits, minus the logarithm of what the right one got.

    Args:
        model: that predicts tokens or labels.
        text: what it reads.
        source: what an encoder–decoder reads.
        position: after which token the next is asked for, or which token is hidden; None: see `asked_of`.
        target: of a model with labels, the right one; None: its own answer.
        raised: added to the right answer's logit; at 0 all numbers are the model's own.

    Returns:
        A row for each of the likeliest answers, and the right one: "logit", "exp" relative to the largest, "chance",
        and "gradient", what the loss asks of that logit (chance − 1 for the right one, else the chance). Figures: the
        right answer's "logit", the "logsumexp" of all, "chance", "loss" in nats, "bits", "rank", and "even", the loss
        of a model that knows nothing.

    Raises:
        ConfigError: a model that is trained in another way.
        InputError: nothing can be asked there.
    """
    run = model_of(model)
    clock = Clock(run, "loss_by_hand", model if isinstance(model, Recording) else text, source=source,
                  position=position, target=target, raised=raised or None)  # fmt: skip
    asked = asked_of(model, text, source, position, target)
    scores = asked.scores(model)
    scores[asked.target] += raised
    log_sum = float(scores.logsumexp(0))
    chances = (scores - log_sum).exp()
    best = scores.topk(min(TOP, len(scores))).indices.tolist()
    shown = best if asked.target in best else [*best[:-1], asked.target]
    right = torch.zeros_like(scores)
    right[asked.target] = 1
    loss = log_sum - float(scores[asked.target])
    rows = cells([name_of(run, id) for id in shown], shown, scores[shown], (scores[shown] - scores.max()).exp(),
                 chances[shown], (chances - right)[shown])  # fmt: skip
    opens: list[Opens | None] = [None] * len(shown)
    if asked.own and not raised:
        at: Opens = {} if asked.place is None else {"position": asked.place}
        opens = [{"what": "logits", "token": id} | at for id in shown]
    chosen = opens[shown.index(asked.target)]
    figures = [
        Shown("logit", float(scores[asked.target]), chosen),
        Shown("logsumexp", log_sum),
        Shown("chance", float(chances[asked.target])),
        Shown("loss", loss, chosen and chosen | {"quantity": "logprob"}),
        Shown("bits", loss / math.log(2)),
        Shown("rank", int((scores > scores[asked.target]).sum()) + 1),
        Shown("even", math.log(len(scores))),
    ]
    return Worked(
        "the loss of one answer", ["answer", "id", "logit", "exp", "chance", "gradient"], rows, figures, _facts(asked),
        {"logit": opens}, None, asked.tokens, asked.places, asked.place, receipt=clock.receipt(),
    )  # fmt: skip


def gradient_by_hand(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    parameter: str = "",
    index: Sequence[int] | None = None,
    target: str | int | None = None,
    progress: OnProgress | None = None,
) -> Worked:
    """The gradient of a text's mean loss at one weight: from backpropagation, by token, and by trying.

    Args:
        model: that predicts tokens or labels, with its weights in floating point.
        text: what it reads.
        source: what an encoder–decoder reads.
        parameter: a weight's name; "": a matrix of the last layer.
        index: which number of it; None: the one of the largest gradient.
        target: of a model with labels, the right one; None: its own answer.
        progress: told of each backward pass.

    Returns:
        A row for each token that asks for a change: its share of the gradient. Figures: the "weight", its "gradient",
        the "loss", "step" (how far the weight is moved to try), the loss "above" and "below", and their "slope", which
        is the gradient but for rounding and curvature. The curve is the loss where the weight is moved further (on a
        copy), beside the straight line that the gradient promises.

    Raises:
        ConfigError: a model that is trained in another way, or a weight that is kept quantised.
        InputError: no such weight, or nothing to ask for.
    """
    run = model_of(model)
    clock = Clock(run, "gradient_by_hand", model if isinstance(model, Recording) else text, source=source,
                  parameter=parameter or None, index=None if index is None else list(index), target=target)  # fmt: skip
    asked = asked_of(model, text, source, None, target)
    name, weight, place, gradient = _gradient(run, asked, parameter, index)
    shares = list(gradient.shares(lambda slope: float(slope[place]), progress))
    slope = float(gradient.whole[place])
    size = float(weight.detach().double().square().mean().sqrt()) or 1.0
    own, (moved,) = with_own(run, [name])
    before = float(weight.detach()[place])

    @torch.no_grad()
    def loss_at(value: float) -> float:
        moved[place] = value
        return (
            float(cross_entropy(forward(own, asked.inputs).double(), asked.targets, reduction="sum")) / gradient.count
        )

    step = 0.03 * size
    loss, above, below = (loss_at(before + change) for change in (0.0, step, -step))
    changes = [size * nudge for nudge in NUDGES]
    lines: dict[str, list[float | None]] = {
        "loss": [loss_at(before + change) for change in changes],
        "gradient": [loss + slope * change for change in changes],
    }
    receipt = clock.receipt()
    curve = Curve("the loss where the weight is moved", "change of the weight", "nats", changes, lines, receipt=receipt)
    figures = [
        Shown("weight", before),
        Shown("loss", loss),
        Shown("gradient", slope, _opens(name, place, target)),
        Shown("step", step),
        Shown("above", above),
        Shown("below", below),
        Shown("slope", (above - below) / (2 * step)),
    ]
    rows = cells(
        [share.place for share in shares], [share.label for share in shares], [share.value for share in shares]
    )
    return Worked(
        "the gradient of one weight", ["position", "asked", "share"], rows, figures,
        _facts(asked) | {"parameter": name, "index": ", ".join(map(str, place)), "count": str(gradient.count)}, {},
        curve, asked.tokens, receipt=receipt,
    )  # fmt: skip


def step_by_hand(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    parameter: str = "",
    index: Sequence[int] | None = None,
    target: str | int | None = None,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    steps: int = 5,
) -> Worked:
    """AdamW (Loshchilov & Hutter 2019) on one weight: its gradient, both moments, and the weight after.

    Args:
        model: as in `gradient_by_hand`.
        text: what it reads.
        source: what an encoder–decoder reads.
        parameter: a weight's name; "": a matrix of the last layer.
        index: which number of it; None: the one of the largest gradient.
        target: of a model with labels, the right one; None: its own answer.
        lr: the learning rate.
        betas: what the moments keep of themselves at each step.
        eps: added to the root, so that nothing is divided by zero.
        weight_decay: what is taken off the weight, at the learning rate.
        steps: how many are shown; the later ones are given the same gradient again.

    Returns:
        A row for each step: "weight" before, "gradient", the moments "mean" (m) and "square" (v), both corrected for
        having begun at zero ("mean hat", "square hat"), what "decay" and "move" change, and the weight "after". The
        figures are those of the first step.

    Raises:
        ConfigError, InputError: as in `gradient_by_hand`; a rate or a number of steps that is none.
    """
    run = model_of(model)
    clock = Clock(run, "step_by_hand", model if isinstance(model, Recording) else text, source=source,
                  parameter=parameter or None, index=None if index is None else list(index), target=target, lr=lr,
                  betas=betas, eps=eps, weight_decay=weight_decay, steps=steps)  # fmt: skip
    if not 1 <= steps <= MOST:
        raise InputError(f"give 1 … {MOST} steps, not {steps}")
    asked = asked_of(model, text, source, None, target)
    name, weight, place, gradient = _gradient(run, asked, parameter, index)
    before, slope = float(weight.detach()[place]), float(gradient.whole[place])
    rows = adamw_by_hand(before, [slope] * steps, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    columns = ["step", "weight", "gradient", "mean", "square", "mean hat", "square hat", "decay", "move", "after"]
    opens = _opens(name, place, target)
    figures = [
        Shown(column, value, opens if column == "gradient" else None)
        for column, value in zip(columns[1:], rows[0][1:], strict=True)
    ]
    facts = _facts(asked) | {"parameter": name, "index": ", ".join(map(str, place))}
    return Worked("steps of AdamW on one weight", columns, [list(row) for row in rows], figures, facts,
                  {"gradient": [opens] * len(rows)}, tokens=asked.tokens, receipt=clock.receipt())  # fmt: skip


def gradient_by_token(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    parameter: str = "",
    index: Sequence[int] | None = None,
    target: str | int | None = None,
    progress: OnProgress | None = None,
) -> Ledger:
    """The gradient of `gradient_by_hand` as a ledger, of models that are asked for masked tokens or labels too.

    Args:
        model: as in `gradient_by_hand`.
        text: what it reads.
        source: what an encoder–decoder reads.
        parameter: a weight's name; "": a matrix of the last layer.
        index: which number of it; None: the one of the largest gradient.
        target: of a model with labels, the right one; None: its own answer.
        progress: told of each backward pass.

    Returns:
        A term for each token that was asked for, as in `gradient_ledger`.

    Raises:
        ConfigError, InputError: as in `gradient_by_hand`.
    """
    run = model_of(model)
    clock = Clock(run, "gradient_by_token", model if isinstance(model, Recording) else text, source=source,
                  parameter=parameter or None, index=None if index is None else list(index), target=target)  # fmt: skip
    asked = asked_of(model, text, source, None, target)
    name, _, place, gradient = _gradient(run, asked, parameter, index)
    shares = list(gradient.shares(lambda slope: float(slope[place]), progress))
    what = f"gradient of {name}[{', '.join(map(str, place))}], by the token that asked for it"
    return by_token(what, shares, float(gradient.whole[place]), "loss per unit of weight", clock.receipt())


def _opens(parameter: str, place: Sequence[int], target: str | int | None) -> Opens:
    """What opens a gradient."""
    asked: Opens = {"analysis": "gradient_by_token", "parameter": parameter, "index": list(place)}
    return asked if target is None else asked | {"target": target}


def adamw_by_hand(
    weight: float,
    gradients: Sequence[float],
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
) -> list[list[float]]:
    """Steps of AdamW on one number, in float64.

    Args:
        weight: before the first step.
        gradients: one for each step.
        lr: the learning rate.
        betas: what the moments keep of themselves.
        eps: added to the root.
        weight_decay: what is taken off the weight, at the learning rate.

    Returns:
        For each step: number, weight, gradient, m, v, m̂, v̂, what decay and what the gradient change, weight after.

    Raises:
        InputError: no gradient, a β outside [0, 1), or a negative rate.
    """
    if len(betas) != 2 or not all(isinstance(beta, int | float) for beta in betas):
        raise InputError(f"betas are two numbers, but {betas} was given")
    first, second = betas
    if (
        not 1 <= len(gradients) <= MOST
        or not (0 <= first < 1 and 0 <= second < 1)
        or lr < 0
        or eps <= 0
        or weight_decay < 0
    ):
        raise InputError(f"give 1 … {MOST} gradients, betas in [0, 1), eps above 0, and rates from 0 up")
    mean = square = 0.0
    rows = []
    for count, gradient in enumerate(gradients, 1):
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient**2
        mean_hat, square_hat = mean / (1 - first**count), square / (1 - second**count)
        decay, move = -lr * weight_decay * weight, -lr * mean_hat / (math.sqrt(square_hat) + eps)
        after = weight + decay + move
        rows.append([count, weight, gradient, mean, square, mean_hat, square_hat, decay, move, after])
        weight = after
    return rows


def training_by_hand(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    target: str | int | None = None,
    lr: float = 1e-3,
    steps: int = 8,
    progress: OnProgress | None = None,
) -> Worked:
    """Some steps of AdamW on this one text, on a copy: the loss falls, as the model learns the text by heart.

    Args:
        model: that predicts tokens or labels.
        text: what it learns.
        source: what an encoder–decoder reads.
        target: of a model with labels, the right one; None: its own answer.
        lr: the learning rate.
        steps: of all weights, or of a network of more than 8 million those of its last layer and what follows it.
        progress: told of each step.

    Returns:
        A row before each step and after the last: the mean "loss" in nats, the "chance" of the answer that is looked
        at, and the "norm" of the whole gradient. Figures: how many numbers are "trained", the loss "before" and
        "after". The model itself is left as it is.

    Raises:
        ConfigError: a model that is trained in another way, or all of whose last layer is kept quantised.
        InputError: nothing to ask for, or no step.
    """
    run = model_of(model)
    if not 1 <= steps <= MOST or not 0 < lr <= 10:
        raise InputError(f"give 1 … {MOST} steps and a learning rate above 0, at most 10; not {steps} and {lr}")
    clock = Clock(run, "training_by_hand", model if isinstance(model, Recording) else text, source=source,
                  target=target, lr=lr, steps=steps)  # fmt: skip
    asked = asked_of(model, text, source, None, target)
    count = int((asked.targets >= 0).sum())
    weights = [name for name, p in run.network.named_parameters() if p.is_floating_point()]
    if sum(p.numel() for p in run.network.parameters()) > ALL:
        weights = _last(run, weights)
    own, learned = with_own(run, weights)
    optimiser = torch.optim.AdamW(learned, lr=lr, betas=(0.9, 0.98), weight_decay=0.1)
    rows: list[list[Any]] = []
    for step in range(steps + 1):
        with torch.enable_grad():
            output = forward(own, asked.inputs)
            loss = cross_entropy(output, asked.targets, reduction="sum") / count
            slopes = torch.autograd.grad(loss, learned, allow_unused=True)
        row = output[0] if asked.place is None else output[0, asked.place]
        norm = math.sqrt(sum(float(slope.double().square().sum()) for slope in slopes if slope is not None))
        rows.append([step, float(loss.detach()), float(row.detach().double().softmax(-1)[asked.target]), norm])
        for weight, slope in zip(learned, slopes, strict=True):
            weight.grad = slope
        if step < steps:
            optimiser.step()
        if progress is not None:
            progress(Progress("steps", step, steps))
    receipt = clock.receipt()
    at = [float(row[0]) for row in rows]
    curve = Curve("the loss of this text", "steps", "nats", at, {"loss": [row[1] for row in rows]}, receipt=receipt)
    figures = [Shown("trained", sum(w.numel() for w in learned)), Shown("before", rows[0][1]),
               Shown("after", rows[-1][1])]  # fmt: skip
    facts = _facts(asked) | {"of": str(sum(p.numel() for p in run.network.parameters()))}
    return Worked("steps on one text", ["step", "loss", "chance", "norm"], rows, figures, facts, {}, curve,
                  asked.tokens, receipt=receipt)  # fmt: skip


def with_own(model: Model, names: Sequence[str]) -> tuple[Model, list[nn.Parameter]]:
    """A copy of a model that shares every tensor but some weights, which are its own and learn.

    Args:
        model: left as it is.
        names: of weights; a tied one is one under both its names.
    """
    known = dict(model.network.named_parameters(remove_duplicate=False))
    fresh = {id(known[name]): nn.Parameter(known[name].detach().clone()) for name in names}
    memo: dict[int, Any] = {id(t): t for t in (*model.network.parameters(), *model.network.buffers())} | fresh
    memo[id(model.network.config)] = model.network.config
    for module in model.network.modules():
        held = getattr(module, "blocks", None)
        for blocks in held.values() if isinstance(held, dict) else (held,):
            if isinstance(blocks, Blocks):
                memo[id(blocks)] = blocks
    network = copy.deepcopy(model.network, memo)
    for parameter in network.parameters():
        if id(parameter) not in {id(p) for p in fresh.values()}:
            continue
        parameter.requires_grad_(True)
    made = Model(network, model.tokenizer, model.source, model.origin, model.mel, model.generation)
    return made, list(fresh.values())


def _gradient(
    model: Model, asked: Asked, parameter: str, index: Sequence[int] | None
) -> tuple[str, nn.Parameter, tuple[int, ...], Gradient]:
    """A weight with its gradient, and which of its numbers is looked at."""
    if not parameter:
        weights = {name: p for name, p in model.network.named_parameters() if p.is_floating_point()}
        last = _last(model, list(weights))
        matrices = [name for name in last if weights[name].ndim == 2 and "layers." in name]
        parameter = (matrices or last)[-1]
    weight, _ = weight_of(model, parameter, tuple(0 for _ in _shape(model, parameter)))
    gradient = Gradient(_lesson(model, asked), weight)
    if index is None:
        place = tuple(int(i) for i in torch.unravel_index(torch.tensor(strongest(gradient.whole.flatten())),
                                                         gradient.whole.shape))  # fmt: skip
    else:
        if not all(isinstance(i, int) for i in index):
            raise InputError(f"an index is whole numbers, but {list(index)} was given")
        _, place = weight_of(model, parameter, tuple(index))
    return parameter, weight, place, gradient


def _shape(model: Model, parameter: str) -> tuple[int, ...]:
    found = dict(model.network.named_parameters(remove_duplicate=False)).get(parameter)
    return () if found is None else tuple(found.shape)


def _lesson(model: Model, asked: Asked) -> Lesson:
    return lesson_of(model, asked.inputs, targets=asked.targets)


def _last(model: Model, names: Sequence[str]) -> list[str]:
    """Of some weights those of the last layer, and what follows it; the table of tokens is left out.

    Raises:
        ConfigError: there is none.
    """
    places = [i for i, name in enumerate(names) if f"layers.{model.config.layers - 1}." in name]  # pyright: ignore[reportAttributeAccessIssue]
    found = [name for name in names[places[0] if places else 0 :] if "embed" not in name and "lm_head" not in name]
    if not found:
        raise ConfigError(
            "the last layer keeps its weights quantised, so it has no gradient; open the model unquantised"
        )
    return found


def _facts(asked: Asked) -> dict[str, str]:
    token = "" if asked.place is None else asked.tokens[asked.place]
    return {"kind": asked.kind, "target": asked.name, "token": token}
