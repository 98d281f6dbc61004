"""Activation patching: what becomes of an answer when numbers of one run are put into another.

Patching was called interchange intervention by Geiger et al. 2021 (https://arxiv.org/abs/2106.02997) and causal tracing
by Meng et al. 2022 (https://arxiv.org/abs/2202.05262); how to read it is in Heimersheim and Nanda 2024
(https://arxiv.org/abs/2404.15255).

Shapes: B texts, H heads, T tokens, N patched runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.inputs import Inputs, Text
from cutaway.interp.patching.pairs import EXACT, Align, Pair, pairs_of
from cutaway.interp.patching.rerun import Patch, Put, Rerun, asked
from cutaway.interp.patching.site import Site, Sites, names_of, sites_of, token_axis
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, record
from cutaway.interp.results import Table
from cutaway.interp.target import Quantity, Target, target_of
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress

Values = Literal["clean", "zero", "mean", "resample"]
VALUES = ("clean", "zero", "mean", "resample")


@dataclass(frozen=True)
class Patched(Table):
    """What each patch does to the target; `recovered` and `change` hold the numbers of the table's rows.

    Attributes:
        sites: of each row, what was patched together.
        recovered: (N,) float64 of the way from the corrupt run to the clean one: 0 none, 1 all.
        change: (N,) float64 by how much the target changes.
        clean: the target in the clean run, on average over texts.
        corrupt: in the corrupt run.
        target: which number it is.
    """

    sites: list[tuple[Site, ...]] = field(kw_only=True)
    recovered: Float64[Tensor, " N"] = field(kw_only=True)
    change: Float64[Tensor, " N"] = field(kw_only=True)
    clean: float = field(kw_only=True)
    corrupt: float = field(kw_only=True)
    target: str = field(kw_only=True)


@dataclass(frozen=True)
class Study:
    """Pairs of runs with the target's number in each, and what patches make of it.

    Attributes:
        pairs: clean and corrupt.
        reruns: of each corrupt run.
        target: which number.
        clean: (B,) float64 of each clean run.
        corrupt: (B,) float64 of each corrupt run.
    """

    pairs: list[Pair]
    reruns: list[Rerun]
    target: Target
    clean: Float64[Tensor, " B"]
    corrupt: Float64[Tensor, " B"]

    def change(self, patched: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
        """By how much the target changes, on average over texts."""
        return patched - self.corrupt.mean()

    def recovered(self, patched: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
        """Which part of the way from corrupt to clean a number has gone, on average over texts.

        Raises:
            InputError: the two runs have the same number, so there is no way to go.
        """
        way = self.clean.mean() - self.corrupt.mean()
        if float(way.abs()) <= 1e-9 * max(1.0, float(self.clean.abs().mean())):
            raise InputError(
                f"the {self.target.what} is {float(self.clean.mean()):.6g} in the clean and in the corrupt run, so "
                "there is nothing to recover; give other texts, another token, or normalise=False"
            )
        return self.change(patched) / way

    @property
    def difference(self) -> float:
        """How far the clean run's logits are from the corrupt one's, where they have one shape."""
        gaps = [
            float((pair.clean.logits - pair.corrupt.logits).abs().max())
            for pair in self.pairs
            if pair.clean.logits.shape == pair.corrupt.logits.shape
        ]
        return max(gaps, default=0.0)


def study(
    model: Model,
    clean: Recording | Text,
    corrupt: Recording | Text | None,
    *,
    source: Source | Sequence[str] | None = None,
    corrupt_source: Source | Sequence[str] | None = None,
    align: Align = "refuse",
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    names: Sequence[str] = (),
) -> Study:
    """Run what is compared, and settle the target: the clean run's likeliest answer unless another is named.

    Raises:
        ConfigError: there is nothing to compare with.
    """
    other = clean if corrupt is None else corrupt
    pairs = pairs_of(model, clean, other, source=source, corrupt_source=corrupt_source, align=align, names=names)
    first = pairs[0].clean
    chosen = target_of(
        model,
        first.inputs,
        token=token,
        minus=minus,
        position=position,
        quantity=quantity,
        output=first.logits,
    )
    if corrupt is None and corrupt_source is None:
        raise ConfigError(
            "patching compares two runs: give corrupt=, a text of as many tokens that differs in what is asked about "
            "(or of an encoder–decoder corrupt_source=)"
        )
    cleans = torch.tensor([asked(pair.clean, chosen) for pair in pairs], dtype=torch.float64)
    reruns = [Rerun(pair.corrupt, chosen) for pair in pairs]
    corrupts = torch.tensor([rerun.plain for rerun in reruns], dtype=torch.float64)
    return Study(pairs, reruns, chosen, cleans, corrupts)


def run_patches(
    made: Study,
    patches: Sequence[Sequence[Site]],
    values: Sequence[Mapping[str, Tensor]],
    *,
    clean: bool = True,
    batch: int = 0,
    progress: OnProgress | None = None,
) -> Float64[Tensor, " N"]:
    """The target in each patched run, (N,), on average over pairs.

    Args:
        made: what is patched.
        patches: sites of each run.
        values: of each pair, what is put in by name.
        clean: whether they are the clean run's, which is the corrupt one's as long as the texts are the same.
        batch: as in `Rerun`.
        progress: likewise.
    """
    totals = torch.zeros(len(patches), dtype=torch.float64)
    for pair, rerun, given in zip(made.pairs, made.reruns, values, strict=True):
        since = {name: pair.since_of(name) if clean else 0 for name in given}
        puts: list[Patch] = [[Put(site, given[site.name], since[site.name]) for site in patch] for patch in patches]
        totals += rerun(puts, batch=batch, progress=progress)
    return totals / len(made.pairs)


def patch(
    model: Model,
    clean: Recording | Text,
    corrupt: Recording | Text | None = None,
    sites: Sites = "layers.*.resid_pre",
    *,
    source: Source | Sequence[str] | None = None,
    corrupt_source: Source | Sequence[str] | None = None,
    values: Values = "clean",
    texts: Sequence[str] | None = None,
    samples: int = 8,
    align: Align = "refuse",
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    normalise: bool = True,
    batch: int = 0,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Patched:
    """Put numbers of the clean run into the corrupt one, site by site, and say how much of the answer comes back.

    Args:
        model: what runs.
        clean: a text whose answer is wanted, several, or a recorded run.
        corrupt: one beside each that differs in what is asked about; or a recorded run with noise on its embeddings.
        sites: what is patched in one run after another: names or patterns of activations, a `Site` with heads,
            positions or neurons, or sequences of sites that are patched together.
        source: what an encoder–decoder reads.
        corrupt_source: what it reads with the corrupt text; None: the same.
        values: what is put in: "clean", or instead "zero", the "mean" over positions and over texts, or "resample": of
            other texts, on average over samples.
        texts: for mean and resample.
        samples: for resample, how many other texts are drawn.
        align: what to do about texts of unequal length: "refuse", "token" or "pad", as in `pairs_of`.
        token: whose number is asked about, with minus, position and quantity as in `target_of`; None: the clean run's
            likeliest.
        minus: likewise.
        position: likewise.
        quantity: likewise.
        normalise: whether the table states the recovered part too, (patched - corrupt) / (clean - corrupt).
        batch: patched runs at a time; 0: as many as hold about a thousand tokens.
        seed: of what is drawn.
        progress: told how many runs are done.

    Returns:
        A table with a row for each patched run, and the numbers as tensors.

    Raises:
        ConfigError: an activation, a way to align or a kind of values that is not there, or values that need texts.
        InputError: a head, position or neuron that is not there; texts of unequal length; or nothing to recover.
        NonFinite: a patched run computes a NaN or an infinity.
    """
    clock = Clock(
        model, "patch", clean, corrupt=corrupt, sites=sites, values=values, texts=texts, align=align, token=token,
        minus=minus, position=position, quantity=quantity, source=source, corrupt_source=corrupt_source,
    )  # fmt: skip
    patches = sites_of(model, sites)
    made = study(
        model, clean, corrupt, source=source, corrupt_source=corrupt_source, align=align, token=token, minus=minus,
        position=position, quantity=quantity, names=names_of(patches) if values == "clean" else (),
    )  # fmt: skip
    patched = patched_with(made, patches, values, texts, samples, batch, seed, progress)
    change = made.change(patched)
    recovered = made.recovered(patched) if normalise else torch.full_like(change, torch.nan)
    labels = [" and ".join(site.label for site in patch) for patch in patches]
    columns = ["site", *["recovered"] * normalise, "change"]
    rows = [
        [label, *[float(part)] * normalise, float(by)]
        for label, part, by in zip(labels, recovered, change, strict=True)
    ]
    return Patched(
        f"{made.target.what}, with {_said(values)} put into the corrupt run",
        columns,
        rows,  # pyright: ignore[reportArgumentType]
        sites=patches,
        recovered=recovered,
        change=change,
        clean=float(made.clean.mean()),
        corrupt=float(made.corrupt.mean()),
        target=made.target.what,
        receipt=clock.receipt(difference=made.difference, seed=seed if values == "resample" else None),
    )


def _said(values: Values) -> str:
    return {"clean": "clean values", "zero": "zeros", "mean": "means", "resample": "other texts' values"}[values]


def patched_with(
    made: Study,
    patches: Sequence[Sequence[Site]],
    values: Values,
    texts: Sequence[str] | None = None,
    samples: int = 8,
    batch: int = 0,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Float64[Tensor, " N"]:
    """The target in each patched run, whatever kind of values is put in."""
    if values not in VALUES:
        raise ConfigError(unknown("kind of values", str(values), VALUES))
    names = names_of(patches)
    if values == "clean":
        found = [pair.values(names) for pair in made.pairs]
        return run_patches(made, patches, found, batch=batch, progress=progress)
    model = made.pairs[0].model
    if values == "zero":
        zeros: Mapping[str, Tensor] = {name: torch.zeros(()) for name in names}
        return run_patches(made, patches, [zeros] * len(made.pairs), clean=False, batch=batch, progress=progress)
    if not texts:
        raise ConfigError(f"values={values!r} come from other texts: give texts=, several of the kind the model reads")
    if any(name.endswith(EXACT) for name in names):
        raise ConfigError(
            "scores and patterns of texts of unequal lengths have no mean and no sample; give zero or clean"
        )
    reads = [pair.corrupt for pair in made.pairs]
    if values == "mean":
        means = [means_over(model, texts, names, read) for read in reads]
        return run_patches(made, patches, means, clean=False, batch=batch, progress=progress)
    if samples < 1:
        raise InputError(f"samples must be at least 1, but {samples} was given")
    drawn = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(patches), dtype=torch.float64)
    for _ in range(samples):
        others = [_resampled(model, texts, names, read, drawn) for read in reads]
        total += run_patches(made, patches, others, clean=False, batch=batch, progress=progress)
    return total / samples


def means_over(model: Model, texts: Sequence[str], names: Sequence[str], like: Recording) -> dict[str, Tensor]:
    """The mean of each activation over texts and their positions, to be put in at any position: (1, H, 1, D) or so."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for text in texts:
        recording = record(model, _reading(model, text, like), names)
        for name in names:
            axis = token_axis(name, recording[name])
            value = recording[name].double()
            counts[name] = counts.get(name, 0) + (1 if axis is None else value.shape[axis])
            summed = value if axis is None else value.sum(axis, keepdim=True)
            sums[name] = sums[name] + summed if name in sums else summed
    return {name: sums[name] / counts[name] for name in names}


def _resampled(
    model: Model, texts: Sequence[str], names: Sequence[str], like: Recording, drawn: torch.Generator
) -> dict[str, Tensor]:
    """The activations of another text, as long as this one is."""
    length = like.ids.shape[1]
    fitting = [inputs for inputs in (_reading(model, text, like) for text in texts) if inputs.ids.shape[1] >= length]
    if not fitting:
        raise InputError(f"no text has {length} tokens or more to take values from; give longer texts")
    chosen = fitting[int(torch.randint(len(fitting), (1,), generator=drawn))]
    cut = replace(chosen, ids=chosen.ids[:, :length], token_types=like.inputs.token_types)
    return dict(record(model, cut, names))


def _reading(model: Model, text: str, like: Recording) -> Inputs:
    """Another text, beside the same source."""
    return Inputs(model.ids(text), None, like.inputs.source, like.inputs.source_mask)
