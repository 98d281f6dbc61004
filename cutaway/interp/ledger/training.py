"""The ledger of training: a loss by token, a weight's gradient by the tokens that asked for it, a weight's update.

A loss is a sum over positions, so a gradient is a sum over them too: each position's share is one backward pass of its
own, from what the loss asks of the output there and of nothing else. This holds for every network and every objective.
An update is what the optimiser makes of the gradient: linear in it once what it divides or multiplies by (Adam's root
mean square, the polynomial of Muon's Newton–Schulz steps) is held as it was.

Shapes: B texts, T tokens, V outputs, R rows and C columns of a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.inputs import Inputs, Text, forward, inputs_of
from cutaway.interp.ledger.ledger import Ledger, Term
from cutaway.interp.ledger.numbers import needed
from cutaway.interp.ledger.opening import output_names, output_softmax
from cutaway.interp.ledger.reading import Run
from cutaway.interp.receipt import Clock, Receipt
from cutaway.interp.record import recording_of
from cutaway.models import Model
from cutaway.models.config_parts import POOLED
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress
from cutaway.training import TrainConfig
from cutaway.training.losses import IGNORE, cross_entropy
from cutaway.training.objectives.base import Objective, Piece

Index = tuple[int, ...]


@dataclass(frozen=True)
class Lesson:
    """What is learned from: a loss that is a sum over positions of a network's output.

    Attributes:
        loss: given the outputs' function, the sum of the losses and of how many positions it is.
        learner: what computes the outputs.
        label: number of the output, row and place of a position -> what was asked for there, to be read.
        places: of the positions that are asked, (B, K), where these are not all.
    """

    loss: Callable[[Callable[..., Any]], tuple[Tensor, int]]
    learner: nn.Module
    label: Callable[[int, int, int], str]
    places: Tensor | None = None


def lesson_of(
    model: Model,
    text: Text,
    *,
    source: Source | Sequence[str] | None = None,
    targets: Int[Tensor, "B ..."] | None = None,
) -> Lesson:
    """The cross-entropy of texts, as training has it.

    Args:
        model: whose loss it is.
        text: what it reads.
        source: what an encoder–decoder reads.
        targets: (B, T) int64 what should stand at each position, -100 where nothing is asked, or (B,) labels of whole
            texts; None: of a model that predicts the next token, the next tokens.

    Raises:
        ConfigError: targets are needed, or there is nothing to ask.
    """
    inputs = inputs_of(model, text, source)
    wanted = _targets(model, inputs) if targets is None else targets
    if not (wanted != IGNORE).any():
        raise InputError("there is nothing to ask for: a text needs two tokens, so that one of them can be predicted")

    def loss(compute: Callable[..., Any]) -> tuple[Tensor, int]:
        return cross_entropy(compute(), wanted, reduction="sum"), int((wanted != IGNORE).sum())

    return Lesson(loss, _Bound(model, inputs), lambda _, row, place: _asked(model, wanted, row, place))


def lesson_from(
    model: Model, objective: Objective, piece: Piece, config: TrainConfig, learner: nn.Module | None = None
) -> Lesson:
    """What an objective makes of some rows of a batch, with its own loss.

    Args:
        model: that is trained.
        objective: such as `TrainConfig.objective`.
        piece: the rows, as `objective.batch(…).tensors` has them.
        config: of the training.
        learner: what is trained, where that holds more than the network.
    """
    wanted = piece.get("targets")

    def label(output: int, row: int, place: int) -> str:
        asked = wanted if output == 0 else piece.get("ids")  # a second output judges what was read
        return "" if asked is None else _asked(model, asked, row, place)

    def loss(compute: Callable[..., Any]) -> tuple[Tensor, int]:
        return objective.loss(compute, piece, config)

    return Lesson(loss, learner or model.network, label, piece.get("places"))


class _Bound(nn.Module):
    """A network with what it reads, so that every lesson's learner is called alike."""

    def __init__(self, model: Model, inputs: Inputs) -> None:
        super().__init__()
        self.network, self._of, self._inputs = model.network, model, inputs
        self.training = model.network.training  # which whoever evaluates it puts back

    def forward(self) -> Tensor:
        return forward(self._of, self._inputs)


def _targets(model: Model, inputs: Inputs) -> Tensor:
    """(B, T) the next tokens."""
    if getattr(model.config, "head", "causal_lm") != "causal_lm":
        raise ConfigError(
            f"a head for {model.config.head} predicts no next token: give targets=, what should stand at each position"  # pyright: ignore[reportAttributeAccessIssue]
        )
    targets = torch.full_like(inputs.ids, IGNORE)
    real = inputs.mask if inputs.mask is not None else torch.ones_like(inputs.ids, dtype=torch.bool)
    targets[:, :-1] = torch.where(real[:, 1:] & real[:, :-1], inputs.ids[:, 1:], IGNORE)
    return targets


def _asked(model: Model, targets: Tensor, row: int, place: int) -> str:
    """What was asked for, to be read."""
    wanted = targets[row] if targets.ndim == 1 else targets[row, place]
    labels: tuple[str, ...] = getattr(model.config, "labels", ())
    if targets.is_floating_point() or int(wanted) < 0:
        return str(float(wanted))
    return labels[int(wanted)] if labels else (model.tokenizer.target or model.tokenizer).token(int(wanted))


@dataclass(frozen=True)
class _Share:
    """A position's part of the gradient: of which output, text and place, and as it is read."""

    output: int
    row: int
    place: int
    label: str
    value: float


@contextmanager
def _learning(learner: nn.Module, weight: nn.Parameter) -> Iterator[None]:
    """Without dropout, and with a gradient of the weight."""
    training, wanted = learner.training, weight.requires_grad
    learner.eval()
    weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        weight.requires_grad_(wanted)
        learner.train(training)


class _Watched:
    """A learner whose outputs are kept."""

    def __init__(self, learner: nn.Module) -> None:
        self._learner, self.outputs = learner, list[Tensor]()

    def __call__(self, *args: Any, **options: Any) -> Any:
        made = self._learner(*args, **options)
        self.outputs.extend(made if isinstance(made, tuple) else [made])
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)


class Gradient:
    """The gradient of a lesson's mean loss with respect to a weight, `whole` and by position.

    Args:
        lesson: what is learned from.
        weight: of its learner.
    """

    def __init__(self, lesson: Lesson, weight: nn.Parameter) -> None:
        self.lesson, self.weight = lesson, weight
        watched = _Watched(lesson.learner)
        with _learning(lesson.learner, weight):
            loss, self.count = lesson.loss(watched)
            made = [output for output in watched.outputs if output.requires_grad]
            self.outputs = made
            self.asked = torch.autograd.grad(loss, self.outputs, retain_graph=True)
            (whole,) = torch.autograd.grad(loss, weight, retain_graph=True)
        self.whole = whole.double() / self.count  # of the weight's shape

    def shares(self, reader: Callable[[Tensor], float], on_progress: OnProgress | None) -> Iterator[_Share]:
        """Each position's part, read."""
        places = [(k, *at) for k, g in enumerate(self.asked) for at in self._positions(g)]
        for number, (k, row, place) in enumerate(places):
            part = torch.zeros_like(self.asked[k])
            at = (row,) if place < 0 else (row, place)
            part[at] = self.asked[k][at]
            (slope,) = torch.autograd.grad(self.outputs[k], self.weight, part, retain_graph=True, allow_unused=True)
            value = 0.0 if slope is None else reader(slope.double() / self.count)
            there = place
            if self.lesson.places is not None and self.asked[k].ndim == 3:
                there = int(self.lesson.places[row, place])
            yield _Share(k, row, there, self.lesson.label(k, row, place), value)
            if on_progress is not None:
                on_progress(Progress("backward passes", number + 1, len(places)))

    def _positions(self, asked: Tensor) -> list[tuple[int, int]]:
        """Text and place of every position at which the loss asks for anything; -1 where a text is asked whole."""
        places = asked.abs() if asked.ndim == 2 else asked.abs().amax(-1)  # (B, T)
        if self._whole:
            return [(row, -1) for row in asked.abs().amax(-1).nonzero().flatten().tolist()]
        return [(row, place) for row, place in places.nonzero().tolist()]

    @property
    def _whole(self) -> bool:
        config = getattr(self.lesson.learner, "network", self.lesson.learner).config
        return getattr(config, "head", "") in POOLED


def gradient_ledger(
    model: Model,
    text: Text | Lesson,
    parameter: str,
    index: Index,
    *,
    source: Source | Sequence[str] | None = None,
    targets: Int[Tensor, "B ..."] | None = None,
    progress: OnProgress | None = None,
) -> Ledger:
    """The gradient of one weight, by the tokens that asked for it.

    A token's term is the slope of its own loss, divided by how many there are: a positive one asks for a smaller
    weight. One backward pass is taken for each token.

    Args:
        model: of the weight, not quantised.
        text: what is learned from: a text, whose next tokens are the targets; or a `Lesson`, such as one of the
            package's objectives (`lesson_from`).
        parameter: the weight's name, such as "layers.0.self_attn.q_proj.weight".
        index: which number of it.
        source: what an encoder–decoder reads.
        targets: what should stand at each position; see `lesson_of`.
        progress: told of each backward pass.

    Returns:
        Terms "token.4", labelled with the token that was to be predicted; of several texts "text.0" …, which open into
        their tokens. They sum to what a backward pass of the whole gives, but for rounding.

    Raises:
        InputError: no such weight or index, or nothing to learn from.
        ConfigError: the model keeps its weights quantised, or predicts no next token and no targets are given.
    """
    clock = Clock(
        model, "gradient_ledger", None if isinstance(text, Lesson) else text, parameter=parameter, index=index
    )
    lesson = text if isinstance(text, Lesson) else lesson_of(model, text, source=source, targets=targets)
    weight, index = weight_of(model, parameter, index)
    gradient = Gradient(lesson, weight)
    shares = list(gradient.shares(lambda slope: float(slope[index]), progress))
    what = f"gradient of {parameter}[{', '.join(map(str, index))}], by the token that asked for it"
    return by_token(what, shares, float(gradient.whole[index]), "loss per unit of weight", clock.receipt())


def by_token(what: str, shares: list[_Share], total: float, unit: str, receipt: Receipt, frozen: str = "") -> Ledger:
    """Shares as terms: by text where there are several, each by token."""
    rows = sorted({share.row for share in shares})
    scale = sum(abs(share.value) for share in shares)
    several = len({share.output for share in shares}) > 1

    def tokens(row: int) -> tuple[Term, ...]:
        found = [share for share in shares if share.row == row]
        names = [f"text.{s.row}" if s.place < 0 else f"token.{s.place}" for s in found]
        names = [f"output.{s.output}.{name}" if several else name for s, name in zip(found, names, strict=True)]
        return tuple(Term(n, s.value, s.label, frozen=frozen) for n, s in zip(names, found, strict=True))

    if len(rows) <= 1:
        return Ledger(what, tokens(rows[0]) if rows else (), total, {}, unit, scale, receipt=receipt)

    def text(row: int) -> Ledger:
        terms = tokens(row)
        return Ledger(f"{what}, of text {row}", terms, sum(t.value for t in terms), {}, unit, scale, receipt=receipt)

    terms, opened = [], {}
    for row in rows:
        below = tokens(row)
        deeper = len(below) > 1
        label = f"{len(below)} tokens" if deeper else "".join(term.label for term in below)
        terms.append(Term(f"text.{row}", sum(t.value for t in below), label, deeper, frozen))
        if deeper:
            opened[f"text.{row}"] = lambda row=row: text(row)
    return Ledger(what, tuple(terms), total, opened, unit, scale, receipt=receipt)


def weight_of(model: Model, name: str, index: Index) -> tuple[nn.Parameter, Index]:
    """A weight, and where its number stands.

    Raises:
        InputError: there is none.
        ConfigError: it is kept quantised.
    """
    weights = dict(model.network.named_parameters(remove_duplicate=False))
    if name not in weights:
        if name in model.network.state_dict():
            raise ConfigError(f"{name} is kept quantised, and learns nothing; load the model with quantised=False")
        raise InputError(unknown("weight", name, weights))
    shape = tuple(weights[name].shape)
    if len(index) != len(shape) or not all(-n <= i < n for i, n in zip(index, shape, strict=True)):
        raise InputError(f"{name} has the shape {shape}, but the number at {tuple(index)} was asked for")
    return weights[name], tuple(i % n for i, n in zip(index, shape, strict=True))


@torch.no_grad()
def loss_ledger(
    model: Model,
    text: Text,
    *,
    source: Source | Sequence[str] | None = None,
    targets: Int[Tensor, "B ..."] | None = None,
) -> Ledger:
    """The loss of a text, by token: each is minus a logit, plus the logsumexp of all, which open further.

    Args:
        model: that predicts tokens or labels.
        text: what it reads; of several texts the first.
        source: what an encoder–decoder reads.
        targets: what should stand at each position; see `lesson_of`.

    Returns:
        The sum of the losses in nats. A logit opens into what the parts of the model wrote, as in `ledger`; the
        logsumexp into every logit at its chance, and the entropy.

    Raises:
        ConfigError: targets are needed, or the model makes no logits.
        InputError: there is nothing to predict.
    """
    clock = Clock(model, "loss_ledger", text, source=source, targets=targets)
    inputs = inputs_of(model, text, source).rows(0, 1)
    wanted = _targets(model, inputs) if targets is None else targets[:1]
    if "logits" not in model.network.tap_names():
        raise ConfigError("the model makes no logits, so it has no loss of this kind")
    if not (wanted != IGNORE).any():
        raise InputError("there is nothing to ask for: a text needs two tokens, so that one of them can be predicted")
    recording = recording_of(model, inputs, needed(model))
    run = Run(recording, 0, "nats")
    run.receipt = clock.receipt(bytes=recording.receipt.bytes)
    logits = recording["logits"]
    total = float(cross_entropy(logits.double(), wanted, reduction="sum"))
    names = output_names(run)
    places = (wanted[0] != IGNORE).nonzero().flatten().tolist() if wanted.ndim > 1 else [None]
    terms: list[Term] = []
    opened: dict[str, Callable[[], Ledger]] = {}
    for place in places:
        chosen = int(wanted[0] if place is None else wanted[0, place])
        scores = run.at("logits", place)
        loss = float(scores.logsumexp(0) - scores[chosen])
        terms.append(Term("text" if place is None else f"token.{place}", loss, names[chosen], True))
        softmax = output_softmax(run, names, place)
        opened[terms[-1].name] = partial(softmax.entry, chosen, -loss, f"loss of “{names[chosen]}”", sign=-1.0)
    what = f"loss in nats, by what was to be predicted ({total / len(terms):.4f} on average)"
    return Ledger(what, tuple(terms), total, opened, "nats", receipt=run.receipt)
