"""Attribution patching: what patching every site would do, guessed from one gradient.

Nanda 2023 (https://www.neelnanda.io/mechanistic-interpretability/attribution-patching); Syed et al. 2023
(https://arxiv.org/abs/2310.10348). The change of the target is (clean - corrupt) · gradient, with the gradient of the
corrupt run: exact where the rest of the model is linear, and off by the square of the difference elsewhere.

Shapes: R rows, C columns, N sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from cutaway.interp.inputs import Text
from cutaway.interp.patching.pairs import Align
from cutaway.interp.patching.patch import Study, patched_with
from cutaway.interp.patching.site import Site, names_of
from cutaway.interp.patching.sweep import Sweep, shown_part, sweep_of, swept_pair
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, record, replace
from cutaway.interp.results import Table
from cutaway.interp.target import Quantity
from cutaway.models import Model
from cutaway.models.model import Source


@dataclass(frozen=True)
class Attributed(Sweep):
    """A guessed sweep, and the truth for the sites that it says matter most.

    Attributes:
        checked: the guess and the truth, in the target's own unit; its columns are site, predicted and actual.
    """

    checked: Table = field(kw_only=True)


def attribution_patching(
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
    check: int = 10,
) -> Attributed:
    """Guess what `patch_sweep` would find from one forward and one backward pass, and check the largest guesses.

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
        normalise: as in `patch_sweep`.
        check: how many sites of the largest guesses are patched to see what is true; 0: none.

    Returns:
        The guesses; `receipt.gap` is the largest distance of a checked one from the truth.

    Raises:
        ConfigError: as in `patch_sweep`.
        InputError: as in `patch_sweep`.
    """
    clock = Clock(
        model, "attribution_patching", text, corrupt=corrupt, what=what, layers=layers, stack=stack, source=source,
        corrupt_source=corrupt_source, align=align, token=token, minus=minus, position=position, quantity=quantity,
        normalise=normalise, check=check,
    )  # fmt: skip
    made, cells = swept_pair(
        model, text, corrupt, what, layers, stack, source=source, corrupt_source=corrupt_source, align=align,
        token=token, minus=minus, position=position, quantity=quantity,
    )  # fmt: skip
    guessed = guesses(made, cells.sites)
    shown = made.recovered(guessed + made.corrupt.mean()) if normalise else guessed
    best = guessed.abs().topk(min(max(check, 0), len(guessed))).indices.tolist()
    actual = made.change(patched_with(made, [(cells.sites[i],) for i in best], "clean")) if best else guessed[:0]
    rows = [[cells.sites[i].label, float(guessed[i]), float(true)] for i, true in zip(best, actual, strict=True)]
    gap = float((guessed[best] - actual).abs().max()) if best else None
    table = Table(
        f"{made.target.what}: its change by attribution and in truth", ["site", "predicted", "actual"], rows,  # pyright: ignore[reportArgumentType]
        receipt=clock.receipt(gap=gap),
    )  # fmt: skip
    swept = sweep_of(
        made, cells, guessed, shown, f"{made.target.what}: what putting {shown_part(model, what)} of the clean run in "
        "would do, by attribution", "recovered" if normalise else made.target.quantity, clock,
        clean=float(made.clean.mean()), gap=gap,
    )  # fmt: skip
    return Attributed(**{field.name: getattr(swept, field.name) for field in fields(swept)}, checked=table)


def guesses(made: Study, sites: Sequence[Site]) -> Float64[Tensor, " N"]:
    """Of each site (clean - corrupt) · gradient, on average over pairs."""
    names = names_of([sites])
    total = torch.zeros(len(sites), dtype=torch.float64)
    for pair in made.pairs:
        base, slopes = with_gradients(pair.corrupt, made, names)
        values = pair.values(names)
        products = {name: ((values[name] - base[name]).double() * slopes[name].double())[0] for name in names}
        total += torch.stack([products[site.name][site.index(products[site.name].shape)].sum() for site in sites]).cpu()
    return total / len(made.pairs)


def with_gradients(run: Recording, made: Study, names: Sequence[str]) -> tuple[Recording, dict[str, Tensor]]:
    """The run once more, with the target's gradients."""
    if run.edits:
        found = replace(run.model, run.inputs, run.edits, names, gradients=made.target)
    else:
        found = record(run.model, run.inputs, names, gradients=made.target)
    assert found.gradients is not None
    return found, dict(found.gradients)
