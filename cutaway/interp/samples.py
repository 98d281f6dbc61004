"""Activations of many texts as rows of numbers: what probes, erasers and dictionaries of features learn from.

Shapes: N rows, C channels, B texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp.inputs import Inputs, forward, inputs_of
from cutaway.interp.record import LIMIT, Edits, first_broken
from cutaway.models import ActiveTap, Model, Recurrent, match_names
from cutaway.progress import OnProgress, Progress

HEADED = ("q", "k", "v", "z")  # (B, heads, T, D), which stand side by side as channels


@dataclass(frozen=True)
class Samples:
    """Activations by name, a row for each token, or for each text.

    Attributes:
        values: name -> (N, C) in the dtype of the network, in the processor's memory.
        texts: (N,) of which text a row is.
        places: (N,) where in it the row's token stands, from 0 of its first token on.
        ids: (N,) the row's token; of frames of sound 0.
    """

    values: Mapping[str, Tensor]
    texts: Int[Tensor, " N"]
    places: Int[Tensor, " N"]
    ids: Int[Tensor, " N"]


def streams_of(model: Model) -> str:
    """The pattern of the activations that carry a text from layer to layer."""
    return f"layers.*.{model.network.states}" if isinstance(model.network, Recurrent) else "layers.*.resid_post"


def samples_of(
    model: Model,
    texts: Sequence[Any],
    names: str | Sequence[str],
    *,
    source: Sequence[str] | Tensor | None = None,
    position: int | None = None,
    edits: Edits | None = None,
    batch: int = 16,
    limit: int = LIMIT,
    progress: OnProgress | None = None,
) -> Samples:
    """Run the model on texts and keep activations as rows.

    Args:
        model: of any kind.
        texts: texts, or ids of each.
        names: activation names or patterns; those of heads are laid side by side.
        source: what an encoder–decoder reads, one for each text.
        position: of each text; None keeps every token.
        edits: what is replaced in these runs, by name.
        batch: texts that are run together.
        limit: bytes in memory.
        progress: told how many texts are done.

    Raises:
        ConfigError: a name that selects nothing, or patterns and scores, which have no channels.
        InputError: no texts, a position outside one of them, or more than the limit.
        NonFinite: the model computes a NaN or an infinity.
    """
    if isinstance(texts, str | Tensor) or not len(texts):
        raise InputError("give a list of texts, at least one")
    chosen = match_names(names, model.network.tap_names())
    for name in chosen:
        if name.rpartition(".")[2] in ("scores", "pattern"):
            raise ConfigError(f"{name} has a number for each pair of tokens, not channels; name another activation")
    rows: dict[str, list[Tensor]] = {name: [] for name in chosen}
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    size = 0
    for start in range(0, len(texts), batch):
        part = list(texts[start : start + batch])
        inputs = inputs_of(model, part, None if source is None else source[start : start + batch])
        seen: dict[str, Tensor] = {}
        with torch.no_grad():
            output = forward(model, inputs, ActiveTap(chosen, edits or {}, seen.__setitem__))
        if not output.isfinite().all():
            raise NonFinite(f"{first_broken(model, inputs, edits or {})} holds a NaN or an infinity")
        for name in chosen:
            value = _channels(name, seen[name])
            which, places, ids = _places(inputs, name, value, position)
            value = value[which, places + _first(inputs, name)[which]]
            rows[name].append(value.cpu())
            size += value.numel() * value.element_size()
            if name == chosen[0]:
                kept.append((which + start, places, ids))
            elif len(which) != len(kept[-1][0]):
                raise ConfigError(
                    f"{chosen[0]} and {name} have different numbers of tokens: the encoder and the decoder read "
                    "different texts; name activations of one of them"
                )
        done = start + len(part)
        if (expected := size * len(texts) / done) > limit:
            raise InputError(
                f"the activations of {len(texts)} texts take {expected / 2**20:,.0f} MB, above the limit of "
                f"{limit / 2**20:,.0f} MB; give fewer texts, name fewer activations, or raise the limit"
            )
        if progress is not None:
            progress(Progress("reading", done, len(texts), "texts"))
    texts_, places_, ids_ = (torch.cat(parts) for parts in zip(*kept, strict=True))
    values = {name: torch.cat(rows.pop(name)) for name in chosen}
    return Samples(values, texts_, places_, ids_)


def _channels(name: str, value: Tensor) -> Float[Tensor, "B T C"]:
    """An activation with its channels last; one vector for a whole text is one token long."""
    if value.ndim == 4:
        value = value.transpose(1, 2).flatten(2)
    return value[:, None] if value.ndim == 2 else value


def _mask(inputs: Inputs, name: str) -> Tensor | None:
    return inputs.source_mask if name.startswith("encoder.") else inputs.mask


def _first(inputs: Inputs, name: str) -> Int[Tensor, " B"]:
    mask = _mask(inputs, name)
    return torch.zeros(len(inputs), dtype=torch.int64) if mask is None else mask.int().argmax(dim=1).cpu()


def _places(inputs: Inputs, name: str, value: Tensor, position: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Of which text each row is, where its token stands, and its id."""
    read = cast(Tensor, inputs.source) if name.startswith("encoder.") else inputs.ids
    mask = _mask(inputs, name)
    if value.shape[1] == 1 and read.shape[1] > 1:  # of whole texts
        which = torch.arange(len(inputs))
        return which, torch.zeros_like(which), read[:, 0].cpu() if read.ndim == 2 else torch.zeros_like(which)
    if mask is None:
        mask = torch.ones(value.shape[:2], dtype=torch.bool)
    lengths, first = mask.sum(dim=1).cpu(), mask.int().argmax(dim=1).cpu()
    if position is None:
        which = torch.arange(len(inputs)).repeat_interleave(lengths)
        places = torch.cat([torch.arange(int(length)) for length in lengths])
    else:
        shortest = int(lengths.min())
        if not -shortest <= position < shortest:
            raise InputError(
                f"position {position} is outside a text of {shortest} tokens (-{shortest} … {shortest - 1})"
            )
        which = torch.arange(len(inputs))
        places = torch.full_like(which, position) if position >= 0 else lengths + position
    ids = read.cpu()[which, places + first[which]] if read.ndim == 2 else torch.zeros_like(which)
    return which, places, ids
