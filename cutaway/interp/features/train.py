"""Learning a dictionary of features from activations.

Shapes: N rows, B rows of a step, C channels read, O channels written, W features.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp.features.dictionary import (
    Features,
    FeaturesConfig,
    FeaturesRun,
    SparseAutoencoder,
    Transcoder,
    features_of,
)
from cutaway.interp.features.mlp import mlp_layer, mlp_samples
from cutaway.interp.features.step import Parameters, sparse_in_beta, step_gradients
from cutaway.interp.samples import samples_of
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress

SPARSITY = {"topk": 0.0, "jumprelu": 0.01, "l1": 0.1}
EVERY = 20  # resamplings in a training
REPORT = 50  # steps between two reports


def train_features(
    data: Tensor | tuple[Tensor, Tensor] | Model,
    texts: Sequence[Any] | None = None,
    name: str | None = None,
    *,
    width: int,
    kind: str = "topk",
    k: int = 16,
    transcoder: bool = False,
    source: Sequence[str] | Tensor | None = None,
    samples: int | None = None,
    batch: int = 1024,
    lr: float = 2e-3,
    sparsity: float | None = None,
    bandwidth: float = 0.05,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> SparseAutoencoder | Transcoder:
    """Learn a sparse autoencoder of an activation, or a transcoder of an MLP.

    Activations are centred and scaled while learning, so that lr and sparsity mean the same everywhere; the dictionary
    that is returned reads and writes them as they are. Features that have not fired for a while begin anew in the
    direction of what is missed most (after Bricken et al. 2023), in the first 70 % of the steps.

    Args:
        data: activations (…, C), also memory-mapped ones of a recording on disk; for a transcoder a pair of what is
            read and what is to be written; or a model.
        texts: with a model, what it reads.
        name: with a model, the activation; for a transcoder the MLP, "layers.{i}.mlp".
        width: features, W.
        kind: "topk", "jumprelu" or "l1", as in `FeaturesConfig`.
        k: active features of each row, of "topk".
        transcoder: whether an MLP is learned.
        source: with an encoder–decoder, what it reads with each text.
        samples: rows to learn from, the same ones several times if they are more than there are; None: 400 steps, or
            once through all if that is more.
        batch: rows of a step, B.
        lr: of Adam (Kingma & Ba 2015), warmed up over a twentieth of the steps, and let down over the last fifth.
        sparsity: cost of activity beside the share of variance missed: of "l1" per summed activation, of "jumprelu" per
            active feature, both where centred activations have a mean square length of 1; None takes 0.1 or 0.01.
        bandwidth: in which a threshold of "jumprelu" learns, in the same unit.
        seed: of the first directions, the order of the rows and of what begins anew.
        progress: told how many steps are done, with the share of variance missed.

    Returns:
        The dictionary; `.run` tells how the training went.

    Raises:
        ConfigError: an option out of range, a transcoder of a network that is no decoder, or data that do not fit.
        InputError: no activations, or fewer rows than a step needs.
        NonFinite: activations that are not finite, or a training that ran away.
    """
    x, y = _rows_of(data, texts, name, transcoder, source)
    _check(x, y, width, batch, lr, sparsity, bandwidth)
    transcoder = y is not x
    config = FeaturesConfig(x.shape[1], y.shape[1], width, kind, k if kind == "topk" else 0, transcoder, name or "")
    generator = torch.Generator().manual_seed(seed)
    steps = math.ceil((samples or max(len(x), 400 * batch)) / batch)
    units = _Units.of(x, y)
    features = features_of(config)
    features.reset_parameters(generator)
    with torch.no_grad(), sparse_in_beta():
        cost = SPARSITY[config.kind] if sparsity is None else sparsity
        learned, run = _learn(features, x, y, units, steps, batch, lr, cost, bandwidth, generator, progress)
        units.give_back(features, learned)
    features.run = run
    return features


@dataclass(frozen=True)
class _Units:
    """What activations are divided by while learning, so that centred ones have a mean square length of 1."""

    reads: float
    writes: float
    start: Tensor  # (O,) the mean of what is written, in units

    @staticmethod
    def of(x: Tensor, y: Tensor) -> _Units:
        few = torch.linspace(0, len(x) - 1, min(len(x), 16384)).long()
        some, other = x[few].double(), y[few].double()
        if not (some.isfinite().all() and other.isfinite().all()):
            raise NonFinite("the activations hold a NaN or an infinity; record finds the place where it begins")
        reads, writes = (float((v - v.mean(0)).square().sum(1).mean().sqrt()) for v in (some, other))
        if not reads or not writes:
            raise InputError("all activations are the same: there are no features in them")
        return _Units(reads, writes, (other.mean(0) / writes).float())

    def give_back(self, features: Features, learned: Parameters) -> None:
        """Put what was learned into the dictionary, in the activations' own units."""
        values = learned.values
        features.encoder.copy_(values["encoder"] * (self.writes / self.reads))
        features.decoder.copy_(values["decoder"])
        features.encoder_bias.copy_(values["encoder_bias"] * self.writes)
        features.bias.copy_(values["bias"] * self.writes)
        if "log_threshold" in values:
            features.threshold.copy_(values["log_threshold"].exp() * self.writes)


def _learn(
    features: Features,
    x: Tensor,
    y: Tensor,
    units: _Units,
    steps: int,
    batch: int,
    lr: float,
    sparsity: float,
    bandwidth: float,
    generator: torch.Generator,
    progress: OnProgress | None,
) -> tuple[Parameters, FeaturesRun]:
    started = time.perf_counter()
    learned = Parameters(features.config)
    learned.load(features)
    learned.values["bias"].copy_(units.start)
    if "log_threshold" in learned.values:
        learned.values["log_threshold"].fill_(math.log(bandwidth))
    directions, slopes = learned.values["decoder"], learned.grads["decoder"]
    last_fired = torch.zeros(features.config.width, dtype=torch.int64)
    interval = max(steps // EVERY, 20)
    resampled, unexplained, active = 0, float("nan"), float("nan")
    for step, rows in zip(range(steps), _order(len(x), batch, generator), strict=False):
        read = x.index_select(0, rows).float() / units.reads
        written = read if y is x else y.index_select(0, rows).float() / units.writes
        report = step_gradients(learned, read, written, sparsity, bandwidth)
        # along itself a direction of length 1 cannot move
        slopes -= directions * (slopes * directions).sum(1, keepdim=True)
        learned.step(lr * _schedule(step, steps), step + 1)
        directions /= directions.norm(dim=1, keepdim=True)
        last_fired[report.fired] = step
        if (step + 1) % interval == 0 and step < 0.7 * steps:
            dead = (step - last_fired >= interval).nonzero().flatten()
            if len(dead):
                _begin_anew(learned, dead, read, report.error, generator)
                last_fired[dead] = step
                resampled += len(dead)
        if step % REPORT == 0 or step == steps - 1:
            unexplained, active = float(report.error.square().sum(1).mean()), report.active / len(rows)
            if not math.isfinite(unexplained):
                raise NonFinite(f"the training ran away at step {step}: lower lr ({lr}), or look for huge activations")
            if progress is not None:
                figures = {"unexplained": f"{unexplained:.4f}", "active": f"{active:.1f}", "begun anew": resampled}
                progress(Progress("learning", step + 1, steps, "steps", figures))
    return learned, FeaturesRun(steps, steps * batch, unexplained, active, resampled, time.perf_counter() - started)


def _schedule(step: int, steps: int) -> float:
    """Up over a twentieth of the steps, down over the last fifth."""
    return min(1.0, (step + 1) / max(1, steps // 20), (steps - step) / max(1, steps // 5))


def _order(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of each step: all of them in an order that is drawn anew each time round."""
    order = torch.randperm(count, generator=generator)
    while True:
        while len(order) < batch:
            order = torch.cat((order, torch.randperm(count, generator=generator)))
        yield order[:batch]
        order = order[batch:]


def _begin_anew(
    learned: Parameters,
    dead: Tensor,
    x: Float[Tensor, "B C"],
    error: Float[Tensor, "B O"],
    generator: torch.Generator,
) -> None:
    """Features that never fire get the directions of errors, drawn by their squared length."""
    size = error.square().sum(1)
    chosen = torch.multinomial(size, len(dead), replacement=len(dead) > len(size), generator=generator)
    direction = -error[chosen]
    direction = direction / direction.norm(dim=1, keepdim=True).clamp_min(1e-12)
    reading = direction
    if learned.config.transcoder:
        reading = x[chosen] - x.mean(0)
        reading = reading / reading.norm(dim=1, keepdim=True).clamp_min(1e-12)
    alive = torch.ones(len(learned.values["encoder"]), dtype=torch.bool)
    alive[dead] = False
    usual = learned.values["encoder"][alive].norm(dim=1).mean() if alive.any() else torch.tensor(1.0)
    learned.values["decoder"][dead] = direction
    learned.values["encoder"][dead] = reading * usual
    learned.values["encoder_bias"][dead] = 0.0
    for state in (learned.mean, learned.square):
        for name in ("decoder", "encoder", "encoder_bias"):
            learned.of(state, name)[dead] = 0.0


def _rows_of(
    data: Tensor | tuple[Tensor, Tensor] | Model,
    texts: Sequence[Any] | None,
    name: str | None,
    transcoder: bool,
    source: Sequence[str] | Tensor | None,
) -> tuple[Tensor, Tensor]:
    """What is read and what is to be written, (N, C) and (N, O); of an autoencoder one and the same tensor."""
    if isinstance(data, Model):
        if texts is None or name is None:
            raise ConfigError("with a model, give the texts that it reads and the name of the activation")
        if transcoder:
            return mlp_samples(data, texts, mlp_layer(data, name))[1:]
        found = samples_of(data, texts, [name], source=source).values
        if len(found) != 1:
            raise ConfigError(f"{name!r} names {len(found)} activations; a dictionary is learned from one")
        (rows,) = found.values()
        return rows, rows
    if isinstance(data, tuple):
        if not transcoder:
            raise ConfigError("a pair of activations is for a transcoder; set transcoder=True, or give one tensor")
        x, y = (part.flatten(0, -2).cpu() for part in data)
        if len(x) != len(y):
            raise ConfigError(f"a transcoder learns from pairs of rows, but {len(x)} and {len(y)} were given")
        return x, y
    if transcoder:
        raise ConfigError("a transcoder learns from a pair: what the MLP reads, and what it writes")
    if data.ndim < 2:
        raise ConfigError(f"activations are (…, C), but {data.ndim} dimensions were given")
    rows = data.flatten(0, -2).cpu()
    return rows, rows


def _check(x: Tensor, y: Tensor, width: int, batch: int, lr: float, sparsity: float | None, bandwidth: float) -> None:
    if not x.is_floating_point() or not y.is_floating_point():
        raise ConfigError("activations are floating-point numbers; were ids given?")
    if len(x) < 2:
        raise InputError(f"{len(x)} rows are too few to learn from")
    if batch < 1 or width < 1:
        raise ConfigError(f"batch and width must be at least 1, but {batch} and {width} were given")
    if lr <= 0 or bandwidth <= 0 or (sparsity is not None and sparsity < 0):
        raise ConfigError("lr and bandwidth must be above 0, and sparsity not below")
