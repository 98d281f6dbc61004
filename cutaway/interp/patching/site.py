"""Sites: which numbers of which activation, and where in the computation they stand.

Shapes: B batch, H heads, T tokens, D head dim, C channels or any other last axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.models import Model, Recurrent, Seq2Seq, match_names

Numbers: TypeAlias = int | Sequence[int] | None  # one, some, or all
AFTER_Z = ("attn.z", "attn_out", "attn_sum", "resid_mid", "mlp.pre", "mlp.post", "mlp.router", "mlp_out", "mlp_sum")


@dataclass(frozen=True)
class Site:
    """Some numbers of an activation.

    Attributes:
        name: of the activation, such as "layers.3.attn.z".
        head: which heads, where it has any; None: all.
        position: which tokens, below 0 from the end; of scores and patterns which queries; None: all.
        neuron: which numbers of the last axis: neurons, channels, units; None: all.
    """

    name: str
    head: Numbers = None
    position: Numbers = None
    neuron: Numbers = None

    @property
    def label(self) -> str:
        """To be read."""
        parts = (("head", self.head), ("position", self.position), ("neuron", self.neuron))
        return " ".join([self.name, *(f"{axis} {_said(given)}" for axis, given in parts if given is not None)])

    def index(self, shape: Sequence[int], *, before: int = 0, length: int | None = None) -> tuple[Any, ...]:
        """What selects these numbers of one text, out of an activation without its first axis.

        Args:
            shape: (H, T, D), (T, C), or (C,) where a whole text has one vector.
            before: tokens that the activation's text has before those in `shape`.
            length: tokens that the text has in all; None: no more than these.

        Raises:
            InputError: a head, position or neuron that is not there, or an axis that the activation does not have.
        """
        axes = {1: ("neuron",), 2: ("position", "neuron"), 3: ("head", "position", "neuron")}[len(shape)]
        for axis in ("head", "position"):
            if axis not in axes and getattr(self, axis) is not None:
                raise InputError(f"{self.name} has no {axis}s to choose from; leave {axis} out")
        chosen: list[Any] = []
        for axis, size in zip(axes, shape, strict=True):
            if axis != "position":
                chosen.append(_select(self.name, axis, getattr(self, axis), size))
                continue
            whole = before + size if length is None else length
            places = _resolve(self.name, axis, self.position, whole)
            chosen.append(_packed([p - before for p in places if before <= p < before + size], size))
        return _outer(chosen, shape)

    def positions(self, length: int) -> list[int] | None:
        """The tokens from 0 on; None: all."""
        return None if self.position is None else _resolve(self.name, "position", self.position, length)


def _said(given: Numbers) -> str:
    return str(given) if isinstance(given, int) else ", ".join(map(str, given or ()))


def _resolve(name: str, axis: str, given: Numbers, size: int) -> list[int]:
    if given is None:
        return list(range(size))
    numbers = [given] if isinstance(given, int) else list(given)
    least = -size if axis == "position" else 0
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number < size:
            raise InputError(f"{name} has {size} {axis}s ({least} … {size - 1}), but {axis} {number!r} was given")
    return [number % size for number in numbers]


def _select(name: str, axis: str, given: Numbers, size: int) -> slice | list[int]:
    return slice(None) if given is None else _packed(_resolve(name, axis, given, size), size)


def _packed(numbers: list[int], size: int) -> slice | list[int]:
    """A slice where the numbers follow each other: it copies nothing."""
    if len(numbers) == size:
        return slice(None)
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True:
        return slice(numbers[0], numbers[-1] + 1) if numbers else slice(0, 0)
    return numbers


def _outer(chosen: list[Any], shape: Sequence[int]) -> tuple[Any, ...]:
    """Indices of every combination, where more than one axis is given by a list."""
    lists = [i for i, part in enumerate(chosen) if isinstance(part, list)]
    if len(lists) < 2:
        return tuple(chosen)
    ranges = [torch.arange(size)[part] for part, size in zip(chosen, shape, strict=True)]
    return tuple(torch.meshgrid(*ranges, indexing="ij"))


@dataclass(frozen=True)
class Place:
    """Where in the computation an activation stands.

    Attributes:
        encodes: whether in the encoder of an encoder–decoder.
        layer: which layer; -1: before all of them; as many as there are: behind.
        rest: its name within the layer.
    """

    encodes: bool
    layer: int
    rest: str

    @property
    def after_z(self) -> bool:
        """Whether all that it depends on in its layer comes from what the attention has mixed, and the stream."""
        return self.rest in (*AFTER_Z, "resid_post")


def place_of(model: Model, name: str) -> Place:
    """Where an activation stands."""
    encodes, own = name.startswith("encoder."), name.removeprefix("encoder.")
    count = layers_of(model, encodes=encodes)
    if own.startswith("layers."):
        _, layer, rest = own.split(".", 2)
        return Place(encodes, int(layer), rest)
    return Place(encodes, -1 if own == "embed" else count, own)


def layers_of(model: Model, *, encodes: bool = False) -> int:
    """How many layers there are, of an encoder–decoder's encoder or else of the network."""
    return model.config.encoder_layers if encodes and isinstance(model.network, Seq2Seq) else model.config.layers  # pyright: ignore[reportAttributeAccessIssue]


Sites: TypeAlias = "str | Site | Iterable[str | Site | Sequence[Site]]"


def sites_of(model: Model, given: Sites) -> list[tuple[Site, ...]]:
    """What is patched in one run after another: each a site, or several together.

    Args:
        model: what has the activations.
        given: names or patterns of activations, sites, or sequences of sites to be patched at once.

    Raises:
        ConfigError: an activation that is not there, or nothing at all.
    """
    known = model.network.tap_names()
    found: list[tuple[Site, ...]] = []
    for one in [given] if isinstance(given, str | Site) else given:
        if isinstance(one, str):
            found += [(Site(name),) for name in match_names(one, known)]
            continue
        together = (one,) if isinstance(one, Site) else tuple(one)
        for site in together:
            if site.name not in known:
                raise ConfigError(unknown("activation", site.name, known))
        found.append(together)
    if not found or not all(found):
        raise ConfigError("no sites were given: name an activation, such as Site('layers.0.attn.z', head=1)")
    return found


def names_of(patches: Iterable[Iterable[Site]]) -> list[str]:
    """The activations in which there are sites, each once."""
    return list(dict.fromkeys(site.name for patch in patches for site in patch))


def token_axis(name: str, value: Tensor) -> int | None:
    """Which axis of an activation counts tokens; None where a whole text has one vector."""
    return {4: 2, 3: 1}.get(value.ndim)


def heads_at(model: Model, name: str) -> int:
    """How many heads an activation inside an attention has.

    Raises:
        ConfigError: a recurrent model, which has none.
    """
    if isinstance(model.network, Recurrent):
        raise ConfigError("a recurrent model has no attention, so there are no heads to patch; ask for hidden or units")
    config: Any = model.config
    if name.startswith("encoder."):
        return config.encoder_heads
    return getattr(config, "kv_heads", config.heads) if name.endswith((".k", ".v")) else config.heads
