"""Sweeps: every layer's part, head, position or neuron patched, one after another, as a matrix.

Shapes: R rows, C columns, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.inputs import Text
from cutaway.interp.patching.pairs import Align
from cutaway.interp.patching.patch import VALUES, Study, Values, patched_with, study
from cutaway.interp.patching.site import Site, heads_at, layers_of, place_of
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.results import Matrix
from cutaway.interp.target import Quantity
from cutaway.models import Model, Recurrent, Seq2Seq
from cutaway.models.model import Source
from cutaway.progress import OnProgress

Axis = Literal["head", "position", "neuron"]
# what -> (activation within a layer, what its columns are)
PARTS: dict[str, tuple[str, Axis]] = {
    "residual": ("resid_pre", "position"),
    "attention": ("attn_out", "position"),
    "mlps": ("mlp_out", "position"),
    "heads": ("attn.z", "head"),
    "head positions": ("attn.z", "position"),
    "neurons": ("mlp.post", "neuron"),
    "cross attention": ("cross_attn_out", "position"),
    "cross heads": ("cross_attn.z", "head"),
    "hidden": ("hidden", "position"),
    "units": ("hidden", "neuron"),
}


@dataclass(frozen=True)
class Grid:
    """The sites of a sweep.

    Attributes:
        rows: their names.
        columns: their names.
        column_axis: what columns are.
        sites: row by row.
    """

    rows: list[str]
    columns: list[str]
    column_axis: str
    sites: list[Site]


@dataclass(frozen=True)
class Sweep(Matrix):
    """What each site of a grid does to the target when it is patched.

    Attributes:
        change: (R, C) float64 by how much the target changes; `values` hold the recovered part, or the change itself.
        clean: the target in the run that values come from, where they come from one.
        corrupt: in the run that is patched.
        sites: row by row.
    """

    change: Float64[Tensor, "R C"] = field(kw_only=True)
    clean: float | None = field(kw_only=True)
    corrupt: float = field(kw_only=True)
    sites: list[Site] = field(kw_only=True)


def grid(
    model: Model,
    like: Recording,
    what: str = "",
    *,
    layers: Sequence[int] | None = None,
    stack: Literal["decoder", "encoder"] = "decoder",
) -> Grid:
    """The sites of a sweep over a model.

    Args:
        model: what is patched.
        like: a run of it, for the tokens.
        what: a name of PARTS; "": the residual stream, or the hidden states of a recurrent model.
        layers: which; None: all.
        stack: which half of an encoder–decoder.

    Raises:
        ConfigError: a part that is not known, or that the model does not have.
        InputError: a layer that is not there.
    """
    names = swept_names(model, what, layers, stack)
    what = shown_part(model, what)
    axis = PARTS[what][1]
    encodes = names[0].startswith("encoder.")
    tokens = like.source_tokens if encodes else like.tokens
    if axis == "position":
        columns = [f"{i} {token}" for i, token in enumerate(tokens)]
    else:
        columns = [
            str(i) for i in range(heads_at(model, names[0]) if axis == "head" else _neurons(model, what, encodes))
        ]
    rows = [f"{'encoder ' * encodes}layer {place_of(model, name).layer}" for name in names]
    options: list[dict[str, Any]] = [{}]
    if what == "head positions":
        options = [{"head": head} for head in range(heads_at(model, names[0]))]
        rows = [f"{row} head {option['head']}" for row in rows for option in options]
    sites = [Site(name, **option, **{axis: i}) for name in names for option in options for i in range(len(columns))]
    return Grid(rows, columns, axis, sites)


def swept_names(
    model: Model, what: str = "", layers: Sequence[int] | None = None, stack: Literal["decoder", "encoder"] = "decoder"
) -> list[str]:
    """The activations of a sweep, one of each layer.

    Raises:
        ConfigError: as in `grid`.
        InputError: as in `grid`.
    """
    what = shown_part(model, what)
    if what not in PARTS:
        raise ConfigError(unknown("part", what, PARTS))
    if stack not in ("decoder", "encoder"):
        raise ConfigError(unknown("stack", str(stack), ["decoder", "encoder"]))
    encodes = stack == "encoder" and isinstance(model.network, Seq2Seq)
    part = PARTS[what][0]
    count, known = layers_of(model, encodes=encodes), model.network.tap_names()
    prefix = "encoder." * encodes
    chosen = [i for i in range(count) if f"{prefix}layers.{i}.{part}" in known]
    if not chosen:
        have = [name for name, (inside, _) in PARTS.items() if f"{prefix}layers.0.{inside}" in known]
        raise ConfigError(f"this model has no {part} to patch; it has {', '.join(have)}")
    if layers is not None:
        if not layers:
            raise InputError("no layer was given; leave layers out to take all of them")
        if wrong := [i for i in layers if not 0 <= i < count]:
            raise InputError(f"there are {count} layers (0 … {count - 1}), but layer {wrong[0]} was given")
        if without := [i for i in layers if i not in chosen]:
            raise ConfigError(f"layer {without[0]} has no {part}, but experts in its place")
        chosen = list(layers)
    return [f"{prefix}layers.{i}.{part}" for i in chosen]


def _neurons(model: Model, what: str, encodes: bool) -> int:
    config: Any = model.config
    if what == "units":
        return config.hidden
    return config.encoder_mlp_width if encodes else config.mlp_width


def patch_sweep(
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
    normalise: bool = True,
    batch: int = 0,
    progress: OnProgress | None = None,
) -> Sweep:
    """Patch every part of every layer from the clean run into the corrupt one, one at a time.

    Args:
        model: what runs.
        text: the clean one, as in `patch`; of several texts the columns name the first's tokens, and numbers are means.
        corrupt: as in `patch`.
        what: "residual" (layers × positions), "attention" or "mlps" (what they write, layers × positions), "heads"
            (layers × heads), "head positions" (each head × positions), "neurons" (layers × neurons); of an
            encoder–decoder also "cross attention" and "cross heads"; of a recurrent model "hidden" (layers × positions)
            and "units" (layers × units). "": residual, or hidden.
        layers: which; None: all.
        stack: which half of an encoder–decoder.
        source: as in `patch`, and so are the others.
        corrupt_source: as in `patch`.
        align: as in `patch`. Positions without a partner have no number.
        token: as in `patch`.
        minus: as in `patch`.
        position: as in `patch`.
        quantity: as in `patch`.
        normalise: whether the matrix holds the recovered part, (patched - corrupt) / (clean - corrupt), or the change.
        batch: as in `patch`.
        progress: as in `patch`.

    Raises:
        ConfigError: a part that the model does not have.
        InputError: as in `patch`.
    """
    clock = Clock(
        model, "patch_sweep", text, corrupt=corrupt, what=what, layers=layers, stack=stack, source=source,
        corrupt_source=corrupt_source, align=align, token=token, minus=minus, position=position, quantity=quantity,
        normalise=normalise,
    )  # fmt: skip
    made, cells = swept_pair(
        model, text, corrupt, what, layers, stack, source=source, corrupt_source=corrupt_source, align=align,
        token=token, minus=minus, position=position, quantity=quantity,
    )  # fmt: skip
    change = made.change(patched_with(made, [(site,) for site in cells.sites], "clean", batch=batch, progress=progress))
    shown = made.recovered(change + made.corrupt.mean()) if normalise else change
    said = f"{made.target.what}: {shown_part(model, what)} of the clean run put into the corrupt one"
    return sweep_of(
        made, cells, change, shown, said,
        "recovered" if normalise else made.target.quantity, clock, clean=float(made.clean.mean()),
    )  # fmt: skip


def shown_part(model: Model, what: str) -> str:
    """What is swept over, to be read."""
    return what or ("hidden" if isinstance(model.network, Recurrent) else "residual")


def swept_pair(
    model: Model,
    text: Recording | Text,
    corrupt: Recording | Text | None,
    what: str,
    layers: Sequence[int] | None,
    stack: Literal["decoder", "encoder"],
    **asked: Any,
) -> tuple[Study, Grid]:
    """The two runs of a sweep, and what is swept over.

    Args:
        model: what runs.
        text: the clean one.
        corrupt: the other one.
        what: as in `patch_sweep`.
        layers: as in `patch_sweep`.
        stack: as in `patch_sweep`.
        **asked: what else `study` is asked.

    Raises:
        ConfigError: as in `patch_sweep`.
        InputError: as in `patch_sweep`.
    """
    made = study(model, text, corrupt, **asked, names=swept_names(model, what, layers, stack))
    return made, swept_cells(made, what, layers, stack)


def swept_cells(made: Study, what: str, layers: Sequence[int] | None, stack: Literal["decoder", "encoder"]) -> Grid:
    """What is swept over; positions of texts that have unequal numbers of them are refused."""
    cells = grid(made.pairs[0].corrupt.model, made.pairs[0].corrupt, what, layers=layers, stack=stack)
    lengths = {pair.corrupt.ids.shape[1] for pair in made.pairs}
    if cells.column_axis == "position" and len(lengths) > 1:
        raise InputError(
            f"the texts have {', '.join(map(str, sorted(lengths)))} tokens, so positions of one are not those of "
            "another; give texts of one length, or ask for heads"
        )
    return cells


def sweep_of(
    made: Study,
    cells: Grid,
    change: Float64[Tensor, " N"],
    shown: Float64[Tensor, " N"],
    what: str,
    unit: str,
    clock: Clock,
    *,
    clean: float | None,
    seed: int | None = None,
    gap: float | None = None,
) -> Sweep:
    """The matrix of a sweep's numbers; a position that stands for none in the clean text has none."""
    shape = (len(cells.rows), len(cells.columns))
    values, alone = shown.view(shape).clone(), made.pairs[0].aligned()
    if alone is not None and cells.column_axis == "position" and len(alone) == len(cells.columns):
        values[:, ~torch.tensor(alone)] = torch.nan
    return Sweep(
        what,
        unit,
        cells.rows,
        cells.columns,
        values,
        "layer",
        cells.column_axis,
        change=change.view(shape),
        clean=clean,
        corrupt=float(made.corrupt.mean()),
        sites=cells.sites,
        receipt=clock.receipt(difference=made.difference, seed=seed, gap=gap),
    )


def ablate(
    model: Model,
    text: Recording | Text,
    *,
    what: str = "",
    values: Values = "zero",
    texts: Sequence[str] | None = None,
    samples: int = 8,
    layers: Sequence[int] | None = None,
    stack: Literal["decoder", "encoder"] = "decoder",
    source: Source | Sequence[str] | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    batch: int = 0,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Sweep:
    """Take every part of every layer away, one at a time, and say by how much the answer changes.

    Args:
        model: what runs.
        text: what it reads; of several texts the numbers are means.
        what: as in `patch_sweep`; "": heads, or units of a recurrent model.
        values: what stands in for the part: "zero"; its "mean" over positions and over texts; or "resample": its values
            on other texts, on average over samples.
        texts: for mean and resample.
        samples: for resample, how many other texts are drawn.
        layers: which; None: all.
        stack: which half of an encoder–decoder.
        source: what an encoder–decoder reads.
        token: whose number is asked about, with minus, position and quantity as in `target_of`.
        minus: likewise.
        position: likewise.
        quantity: likewise.
        batch: as in `patch`.
        seed: of what is drawn.
        progress: as in `patch`.

    Raises:
        ConfigError: a part that the model does not have, or values that need texts.
        InputError: as in `patch`.
    """
    clock = Clock(
        model, "ablate", text, what=what, values=values, texts=texts, samples=samples, layers=layers, stack=stack,
        source=source, token=token, minus=minus, position=position, quantity=quantity, seed=seed,
    )  # fmt: skip
    if values == "clean":
        raise ConfigError("an ablation has no clean run to take values from; patch_sweep compares two texts")
    if values not in VALUES:
        raise ConfigError(unknown("kind of values", str(values), [name for name in VALUES if name != "clean"]))
    made = study(model, text, text, source=source, token=token, minus=minus, position=position, quantity=quantity)
    what = what or ("units" if isinstance(model.network, Recurrent) else "heads")
    cells = swept_cells(made, what, layers, stack)
    patched = patched_with(made, [(site,) for site in cells.sites], values, texts, samples, batch, seed, progress)
    change = made.change(patched)
    said = {"zero": "zeros", "mean": "their means", "resample": "other texts' values"}[values]
    return sweep_of(
        made, cells, change, change, f"{made.target.what}: its change with {said} in place of {what}",
        made.target.quantity, clock, clean=None, seed=seed if values == "resample" else None,
    )  # fmt: skip
