"""What moves a weight in one step of the optimiser: gradient, momentum, weight decay, at the actual learning rate.

Each rule of `training.optim` is linear in the gradient once its preconditioner is held as it was in this step: for Adam
the root mean square of that number's gradients, for Muon the polynomial in the matrix's own products by which
Newton–Schulz makes its singular values alike.

Shapes: R rows and C columns of a weight.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from cutaway.errors import InputError, unknown
from cutaway.interp.inputs import Text
from cutaway.interp.ledger.ledger import Ledger, Term
from cutaway.interp.ledger.training import Gradient, Index, Lesson, by_token, lesson_of, weight_of
from cutaway.interp.receipt import Clock
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress
from cutaway.training.optim import Adam, AdamW, Momentum, Muon, Optimizer, Rule


@dataclass(frozen=True)
class Move:
    """A rule's step of one number, as sums.

    Attributes:
        reader: of the weight's shape: the step is its product with the gradient, summed, and what follows.
        momentum: what is left of earlier gradients.
        decay: of the weight.
        frozen: what was held.
    """

    reader: Tensor
    momentum: float
    decay: float
    frozen: str


def update_ledger(
    model: Model,
    text: Text | Lesson,
    optimizer: Optimizer,
    parameter: str,
    index: Index,
    *,
    lr_scale: float = 1.0,
    clip: float = 0.0,
    source: Source | Sequence[str] | None = None,
    targets: Int[Tensor, "B ..."] | None = None,
    progress: OnProgress | None = None,
) -> Ledger:
    """How far the next step would move one weight, and what moves it. Nothing is changed.

    Args:
        model: of the weight.
        text: what the step learns from, as in `gradient_ledger`.
        optimizer: of the model's network, with what it has gathered so far.
        parameter: the weight's name.
        index: which number of it.
        lr_scale: share of the peak learning rate.
        clip: largest norm of the whole gradient, which is scaled down to it; 0: it is not.
        source: what an encoder–decoder reads.
        targets: what should stand at each position; see `lesson_of`.
        progress: told of each backward pass.

    Returns:
        Terms "gradient", which opens into the tokens that asked for it, "momentum" and "weight decay"; of Muon, which
        computes in bfloat16, also what that rounds off. They sum to the change that a step of the optimiser makes.

    Raises:
        InputError: no such weight or index, or the optimiser does not hold it.
        ConfigError: as in `gradient_ledger`.
    """
    clock = Clock(model, "update_ledger", None if isinstance(text, Lesson) else text, parameter=parameter, index=index)
    lesson = text if isinstance(text, Lesson) else lesson_of(model, text, source=source, targets=targets)
    weight, index = weight_of(model, parameter, index)
    rule, number = _rule(optimizer, parameter)
    gradient = Gradient(lesson, weight)
    factor = _clipped(model, lesson, clip)
    with torch.no_grad():
        taken = _taken(rule, number, gradient.whole * factor, lr_scale, optimizer.count + 1)
        slope = taken.stack.grads[number].double()
        before = rule.stack.weights[number][index].double()
        total = float(taken.stack.weights[number][index].double() - before)
        move = _move(rule, taken, number, slope, index, lr_scale, optimizer.count + 1)
    along = float((move.reader * slope).sum())
    frozen = f"learning rate {rule.lr * lr_scale:.3g}" + (f"; {move.frozen}" if move.frozen else "")
    frozen += f"; clipped to {factor:.3g} of itself" if factor < 1 else ""
    terms = [Term("gradient", along, opens=True, frozen=frozen)]
    if rule.state:
        terms.append(Term("momentum", move.momentum, "of earlier steps", frozen=frozen))
    if rule.weight_decay:
        terms.append(Term("weight decay", move.decay, frozen=f"learning rate {rule.lr * lr_scale:.3g}"))
    if isinstance(rule, Muon):
        rest = total - sum(term.value for term in terms)
        terms.append(Term("rounding", rest, "Newton–Schulz steps are computed in bfloat16"))
    what = f"change of {parameter}[{', '.join(map(str, index))}] in the next step, by what moves it"
    receipt, unit = clock.receipt(), "weight"

    reader = move.reader * factor
    # at once, as the weights may have moved on when somebody opens it
    shares = list(gradient.shares(lambda slope: float((reader * slope).sum()), progress))

    def tokens() -> Ledger:
        return by_token(f"{what}: gradient, by token", shares, along, unit, receipt, frozen)

    # the weight's own last digit is what its change is rounded to
    scale = float(before.abs()) + float((move.reader * slope).abs().sum())
    return Ledger(what, tuple(terms), total, {"gradient": tokens}, unit, scale, receipt=receipt)


def _rule(optimizer: Optimizer, name: str) -> tuple[Rule, int]:
    """The rule that moves a parameter, and which of its stack it is."""
    for rule in optimizer.rules:
        if name in rule.stack.names:
            return rule, rule.stack.names.index(name)
    raise InputError(
        unknown("weight of the optimiser", name, [n for rule in optimizer.rules for n in rule.stack.names])
    )


def _clipped(model: Model, lesson: Lesson, clip: float) -> float:
    """What the whole gradient is multiplied by."""
    if not clip:
        return 1.0
    weights = [weight for weight in model.network.parameters() if weight.requires_grad]
    training = lesson.learner.training
    lesson.learner.eval()
    with torch.enable_grad():
        loss, count = lesson.loss(lesson.learner)
        slopes = torch.autograd.grad(loss, weights, allow_unused=True)
    lesson.learner.train(training)
    norm = torch.stack([s.double().norm() for s in slopes if s is not None]).norm() / count
    return min(1.0, clip / float(norm)) if norm else 1.0


def _taken(rule: Rule, number: int, gradient: Tensor, lr_scale: float, count: int) -> Rule:
    """A copy of the rule after the step, its stack's gradient kept."""
    taken = copy.deepcopy(rule)
    taken.stack.grads.zero_()
    taken.stack.grads[number] = gradient.to(taken.stack.grads.dtype)
    kept = taken.stack.grads.clone()  # rules may work in place
    taken.step(lr_scale, count)
    taken.stack.grads.copy_(kept)
    return taken


def _move(rule: Rule, taken: Rule, number: int, slope: Tensor, index: Index, lr_scale: float, count: int) -> Move:
    lr, decay = rule.lr * lr_scale, rule.weight_decay * float(rule.stack.weights[number][index])
    one = torch.zeros_like(slope)
    if isinstance(rule, Muon):
        return _muon(rule, number, slope, index, lr, decay)
    if isinstance(rule, Adam):
        fresh, kept = 1 - rule.betas[0], rule.betas[0] * float(rule.state["mean"][number][index])
        square = float(taken.state["square"][number][index]) / (1 - rule.betas[1] ** count)
        by = -lr / (1 - rule.betas[0] ** count) / (square**0.5 + rule.eps)
        one[index] = by * fresh
        decayed = -lr * decay if isinstance(rule, AdamW) else by * fresh * decay  # decoupled, or a part of the gradient
        return Move(one, by * kept, decayed, "root mean square of its gradients at its actual value")
    one[index] = -lr
    kept = rule.momentum * float(rule.state["momentum"][number][index]) if isinstance(rule, Momentum) else 0.0
    return Move(one, -lr * kept, -lr * decay, "")


def _muon(rule: Muon, number: int, slope: Tensor, index: Index, lr: float, decay: float) -> Move:
    """The step of one number is a row of a matrix, which Newton–Schulz made, times a column of the gradient."""
    old, share = rule.state["momentum"][number].double(), rule.momentum
    fresh, kept = 1 - share**2, share**2  # of Nesterov's look ahead: (1 - μ) g + μ (μ m + (1 - μ) g)
    *outer, i, j = index
    ahead = (fresh * slope + kept * old)[tuple(outer)]  # (R, C)
    rows, columns = ahead.shape
    by = -lr * max(1.0, rows / columns) ** 0.5
    left = _polynomial(ahead, rule.iterations)  # (R, R), or of tall matrices (C, C) on the other side
    reader = torch.zeros_like(slope)
    inner = reader[tuple(outer)]
    if rows > columns:
        inner[i] = by * fresh * left[:, j]
        momentum = by * kept * float(old[tuple(outer)][i] @ left[:, j])
    else:
        inner[:, j] = by * fresh * left[i]
        momentum = by * kept * float(left[i] @ old[tuple(outer)][:, j])
    return Move(reader, momentum, -lr * decay, "Newton–Schulz polynomial at its actual value")


def _polynomial(matrix: Tensor, iterations: int) -> Tensor:
    """What `orthogonalise` multiplies a matrix by, from the left, or of a tall one from the right."""
    x = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    length = x.norm() * 1.01 + 1e-7
    x, made = x / length, torch.eye(len(x), dtype=x.dtype) / length
    for _ in range(iterations):
        gram = x @ x.mT
        step = 3.4445 * torch.eye(len(x), dtype=x.dtype) - 4.7750 * gram + 2.0315 * gram @ gram
        x, made = step @ x, step @ made
    return made.mT if matrix.shape[0] > matrix.shape[1] else made
