"""How the weights and gradients of a run are distributed, layer by layer, at every checkpoint.

Shapes: N checkpoints, Z bins.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Curve, Matrix, Panel, Result
from cutaway.interp.weights.differences import at_least, code_of_run, folder_of, step_of
from cutaway.interp.weights.tensors import tensors_of
from cutaway.models import Model, load_model
from cutaway.progress import OnProgress, Progress

if TYPE_CHECKING:
    from cutaway.training import Run

BINS = 48
SMALLEST, LARGEST = -9.0, 1.0  # powers of ten of gradients
SHARE = 0.999  # of the weights that lie within the range that is shown
LAYER = re.compile(r"layers?\.(\d+)\.|_l(\d+)(?:_reverse)?$")


def ridgelines(
    run: Run | str | Path, *, gradients: bool = True, bins: int = BINS, progress: OnProgress | None = None
) -> Panel:
    """Histograms of the matrices' entries and of their gradients, by layer, over the checkpoints of a run.

    The gradient at a checkpoint is that of the batch which the run took next, before clipping, in float32 and without
    dropout: made again from the run's corpus, as the order of its data follows from the step.

    Args:
        run: a run, or its folder.
        gradients: whether to compute them; needs the corpus where it was.
        bins: of each histogram.
        progress: told after each checkpoint.

    Returns:
        A panel of matrices, a row for each checkpoint: "weights of layer 0": (N, Z), the share of the entries by value
        (those outside the range are in the outermost bins), "gradients of layer 0": (N, Z), the share by log10 of the
        size (zeros are left out); and the curve "gradient norms", of all that learns. Norms and biases, which are no
        matrices, have no histograms.

    Raises:
        InputError: no checkpoints.
        DamagedFile: a checkpoint's file does not match its checksum.
        NonFinite: a weight is no number.
    """
    folder = folder_of(run)
    places = at_least(folder, 1)
    steps = [step_of(place) for place in places]
    clock = Clock(load_model(places[-1]), "ridgelines")
    ranges: dict[str, float] = {}
    for place in (places[0], places[-1]):
        for group, numbers in _groups(load_model(place)):
            few = numbers[:: max(1, len(numbers) // 100_000)].abs().double()
            ranges[group] = max(ranges.get(group, 1e-12), float(few.quantile(SHARE)))
    weights: dict[str, list[Tensor]] = {group: [] for group in ranges}
    slopes: dict[str, list[Tensor]] = {}
    norms: dict[str, list[float | None]] = {}
    notes: list[str] = []
    wanted = gradients
    for number, place in enumerate(places):
        model = load_model(place)
        for group, numbers in _groups(model):
            weights[group].append(_shares(numbers, -ranges[group], ranges[group], bins))
        if wanted:
            try:
                found = _gradients(folder, model, int(steps[number]))
            except CutawayError as error:
                wanted, slopes, norms = False, {}, {}
                notes.append(f"no gradients: {error}")
            else:
                whole = 0.0
                for group, numbers in found.items():
                    size = numbers[numbers != 0].abs().double().log10()
                    slopes.setdefault(group, []).append(_shares(size, SMALLEST, LARGEST, bins))
                    square = float(numbers.double().square().sum())
                    whole += square
                    norms.setdefault(group, []).append(math.sqrt(square))
                norms.setdefault("all", []).append(math.sqrt(whole))
        if progress is not None:
            progress(Progress("checkpoints", number + 1, len(places), "checkpoints"))
    given = "" if gradients else ", gradients=False"
    receipt = replace(clock.receipt(), code=code_of_run("ridgelines", folder, given))
    parts: dict[str, Result] = {}
    rows = [f"step {int(step)}" for step in steps]
    for title, unit, tables, bounds in (
        ("weights", "value", weights, ranges),
        ("gradients", "log10 of the size", slopes, {}),
    ):
        for group, shares in tables.items():
            if group == "others":
                continue
            low, high = (-bounds[group], bounds[group]) if bounds else (SMALLEST, LARGEST)
            centres = [f"{low + (high - low) * (i + 0.5) / bins:.4g}" for i in range(bins)]
            parts[f"{title} of {group}"] = Matrix(
                f"{title} of {group}", "share", rows, centres, torch.stack(shares), "checkpoint", unit,
                signed=False, receipt=receipt,
            )  # fmt: skip
    if norms:
        lines = {"all": norms.pop("all"), **norms}
        parts["gradient norms"] = Curve("norm of the gradient", "step", "norm", steps, lines, receipt=receipt)
    return Panel(f"weights and gradients of {folder.name}", parts, notes, receipt=receipt)


def group_of(name: str) -> str:
    """Which part of a network a matrix is in: "layer 0", "embedding", "output", or its own first name."""
    if (found := LAYER.search(name)) is not None:
        return f"layer {found[1] or found[2]}"
    first = name.partition(".")[0]
    return {"embed_tokens": "embedding", "lm_head": "output"}.get(first, first.replace("_", " "))


def _groups(model: Model) -> list[tuple[str, Tensor]]:
    """The entries of the matrices of each part, in the order of the network."""
    found: dict[str, list[Tensor]] = {}
    for name, tensor in tensors_of(model):
        if tensor.ndim > 1:
            found.setdefault(group_of(name), []).append(tensor.float().flatten())
    return [(group, torch.cat(parts)) for group, parts in found.items()]


def _shares(numbers: Tensor, low: float, high: float, bins: int) -> Tensor:
    """The share of the numbers in each bin, (Z,); those outside are in the outermost."""
    counts = torch.histc(numbers.clamp(low, high).float(), bins, low, high).double()
    return counts / max(1, len(numbers))


def _gradients(folder: Path, model: Model, step: int) -> dict[str, Tensor]:
    """The gradients of each part's matrices, and of all else as "others", of the batch that follows a checkpoint.

    Raises:
        CutawayError: the corpus is not there, or has changed.
        InputError: the objective trains more than the network that is kept.
    """
    from cutaway.errors import InputError
    from cutaway.tokenizers import TokenStore
    from cutaway.training.checkpoint import read_config
    from cutaway.training.plan import batch_of
    from cutaway.training.ranks import Ranks

    config, _ = read_config(folder)
    store = TokenStore.open(config.data)
    network, objective = model.network, config.objective
    if objective.learner(network, store) is not network:
        raise InputError(f"the objective {objective.name} trains more than the network that is kept")
    batch = batch_of(store, config, Ranks(), step)
    network.float().requires_grad_(True)
    with torch.enable_grad():
        for piece in batch.pieces(config.accumulate):
            loss, _ = objective.loss(network, piece, config)
            (loss / batch.nominal).backward()
    found: dict[str, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            group = group_of(name) if parameter.ndim > 1 else "others"
            found.setdefault(group, []).append(parameter.grad.flatten())
    network.zero_grad(set_to_none=True)
    return {group: torch.cat(parts) for group, parts in found.items()}
