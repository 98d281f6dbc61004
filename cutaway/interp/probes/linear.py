"""Linear and sparse probes of each layer, beside the controls without which their numbers say little.

Shapes: N rows, C channels, K classes, O numbers asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.claims import Claim, Claims
from cutaway.interp.inputs import Inputs, inputs_of
from cutaway.interp.probes.controls import control_labels, untrained_copy
from cutaway.interp.probes.fit import (
    Fit,
    best_channels,
    explained,
    fit_classes,
    fit_numbers,
    interval,
    resampled,
    share_right,
    split_texts,
)
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Edit
from cutaway.interp.results import Cell, Curve, Panel, Table
from cutaway.interp.samples import Samples, samples_of, streams_of
from cutaway.interp.target import target_of
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress

COLUMNS = ["activation", "held out", "low", "high", "training", "control", "selectivity", "untrained"]


@dataclass(frozen=True)
class Probed(Panel):
    """What `probe` found.

    Attributes:
        fits: name -> the probe of that activation, which takes (N, C) activations.
        classes: what the probe's columns mean; empty where numbers were asked for.
        channels: (name, k) -> the channels of the sparse probe with k of them, best first.
    """

    fits: Mapping[str, Fit] = field(kw_only=True, repr=False, compare=False)
    classes: list[Any] = field(kw_only=True)
    channels: Mapping[tuple[str, int], list[int]] = field(kw_only=True)


def probe(
    model: Model,
    texts: Sequence[Any],
    labels: Sequence[Any] | Tensor,
    *,
    names: str | Sequence[str] | None = None,
    source: Sequence[str] | Tensor | None = None,
    position: int = -1,
    held_out: float = 0.3,
    penalty: float = 1.0,
    sparse: Sequence[int] = (),
    untrained: bool = True,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Probed:
    """What can be read out of activations with one linear map, layer by layer (Alain & Bengio 2016).

    Probes learn from one part of the texts and are scored on the others. Beside each stand two controls. A **control
    task** (Hewitt & Liang 2019) has the same activations but a random label for each token type, the same wherever the
    token stands: what the probe scores there it owes to its own memory, and *selectivity* is what is left above it.
    An **untrained copy** shows what the tokens and the shape of the network bring along without any learning.

    Args:
        model: of any kind.
        texts: texts, or ids of each.
        labels: one for each text, or for each text a list with one for each token (None: no row). Texts and whole
            numbers are classes; floats are numbers to predict.
        names: activations to probe; None takes the stream after each layer.
        source: what an encoder–decoder reads, one for each text.
        position: with a label per text, of which token; -1 is the last.
        held_out: share of the texts that scores the probes.
        penalty: of the squared weights, on standardised channels, as `fit_classes` has it.
        sparse: sizes of sparse probes, which read the k best channels alone (Gurnee et al. 2023).
        untrained: whether to probe an untrained copy too, which takes a network's memory once more.
        seed: of the split, the control labels and the untrained copy.
        progress: told of the work.

    Returns:
        A panel of a curve over the activations and a table with 95 % intervals, with the probes themselves.

    Raises:
        InputError: labels that do not fit the texts or the tokens, fewer than two texts or classes, or numbers that
            are not finite.
        ConfigError: as in `samples_of`, or an option out of range.
    """
    labels = labels.tolist() if isinstance(labels, Tensor) else labels
    _check(texts, labels, held_out, penalty, sparse)
    names = streams_of(model) if names is None else names
    per_token = each_token(labels)
    clock = Clock(
        model, "probe", list(texts), labels=labels, names=names, source=source, sparse=list(sparse) or None,
        position=None if per_token else position, seed=seed,
    )  # fmt: skip
    where: dict[str, Any] = {"source": source, "position": None if per_token else position}
    samples = samples_of(model, texts, names, **where, progress=progress)
    chosen, y, classes = labelled(samples, labels, per_token, model)
    generator = torch.Generator().manual_seed(seed)
    texts_of = samples.texts[chosen]
    out = split_texts(texts_of, held_out, generator)
    if classes and len(y[~out].unique()) < 2:
        raise InputError("the texts that train the probe hold one class only; give more texts, or another seed")
    types, kind = _types(samples, chosen, per_token)
    control = control_labels(y, types, generator)
    fresh = None
    if untrained:
        fresh = samples_of(untrained_copy(model, seed=seed), texts, names, **where)
    rows: list[list[Cell]] = []
    sparse_rows: list[list[Cell]] = []
    fits: dict[str, Fit] = {}
    channels: dict[tuple[str, int], list[int]] = {}
    for done, (name, value) in enumerate(samples.values.items()):
        x = value[chosen].double()
        fit, score, training = _scored(x, y, out, len(classes), penalty)
        low, high = interval(score, int(out.sum())) if classes else resampled(fit, x[out], y[out], generator)
        _, by_memory, _ = _scored(x, control, out, len(classes), penalty)
        bare = None
        if fresh is not None:
            bare = _scored(fresh.values[name][chosen].double(), y, out, len(classes), penalty)[1]
        fits[name] = fit
        rows.append([name, score, low, high, training, by_memory, score - by_memory, bare])
        for k in sparse:
            best = best_channels(x[~out], y[~out], k)
            channels[name, k] = best.tolist()
            _, few, _ = _scored(x[:, best], y, out, len(classes), penalty)
            sparse_rows.append([name, k, few, ", ".join(map(str, best.tolist()[:8]))])
        if progress is not None:
            progress(Progress("probing", done + 1, len(samples.values), "activations"))
    means = {name: value[chosen].double().mean(0) for name, value in samples.values.items()}
    text, reads = texts[0], None if source is None else source[:1]

    def claims() -> Claims:
        inputs = inputs_of(model, [text], reads)
        return _suggested(model, inputs, fits, means, {str(row[0]): float(row[6] or 0.0) for row in rows})

    return _panel(clock, samples, rows, sparse_rows, fits, channels, classes, y, out, kind, seed, claims)


def each_token(labels: Sequence[Any]) -> bool:
    """Whether labels are given for each token of each text."""
    return not isinstance(labels[0], str) and isinstance(labels[0], Sequence | Tensor)


def _scored(x: Tensor, y: Tensor, out: Tensor, classes: int, penalty: float) -> tuple[Fit, float, float]:
    """A probe with its score on what was held out and on what it learned from."""
    if classes:
        fit = fit_classes(x[~out], y[~out], classes, penalty)
        return fit, share_right(fit, x[out], y[out]), share_right(fit, x[~out], y[~out])
    fit = fit_numbers(x[~out], y[~out], penalty)
    return fit, explained(fit, x[out], y[out]), explained(fit, x[~out], y[~out])


def _check(texts: Sequence[Any], labels: Sequence[Any], held_out: float, penalty: float, sparse: Sequence[int]) -> None:
    if isinstance(texts, str) or isinstance(labels, str) or len(texts) != len(labels):
        raise InputError(
            "give a list of texts and as many labels, but "
            f"{'one text' if isinstance(texts, str) else len(texts)} and "
            f"{'one label' if isinstance(labels, str) else len(labels)} came"
        )
    if len(texts) < 2:
        raise InputError("a probe is scored on texts that it did not learn from: give at least two")
    if not 0 < held_out < 1:
        raise ConfigError(f"held_out is a share of the texts between 0 and 1, but {held_out} was given")
    if penalty <= 0:
        raise ConfigError(f"penalty must be above 0, but {penalty} was given")
    if any(k < 1 for k in sparse):
        raise ConfigError(f"sparse holds numbers of channels, at least 1 each, but {list(sparse)} was given")


def labelled(
    samples: Samples, labels: Sequence[Any], per_token: bool, model: Model
) -> tuple[Tensor, Tensor, list[Any]]:
    """Which rows have a label; their labels as classes (N,) or numbers (N, O); and what the classes are."""
    if per_token:
        lengths = torch.bincount(samples.texts, minlength=len(labels)).tolist()
        for i, (given, length) in enumerate(zip(labels, lengths, strict=True)):
            if len(given) != length:
                shown = "".join(model.tokenizer.token(t) for t in samples.ids[samples.texts == i].tolist()[:8])
                raise InputError(f"text {i} ({shown!r} …) has {length} tokens, but {len(given)} labels came")
        flat: list[Any] = [
            label for given in labels for label in (given.tolist() if isinstance(given, Tensor) else given)
        ]
    else:
        flat = [label.item() if isinstance(label, Tensor) else label for label in labels]
    chosen = torch.tensor([i for i, label in enumerate(flat) if label is not None], dtype=torch.int64)
    flat = [label for label in flat if label is not None]
    if len(flat) < 2:
        raise InputError("there are fewer than two labels")
    if all(isinstance(label, float) for label in flat):
        y = torch.tensor(flat, dtype=torch.float64)[:, None]
        if not y.isfinite().all():
            raise InputError("labels that are numbers must be finite")
        return chosen, y, []
    if any(isinstance(label, float) for label in flat):
        raise InputError("labels are classes (texts or whole numbers) or floats to predict, but both were given")
    classes = sorted(set(flat), key=lambda label: (str(type(label)), label))
    if len(classes) < 2:
        raise InputError(f"all labels are {classes[0]!r}: there is nothing to tell apart")
    numbers = {label: i for i, label in enumerate(classes)}
    return chosen, torch.tensor([numbers[label] for label in flat]), classes


def _types(samples: Samples, chosen: Tensor, per_token: bool) -> tuple[Tensor, str]:
    """What the control task gives one label each: tokens, or whole texts where all have the same token there."""
    ids = samples.ids[chosen]
    if per_token or len(ids.unique()) > 1:
        return ids, "token"
    return samples.texts[chosen], "text"


def _panel(
    clock: Clock,
    samples: Samples,
    rows: list[list[Cell]],
    sparse_rows: list[list[Cell]],
    fits: dict[str, Fit],
    channels: dict[tuple[str, int], list[int]],
    classes: list[Any],
    y: Tensor,
    out: Tensor,
    kind: str,
    seed: int,
    claims: Callable[[], Claims],
) -> Probed:
    score = "share of labels right" if classes else "R², the share of variance predicted"
    baseline = float(torch.bincount(y[~out]).argmax().eq(y[out]).double().mean()) if classes else 0.0

    def line(column: str) -> list[float | None]:
        return [row[COLUMNS.index(column)] for row in rows]  # pyright: ignore[reportReturnType]

    best = max(range(len(rows)), key=lambda i: line("held out")[i] or 0.0)
    size = sum(value.numel() * value.element_size() for value in samples.values.values())
    receipt = clock.receipt(bytes=size, seed=seed)
    lines = {name: line(name) for name in ("held out", "control")}
    if rows[0][-1] is not None:
        lines["untrained"] = line("untrained")
    lines["commonest" if classes else "mean"] = [baseline] * len(rows)
    at = [float(i) for i in range(len(rows))]
    parts: dict[str, Any] = {
        "by activation": Curve("Probes on held-out texts", "activation", score, at, lines, receipt=receipt),
        "numbers": Table(f"Probes: {score}", COLUMNS, rows, receipt=receipt),
    }
    if sparse_rows:
        heads = ["activation", "channels", "held out", "which"]
        parts["sparse"] = Table(f"Sparse probes: {score}", heads, sparse_rows, receipt=receipt)
    notes = [
        f"{int((~out).sum())} rows trained each probe and {int(out.sum())} scored it; no text is on both sides.",
        f"The control task gives each {kind} a random label, the same wherever it stands; selectivity is the score "
        "above it. A score without selectivity is the probe's memory, not the model's knowledge.",
        "That something can be read out does not say that the model uses it: erase or interchange it and see.",
    ]
    if kind == "text":
        notes.append("All texts end in the same token, so labels of the control go by text: held out, it is chance.")
    figures = {
        "best": float(rows[best][1] or 0.0),
        "selectivity": float(rows[best][6] or 0.0),
        "baseline": baseline,
    } | ({} if rows[best][7] is None else {"untrained": float(rows[best][7] or 0.0)})
    title = f"What a linear probe reads; best at {rows[best][0]}"
    return Probed(
        title, parts, notes, figures, fits=fits, classes=classes, channels=channels, receipt=receipt, claims=claims
    )


def _suggested(
    model: Model, inputs: Inputs, fits: Mapping[str, Fit], means: Mapping[str, Tensor], selectivity: Mapping[str, float]
) -> Claims:
    """That the model uses what is read: without a probe's directions the answer to the first text changes."""
    made = tuple(
        Claim(name, selectivity[name], {name: without_directions(fit.weight, means[name])})
        for name, fit in fits.items()
    )
    ablation = "an activation loses the directions that its probe reads, at every token"
    return Claims(model, inputs, target_of(model, inputs), made, ablation, "selectivity", signed=False)


def without_directions(directions: Float[Tensor, "C K"], mean: Float[Tensor, " C"]) -> Edit:
    """An edit after which nothing along some directions differs from the mean."""
    lengths = directions.norm(dim=0)
    basis, sizes, _ = torch.linalg.svd(directions / lengths.clamp_min(1e-30), full_matrices=False)
    basis = basis[:, sizes > 1e-6]  # the columns of classes sum to zero, so one of them is none of its own

    def edit(x: Tensor) -> Tensor:
        flat = x.transpose(1, 2).flatten(2) if x.ndim == 4 else x
        left = flat - ((flat.to(mean) - mean) @ basis @ basis.T).to(flat)
        return left.unflatten(2, (x.shape[1], x.shape[3])).transpose(1, 2) if x.ndim == 4 else left

    return edit
