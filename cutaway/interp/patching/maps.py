"""The map of what patching brings back, beside what one gradient guesses of it; and one of its sites, looked at alone.

Shapes: R rows, C columns, N sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from cutaway.errors import ConfigError, unknown
from cutaway.interp.check import correlation
from cutaway.interp.inputs import Text, forward
from cutaway.interp.patching.attribution import guesses
from cutaway.interp.patching.pairs import Align
from cutaway.interp.patching.patch import Study, patched_with, study
from cutaway.interp.patching.site import Site
from cutaway.interp.patching.sweep import Sweep, shown_part, sweep_of, swept_names, swept_pair
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.results import Cell, Panel, Table
from cutaway.interp.target import Quantity, at_position, name_of
from cutaway.models import ActiveTap, Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress


@dataclass(frozen=True)
class PatchMap(Panel):
    """`parts` holds "patched" and "estimate", two `Sweep` of the same sites.

    Attributes:
        patched: (R, C) float64 the part of the metric that comes back; NaN where a position has no partner.
        estimate: (R, C) float64 likewise, by the gradient.
    """

    patched: Float64[Tensor, "R C"] = field(kw_only=True)
    estimate: Float64[Tensor, "R C"] = field(kw_only=True)


def patch_map(
    model: Model,
    text: Recording | Text,
    corrupt: Recording | Text | None = None,
    *,
    what: str = "",
    layers: Sequence[int] | None = None,
    stack: Literal["decoder", "encoder"] = "decoder",
    source: Source | Sequence[str] | None = None,
    corrupt_source: Source | Sequence[str] | None = None,
    align: Align = "refuse",
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    progress: OnProgress | None = None,
) -> PatchMap:
    """Patch every site of a sweep, and guess all of them from one gradient: the map beside its estimate.

    It is `patch_sweep` beside `attribution_patching` of the same pair of runs, with how well the guess fits.

    Args:
        model: what runs.
        text: the clean one, as in `patch_sweep`, and so are the others.
        corrupt: as in `patch_sweep`.
        what: as in `patch_sweep`.
        layers: as in `patch_sweep`.
        stack: as in `patch_sweep`.
        source: as in `patch_sweep`.
        corrupt_source: as in `patch_sweep`.
        align: as in `patch_sweep`.
        token: as in `patch_sweep`.
        minus: as in `patch_sweep`.
        position: as in `patch_sweep`.
        quantity: as in `patch_sweep`.
        progress: told how many patched runs are done.

    Returns:
        Both maps; the figures are the metric in both runs, Pearson's correlation of guess and truth over all sites,
        and the largest distance between them, of the way from corrupt to clean. `receipt.gap` is that distance in the
        target's own unit.

    Raises:
        ConfigError: as in `patch_sweep`.
        InputError: as in `patch_sweep`.
    """
    clock = Clock(
        model, "patch_map", text, corrupt=corrupt, what=what, layers=layers, stack=stack, source=source,
        corrupt_source=corrupt_source, align=align, token=token, minus=minus, position=position, quantity=quantity,
    )  # fmt: skip
    made, cells = swept_pair(
        model, text, corrupt, what, layers, stack, source=source, corrupt_source=corrupt_source, align=align,
        token=token, minus=minus, position=position, quantity=quantity,
    )  # fmt: skip
    base = made.corrupt.mean()
    made.recovered(base[None])  # there must be something to recover, before anything takes time
    guess = guesses(made, cells.sites)
    change = made.change(patched_with(made, [(site,) for site in cells.sites], "clean", progress=progress))
    part, clean = shown_part(model, what), float(made.clean.mean())

    def swept(by: Float64[Tensor, " N"], said: str) -> Sweep:
        shown = made.recovered(by + base)
        return sweep_of(made, cells, by, shown, f"{made.target.what}: {said}", "recovered", clock, clean=clean)

    patched = swept(change, f"{part} of the clean run put into the corrupt one")
    estimate = swept(guess, f"what putting {part} of the clean run in would do, by attribution")
    real = patched.values.isfinite()
    far = (patched.values - estimate.values)[real].abs()
    figures = {
        "clean": clean,
        "corrupt": float(base),
        "Pearson correlation": correlation(patched.values[real], estimate.values[real]),
        "largest distance": float(far.max()),
    }
    notes = [
        f"Asked about the {made.target.what}: {clean:.4g} in the clean run, {float(base):.4g} in the corrupt one.",
        "1 is all of the way from the corrupt run to the clean one, 0 none of it; below 0 it leads away.",
    ]
    return PatchMap(
        f"What {part} of the clean run brings back",
        {"patched": patched, "estimate": estimate},
        notes,
        figures,
        patched=patched.values,
        estimate=estimate.values,
        receipt=clock.receipt(difference=made.difference, gap=float(far.max()) * abs(clean - float(base))),
    )


@dataclass(frozen=True)
class PatchedSite(Table):
    """One site patched alone; rows are the likeliest answers in the corrupt, the patched and the clean run.

    Attributes:
        site: what was patched.
        predicted: by the gradient, the change of the target.
        actual: its change.
        recovered: the part of the way from corrupt to clean; None where the two do not differ.
        clean: the target in the clean run.
        corrupt: in the corrupt one.
        patched: in the patched one.
        target: which number it is.
    """

    site: Site = field(kw_only=True)
    predicted: float = field(kw_only=True)
    actual: float = field(kw_only=True)
    recovered: float | None = field(kw_only=True)
    clean: float = field(kw_only=True)
    corrupt: float = field(kw_only=True)
    patched: float = field(kw_only=True)
    target: str = field(kw_only=True)


def patch_site(
    model: Model,
    text: Recording | Text,
    corrupt: Recording | Text | None = None,
    *,
    name: str = "",
    head: int | None = None,
    place: int | None = None,
    neuron: int | None = None,
    source: Source | Sequence[str] | None = None,
    corrupt_source: Source | Sequence[str] | None = None,
    align: Align = "refuse",
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    top: int = 6,
    progress: OnProgress | None = None,
) -> PatchedSite:
    """Patch one site alone: what the gradient predicts, what happens, and what the model then says.

    Args:
        model: what runs.
        text: the clean one, as in `patch`.
        corrupt: as in `patch`.
        name: of the activation; "": the first that `patch_sweep` goes over.
        head: which head; None: all, or there is none.
        place: which token of the corrupt text; None: all.
        neuron: which number of the last axis; None: all.
        source: as in `patch`, and so are the others.
        corrupt_source: as in `patch`.
        align: as in `patch`.
        token: as in `patch`.
        minus: as in `patch`.
        position: as in `patch`.
        quantity: as in `patch`.
        top: how many answers of each run to name.
        progress: told when it is done.

    Raises:
        ConfigError: as in `patch`.
        InputError: as in `patch`.
    """
    clock = Clock(
        model, "patch_site", text, corrupt=corrupt, name=name, head=head, place=place, neuron=neuron, source=source,
        corrupt_source=corrupt_source, align=align, token=token, minus=minus, position=position, quantity=quantity,
        top=top,
    )  # fmt: skip
    site = Site(name or swept_names(model)[0], head, place, neuron)
    if site.name not in model.network.tap_names():
        raise ConfigError(unknown("activation", site.name, model.network.tap_names()))
    made = study(
        model, text, corrupt, source=source, corrupt_source=corrupt_source, align=align, token=token, minus=minus,
        position=position, quantity=quantity, names=[site.name],
    )  # fmt: skip
    predicted = float(guesses(made, [site])[0])
    actual = float(made.change(patched_with(made, [(site,)], "clean"))[0])
    clean, base = float(made.clean.mean()), float(made.corrupt.mean())
    way = clean - base
    if progress is not None:
        progress(Progress("patching", 1, 1, "runs"))
    return PatchedSite(
        f"the likeliest answers, with {site.label} of the clean run in the corrupt one",
        ["corrupt", "", "patched", " ", "clean", "  "],
        _answers(made, site, top),
        site=site,
        predicted=predicted,
        actual=actual,
        recovered=actual / way if abs(way) > 1e-9 * max(1.0, abs(clean)) else None,
        clean=clean,
        corrupt=base,
        patched=base + actual,
        target=made.target.what,
        receipt=clock.receipt(difference=made.difference, gap=abs(predicted - actual)),
    )


@torch.no_grad()
def _answers(made: Study, site: Site, top: int) -> list[list[Cell]]:
    """Answers and their numbers in the corrupt, the patched and the clean run of the first pair."""
    pair, model = made.pairs[0], made.pairs[0].model
    value = pair.values([site.name])[site.name]

    def edit(x: Tensor) -> Tensor:
        changed, at = x.clone(), site.index(x.shape[1:])
        changed[0][at] = value[0][at].to(x)
        return changed

    edits = {**pair.corrupt.edits, site.name: edit}
    patched = forward(model, pair.corrupt.inputs, ActiveTap(edits=edits)).float()
    words = getattr(model.config, "head", "causal_lm") in ("causal_lm", "masked_lm", "sequence_classification")
    columns = []
    for run, output in ((pair.corrupt, pair.corrupt.logits), (pair.corrupt, patched), (pair.clean, pair.clean.logits)):
        place = made.target.position
        row = (output[0] if place is None else at_position(output, run.inputs, place)[0]).reshape(-1)
        values, ids = (row.softmax(-1) if words else row).topk(min(top, len(row)))
        columns.append([(name_of(model, i), v) for i, v in zip(ids.tolist(), values.tolist(), strict=True)])
    return [[cell for answer in line for cell in answer] for line in zip(*columns, strict=True)]
