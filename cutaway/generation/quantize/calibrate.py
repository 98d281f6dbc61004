"""Calibration: what the matrices of a layer read on some texts, summed up, and the matrices rounded by it.

One layer at a time: the residual streams of all texts stand before it, its sums of x xᵀ are taken, its matrices become
blocks, and the streams go on through the layer as it has become. So later layers see, and can mend, what earlier ones
have lost; and never more than one layer's sums are in memory.

Shapes: B batch, T tokens, C channels, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.generation.quantize.gptq import gptq_matrix
from cutaway.generation.quantize.readings import Fold, Reading, readings
from cutaway.generation.quantize.rounding import check_finite, round_matrix
from cutaway.generation.quantize.texts import Text
from cutaway.models import ActiveTap, Decoder, Encoder, Network
from cutaway.models.formats.ggml import Blocks
from cutaway.models.layers import RMSNorm

METHODS = ("gptq", "awq")
POWERS = 20  # how many powers of the channels' sizes are tried, from 0 to 1
Put = Callable[[str, Blocks], None]


@dataclass
class Sums:
    """Of what some matrices read.

    Attributes:
        curvature: (C, C) float64, the sum of x xᵀ.
        count: of how many x.
    """

    curvature: Tensor
    count: int = 0

    def add(self, x: Tensor) -> None:
        """Take in (…, C)."""
        rows = x.flatten(0, -2).float()
        self.curvature += (rows.mT @ rows).double()
        self.count += len(rows)


def calibrated(
    network: Network, kinds: Mapping[str, str], texts: Sequence[Text], method: str, put: Put
) -> Iterator[str]:
    """Make a network's matrices blocks, layer by layer; yields the name of each when it is done.

    Args:
        network: float32 weights, which may share memory with others: what changes is replaced. It becomes the result.
        kinds: of which matrices; those that nobody can be seen reading are left for the caller.
        texts: what it reads meanwhile.
        method: "gptq", or "awq" (Lin et al. 2023, arXiv:2306.00978): channels that are large in what a matrix reads are
            made larger in it and smaller before it, where that is exact, by the power that costs least.
        put: puts blocks into the network.

    Raises:
        ConfigError: an unknown method.
        InputError: no texts.
        NonFinite: the network computes NaN or infinity on them, or a matrix holds one.
    """
    if method not in METHODS:
        raise ConfigError(unknown("method of calibration", method, METHODS))
    if not texts:
        raise InputError("calibrating needs texts; give at least one of a sentence or more")
    walk = _Walk(network, texts)
    for number, layer in enumerate(readings(network)):
        wanted = [reading for reading in layer if any(name in kinds for name in reading.matrices)]
        if wanted:
            sums = walk.sums(number, wanted)
            if method == "awq":
                for reading in wanted:
                    fold_channels(network, reading, sums[reading], kinds)
            for reading in wanted:
                for name in reading.matrices:
                    if name not in kinds:
                        continue
                    matrix = network.get_parameter(name).detach()
                    check_finite(name, matrix)
                    if method == "gptq":
                        blocks = gptq_matrix(matrix, kinds[name], sums[reading].curvature)
                    else:
                        diagonal = sums[reading].curvature.diagonal()
                        blocks = round_matrix(matrix, kinds[name], importance_of(diagonal))
                    put(name, blocks)
                    yield name
        walk.advance(number)


def importance_of(diagonal: Tensor) -> Tensor:
    """(C,) how much errors count, from the mean squares of what is read: none counts nothing at all."""
    return (diagonal / diagonal.mean().clamp(min=1e-30)).clamp(min=1e-4)


class _Walk:
    """The streams of all texts, standing before one layer after the other.

    Networks whose layers cannot be run by themselves (recurrent, encoder–decoder) read the texts anew for every layer.
    """

    def __init__(self, network: Network, texts: Sequence[Text]) -> None:
        self.network, self.texts = network, texts
        self.streams: list[Tensor] | None = None
        if isinstance(network, Decoder | Encoder) and network.config.layers:
            self.streams = [_before_layers(network, text) for text in texts]

    @torch.no_grad()
    def sums(self, number: int, wanted: Sequence[Reading]) -> dict[Reading, Sums]:
        """Of what each of some readings of a layer reads."""
        found: dict[Reading, Sums] = {}
        places: dict[str, list[Reading]] = {}
        for reading in wanted:
            width = self.network.get_parameter(reading.matrices[0]).shape[-1]
            found[reading] = Sums(torch.zeros(width, width, dtype=torch.float64))
            places.setdefault(reading.place, []).append(reading)

        def sink(place: str, x: Tensor) -> None:
            for reading in places[place]:
                found[reading].add(reading.rows(x))

        for run in self._runs(number):
            run(ActiveTap(places, sink=sink))
        return found

    @torch.no_grad()
    def advance(self, number: int) -> None:
        """Take the streams through a layer, as it has become."""
        if self.streams is None or number >= self.network.config.layers:  # pyright: ignore[reportAttributeAccessIssue]
            return
        assert isinstance(self.network, Decoder | Encoder)
        for i, (x, text) in enumerate(zip(self.streams, self.texts, strict=True)):
            self.streams[i] = self.network.resume(number, x, stop=number + 1, **text.sight)

    def _runs(self, number: int) -> Iterator[Callable[[ActiveTap], object]]:
        network = self.network
        for i, text in enumerate(self.texts):
            if self.streams is None:
                yield lambda tap, text=text: text.run(network, tap)
                continue
            assert isinstance(network, Decoder | Encoder)
            x = self.streams[i]
            if number < network.config.layers:
                yield lambda tap, x=x, text=text: network.resume(number, x, stop=number + 1, **text.sight, tap=tap)
            else:
                yield lambda tap, x=x, text=text: network.read_out(x, **text.sight, tap=tap)


class _Enough(Exception):
    """The tap has seen what it came for."""


@torch.no_grad()
def _before_layers(network: Network, text: Text) -> Tensor:
    """(1, T, C) the stream before the first layer; nothing behind it is computed."""
    seen: list[Tensor] = []

    def sink(_: str, x: Tensor) -> None:
        seen.append(x)
        raise _Enough

    with suppress(_Enough):
        text.run(network, ActiveTap(["layers.0.resid_pre"], sink=sink))
    return seen[0]


@torch.no_grad()
def fold_channels(network: Network, reading: Reading, sums: Sums, kinds: Mapping[str, str]) -> Tensor | None:
    """Scale the channels that some matrices read, where that changes nothing but rounding, by the best of some powers.

    Args:
        network: whose matrices, and what stands before them, are replaced.
        reading: which.
        sums: of what they read; afterwards of what they read then.
        kinds: of the matrices.

    Returns:
        (C,) what the channels were divided by; None where nothing was.
    """
    fold, matrices = reading.fold, [name for name in reading.matrices if name in kinds]
    if fold is None or len(matrices) < len(reading.matrices):
        return None
    curvature = sums.curvature.float()
    sizes = (curvature.diagonal() / max(sums.count, 1)).sqrt()
    if fold.shared > 1:  # the heads of a group read one row
        groups = sizes.view(-1, fold.shared, fold.head_dim)
        sizes = groups.square().mean(dim=1, keepdim=True).sqrt().expand_as(groups).reshape(-1)
    sizes = sizes.clamp(min=float(sizes.max()) * 1e-4 + 1e-30)
    weights = [network.get_parameter(name).detach().float() for name in matrices]
    best, chosen = torch.inf, None
    for step in range(POWERS):
        scale = sizes ** (step / POWERS)
        scale = scale / (scale.max() * scale.min()).sqrt()
        importance = importance_of(sums.curvature.diagonal() / scale.double() ** 2)
        cost = 0.0
        for name, weight in zip(matrices, weights, strict=True):
            off = round_matrix(weight * scale, kinds[name], importance).numbers() / scale - weight
            cost += float(((off @ curvature) * off).sum())
        if cost < best:
            best, chosen = cost, scale if step else None
    if chosen is None:
        return None
    for name, weight in zip(matrices, weights, strict=True):
        _replace(network, name, weight * chosen)
    divide(network, fold, chosen)
    sums.curvature /= torch.outer(chosen, chosen).double()
    return chosen


def divide(network: Network, fold: Fold, by: Tensor) -> None:
    """Make what is read smaller by a factor for each channel, where it comes from."""
    if fold.norm:
        norm = network.get_submodule(fold.norm)
        weight = network.get_parameter(f"{fold.norm}.weight").detach()
        plus_one = isinstance(norm, RMSNorm) and norm.plus_one
        _replace(network, f"{fold.norm}.weight", (1 + weight) / by - 1 if plus_one else weight / by)
        if getattr(norm, "bias", None) is not None:
            _replace(network, f"{fold.norm}.bias", network.get_parameter(f"{fold.norm}.bias").detach() / by)
        return
    if fold.shared > 1:
        by = by.view(-1, fold.shared, fold.head_dim)[:, 0].reshape(-1)
    _replace(network, fold.matrix, network.get_parameter(fold.matrix).detach() / by[:, None])
    bias = fold.matrix.removesuffix("weight") + "bias"
    if network.get_submodule(fold.matrix.removesuffix(".weight"))._parameters.get("bias") is not None:
        _replace(network, bias, network.get_parameter(bias).detach() / by)


def _replace(network: nn.Module, name: str, value: Tensor) -> None:
    """A new tensor in place of a parameter, whose memory may be another network's."""
    home, _, part = name.rpartition(".")
    network.get_submodule(home)._parameters[part] = nn.Parameter(value, requires_grad=False)
