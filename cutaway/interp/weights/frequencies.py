"""What is periodic in an embedding or a neuron: the discrete Fourier transform over token ids.

Models that learn to add modulo p hold numbers as points on circles (Nanda et al. 2023, "Progress measures for
grokking via mechanistic interpretability"; Gromov 2023, "Grokking modular arithmetic").

Shapes: P tokens, N channels or neurons, K = P // 2 + 1 frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Curve, Matrix, Panel
from cutaway.models import Model


@dataclass(frozen=True)
class Frequencies:
    """Columns of numbers over 0 … P - 1 as sums of waves, mean + Σ amplitude · cos(2π k x / P + phase).

    Attributes:
        amplitude: (K, N) of each frequency k; the first row is the mean, which may be below zero.
        phase: (K, N) radians.
        power: (K, N) shares of each column's variance; the first row is 0, and a constant column has 0 throughout.
    """

    amplitude: Float64[Tensor, "K N"]
    phase: Float64[Tensor, "K N"]
    power: Float64[Tensor, "K N"]

    @property
    def strongest(self) -> Int64[Tensor, " N"]:
        """The frequency with most of each column's variance, from 1."""
        return self.power.argmax(0)

    @property
    def share(self) -> Float64[Tensor, " N"]:
        """How much of the variance that one has."""
        return self.power.amax(0)


def frequencies_of(values: Float[Tensor, "P N"]) -> Frequencies:
    """The waves of each column.

    Args:
        values: (P, N) of any float dtype; the transform is of float64.

    Raises:
        InputError: fewer than three rows.
    """
    P = len(values)
    if P < 3:
        raise InputError(f"{P} numbers have no frequencies to speak of; at least 3 are needed")
    waves = torch.fft.rfft(values.double(), dim=0)
    once = torch.full((len(waves), 1), 2.0, dtype=torch.float64)  # each wave stands for its mirror image too
    once[0] = 1
    if P % 2 == 0:
        once[-1] = 1
    amplitude = once * waves.abs() / P
    amplitude[0] = waves[0].real / P
    power = once * waves.abs().square()
    power[0] = 0
    total = power.sum(0)
    # what is left of a constant column is rounding
    constant = total <= 1e-24 * values.double().square().sum(0) * P
    power = torch.where(constant, 0.0, power / total.clamp(min=1e-300))
    return Frequencies(amplitude, waves.angle(), power)


@torch.no_grad()
def fourier(model: Model, *, tokens: Sequence[int] | None = None, embedding: str = "input", most: int = 64) -> Panel:
    """Which frequencies over token ids an embedding is made of.

    That only says something where the ids are numbers in order, as in models of arithmetic; in any other vocabulary the
    power is spread evenly, which is the control.

    Args:
        model: of any kind.
        tokens: the ids of 0, 1, 2 …; None: all of the vocabulary that are not special.
        embedding: "input", or "output" for the matrix that reads logits.
        most: channels in the matrix; the figures count all.

    Returns:
        A panel: the power of each frequency over all channels, and a matrix (frequency, channel) of the shares of each
        channel's variance.

    Raises:
        ConfigError: an unknown embedding, or an output matrix of a model without one.
        InputError: fewer than three tokens, or ids that are not there.
    """
    if embedding not in ("input", "output"):
        raise ConfigError(unknown("embedding", str(embedding), ["input", "output"]))
    clock = Clock(model, "fourier", tokens=None if tokens is None else list(tokens), embedding=embedding,
                  most=most)  # fmt: skip
    place = model.network.embed_tokens if embedding == "input" else getattr(model.network, "lm_head", None)
    if place is None:
        raise ConfigError("this model's head names no tokens, so it has no output matrix; look at the input")
    matrix = place.weight.detach()
    special = set(model.tokenizer.special.values())
    chosen = [i for i in range(len(matrix)) if i not in special] if tokens is None else list(tokens)
    if outside := [i for i in chosen if not 0 <= i < len(matrix)]:
        raise InputError(f"token ids must lie in 0 … {len(matrix) - 1}, but {outside[0]} was given")
    found = frequencies_of(matrix[chosen])
    variance = matrix[chosen].double().var(0, correction=0)
    together = (found.power * variance).sum(1) / variance.sum().clamp(min=1e-300)
    receipt = clock.receipt()
    K = len(found.power)
    shown = variance.argsort(descending=True)[:most].sort().values
    ranked = together.sort(descending=True).values
    return Panel(
        f"frequencies of the {embedding} embedding",
        {
            "power": Curve(
                "share of all variance",
                "frequency",
                "share",
                [float(k) for k in range(1, K)],
                {"power": together[1:].tolist()},
                receipt=receipt,
            ),
            "channels": Matrix(
                "share of each channel's variance",
                "share",
                [str(k) for k in range(1, K)],
                [str(i) for i in shown.tolist()],
                found.power[1:, shown],
                "frequency",
                "channel",
                signed=False,
                receipt=receipt,
            ),
        },
        ["Token ids must be numbers in order for this to say anything."],
        {
            "share of the strongest frequency": float(ranked[0]),
            "share of the five strongest": float(ranked[:5].sum()),
            "share of one, were all alike": 1 / (K - 1),
            "mean share of a channel's strongest": float(found.share.mean()),
        },
        receipt=receipt,
    )
