"""Concept erasure: the smallest change after which no linear reader finds a concept (LEACE, Belrose et al. 2023).

Shapes: N rows, C channels, Z what is erased (a class or a number each).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.probes.fit import explained, fit_classes, fit_numbers, share_right, split_texts
from cutaway.interp.probes.linear import each_token, labelled
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Cell, Panel, Table
from cutaway.interp.samples import samples_of
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress


@dataclass(frozen=True)
class Eraser:
    """An edit that takes a concept out of an activation: x - (x - mean) Pᵀ.

    It is a function from (…, C) to (…, C), for `record`, `replace` and wherever edits go; the heads of a (B, heads, T,
    D) activation are read side by side, as they were fitted.

    Attributes:
        mean: (C,) of the activations that it was fitted on.
        projection: (C, C), which projects, in general not orthogonally; its rank is at most Z.
    """

    mean: Float[Tensor, " C"]
    projection: Float[Tensor, "C C"]

    @property
    def rank(self) -> int:
        """How many directions are erased."""
        return round(float(self.projection.trace()))  # of a projection

    def __call__(self, x: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
        """What is left of activations."""
        headed = x.ndim == 4
        flat = x.transpose(1, 2).flatten(2) if headed else x
        if flat.shape[-1] != len(self.mean):
            raise ConfigError(f"this eraser was fitted on {len(self.mean)} channels, but {flat.shape[-1]} came")
        moved = (flat.to(self.mean) - self.mean) @ self.projection.T
        flat = flat - moved.to(flat)
        return flat.unflatten(2, (x.shape[1], x.shape[3])).transpose(1, 2) if headed else flat


def fit_eraser(activations: Float[Tensor, "N C"], labels: Tensor) -> Eraser:
    """The least-squares eraser in closed form.

    With S the covariance of the activations, W = S^(-1/2) (a pseudo-inverse) and D their covariance with the labels,
    the projection is W⁺ Q W, where Q projects orthogonally on the columns of W D (Belrose et al. 2023, theorem 4.3).
    Afterwards the covariance with the labels is zero, so that no linear reader, trained with any convex loss, does
    better than one that reads nothing; and of all affine maps of which this holds it moves the activations least, in
    mean square, in every norm x ↦ xᵀMx.

    Args:
        activations: a row for each label.
        labels: (N,) whole numbers, classes; or floats, (N,) or (N, Z), numbers.

    Raises:
        InputError: not as many labels as rows, or fewer than two rows.
    """
    if len(activations) != len(labels) or len(labels) < 2:
        raise InputError(f"{len(activations)} rows with {len(labels)} labels were given; give one each, at least two")
    x = activations.double()
    z = labels.double() if labels.is_floating_point() else F.one_hot(labels).double()
    z = z[:, None] if z.ndim == 1 else z
    mean = x.mean(0)
    x, z = x - mean, z - z.mean(0)
    sizes, axes = torch.linalg.eigh(x.T @ x / len(x))
    kept = sizes > sizes.max() * len(mean) * torch.finfo(torch.float64).eps
    sizes, axes = sizes[kept], axes[:, kept]
    whiten, back = axes * sizes.rsqrt() @ axes.T, axes * sizes.sqrt() @ axes.T
    told, strength, _ = torch.linalg.svd(whiten @ (x.T @ z / len(x)), full_matrices=False)
    # classes sum to one, so that one of their directions is always rounding; a correlation of 1e-9 is none
    told = told[:, strength > 1e-9]
    projection = back @ told @ told.T @ whiten
    dtype = activations.dtype if activations.dtype == torch.float64 else torch.float32
    return Eraser(mean.to(dtype), projection.to(dtype))


@dataclass(frozen=True)
class Erased(Panel):
    """What `erase` found.

    Attributes:
        edits: name -> the eraser there: pass them to `replace`, or to anything that takes edits.
    """

    edits: Mapping[str, Eraser] = field(kw_only=True, repr=False, compare=False)


def erase(
    model: Model,
    texts: Sequence[Any],
    labels: Sequence[Any] | Tensor,
    names: str | Sequence[str],
    *,
    source: Sequence[str] | Tensor | None = None,
    position: int = -1,
    held_out: float = 0.3,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Erased:
    """Erase a concept from activations, and show that a probe no longer finds it there.

    With several names the erasers are fitted one after the other in the order of computation, each on what is left
    after those before it (concept scrubbing, Belrose et al. 2023, section 5).

    Args:
        model: of any kind.
        texts: texts, or ids of each.
        labels: as in `probe`: the concept.
        names: activation names or patterns, such as "layers.*.resid_post".
        source: what an encoder–decoder reads, one for each text.
        position: with a label per text, the token that the eraser is fitted on; applied it works on every token.
        held_out: share of the texts on which probes are scored before and after.
        seed: of the split.
        progress: told of the work.

    Returns:
        A table of probes before and after and of the share of variance that was moved, with the edits.

    Raises:
        InputError: as in `probe`.
        ConfigError: as in `samples_of`.
    """
    labels = labels.tolist() if isinstance(labels, Tensor) else labels
    if isinstance(texts, str) or len(texts) != len(labels) or len(texts) < 2:
        raise InputError("give a list of at least two texts and as many labels")
    per_token = each_token(labels)
    options = {"labels": labels, "names": names, "source": source, "position": position, "seed": seed}
    clock = Clock(model, "erase", list(texts), **options)
    where: dict[str, Any] = {"source": source, "position": None if per_token else position}
    plain = samples_of(model, texts, names, **where)
    chosen, y, classes = labelled(plain, labels, per_token, model)
    out = split_texts(plain.texts[chosen], held_out, torch.Generator().manual_seed(seed))
    edits: dict[str, Eraser] = {}
    rows: list[list[Cell]] = []
    for name, before in plain.values.items():
        x = before[chosen]
        left = samples_of(model, texts, [name], edits=edits, **where).values[name][chosen] if edits else x
        edits[name] = eraser = fit_eraser(left[~out], y[~out])
        after = eraser(left)
        moved = (after.double() - left.double()).square().sum() / (left.double() - eraser.mean).square().sum()
        rows.append([name, _read(x, y, out, classes), _read(after, y, out, classes), eraser.rank, float(moved)])
        if progress is not None:
            progress(Progress("erasing", len(rows), len(plain.values), "activations"))
    baseline = float(torch.bincount(y[~out]).argmax().eq(y[out]).double().mean()) if classes else 0.0
    heads = ["activation", "probe before", "probe after", "directions", "share of variance moved"]
    receipt = clock.receipt(bytes=sum(v.numel() * v.element_size() for v in plain.values.values()), seed=seed)
    notes = [
        f"A reader that always says the commonest label is right {baseline:.0%} of the time."
        if classes
        else "A reader that always says the mean has R² 0.",
        "What is gone is what linear readers find; a nonlinear one may still find the concept, and what later layers "
        "make of other information is not undone unless they are erased too.",
    ]
    table = Table("Probes before and after erasing, on held-out texts", heads, rows, receipt=receipt)
    figures = {"before": float(rows[-1][1] or 0), "after": float(rows[-1][2] or 0), "baseline": baseline}
    return Erased("A concept erased", {"numbers": table}, notes, figures, edits=edits, receipt=receipt)


def _read(x: Tensor, y: Tensor, out: Tensor, classes: list[Any]) -> float:
    """The score of a probe on held-out rows."""
    x = x.double()
    if classes:
        return share_right(fit_classes(x[~out], y[~out], len(classes)), x[out], y[out])
    return explained(fit_numbers(x[~out], y[~out]), x[out], y[out])
