"""A clean and a corrupt text beside each other, and which token of the one stands for which of the other.

Shapes: B texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.inputs import Inputs, Text, inputs_of
from cutaway.interp.patching.rerun import SAME, beginnings
from cutaway.interp.patching.site import token_axis
from cutaway.interp.record import Recording, record, recording_of
from cutaway.models import Encoder, Model, Recurrent
from cutaway.models.model import Source

Align = Literal["refuse", "token", "pad"]
EXACT = ("scores", "pattern")  # whose last axis counts tokens too


@dataclass(frozen=True)
class Pair:
    """Two runs of one text each.

    Attributes:
        clean: where values come from.
        corrupt: where they are put in.
        partners: (position in the corrupt, position in the clean text) of tokens that stand for each other; None: each
            token for that of its place.
        since: the first token in which the texts differ.
        elsewhere: whether the two read different sources.
    """

    clean: Recording
    corrupt: Recording
    partners: tuple[tuple[int, int], ...] | None = None
    since: int = 0
    elsewhere: bool = False

    @property
    def model(self) -> Model:
        """What has run."""
        return self.corrupt.model

    def values(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The clean run's activations, (1, …), each token where its partner stands in the corrupt text.

        Raises:
            ConfigError: scores or patterns of texts that are aligned, or sources of unequal length.
        """
        if not names:
            return {}
        clean = recording_of(self.clean, "", names)
        if self.partners is None:
            for name in names:
                self._check_source(name, clean)
            return {name: clean[name] for name in names}
        base = recording_of(self.corrupt, "", names)
        found = {}
        for name in names:
            axis = token_axis(name, clean[name])
            if name.startswith("encoder."):
                self._check_source(name, clean)
                found[name] = clean[name]
            elif name.endswith(EXACT):
                raise ConfigError(f"{name} counts tokens on both sides; texts that are aligned have none to put in")
            elif axis is None:
                found[name] = clean[name]
            else:
                into, out_of = (list(places) for places in zip(*self.partners, strict=True))
                value = base[name].clone()
                value.index_copy_(
                    axis,
                    torch.tensor(into, device=value.device),
                    clean[name].index_select(axis, torch.tensor(out_of, device=value.device)),
                )
                found[name] = value
        return found

    def since_of(self, name: str) -> int:
        """The first token at which the activation may be another one in the clean run than in the corrupt one."""
        if name.startswith("encoder."):
            return 0 if self.elsewhere or self.edited else SAME
        if self.elsewhere or self.edited:
            return 0
        if isinstance(self.model.network, Encoder):  # each token sees every other
            return self.since if self.since == self.corrupt.ids.shape[1] else 0
        return self.since

    @property
    def edited(self) -> bool:
        """Whether activations of either run were replaced."""
        return bool(self.clean.edits or self.corrupt.edits)

    def _check_source(self, name: str, clean: Recording) -> None:
        mine, theirs = clean.inputs.source, self.corrupt.inputs.source
        crosses = name.startswith("encoder.") or (".cross_attn." in name and name.endswith((".k", ".v", *EXACT)))
        if mine is not None and theirs is not None and crosses and mine.shape != theirs.shape:
            raise ConfigError(
                f"the sources have {mine.shape[-1]} and {theirs.shape[-1]} places, so {name} of the one does not fit "
                "the other; make them equally long, or patch the decoder's side"
            )

    def aligned(self) -> list[bool] | None:
        """Of each token of the corrupt text whether it has a partner; None: all have."""
        if self.partners is None:
            return None
        have = {into for into, _ in self.partners}
        return [i in have for i in range(self.corrupt.ids.shape[1])]


def pairs_of(
    model: Model,
    clean: Recording | Text,
    corrupt: Recording | Text,
    *,
    source: Source | Sequence[str] | None = None,
    corrupt_source: Source | Sequence[str] | None = None,
    align: Align = "refuse",
    names: Sequence[str] = (),
) -> list[Pair]:
    """Each clean text with its corrupt one.

    Args:
        model: what runs.
        clean: a text, several, or a recorded run of one.
        corrupt: as many.
        source: what an encoder–decoder reads with the clean text, and with the corrupt one too unless that has its own.
        corrupt_source: its own.
        align: what to do about texts of unequal length: "refuse" them; by "token", those of the common beginning and
            of the common end stand for each other, and nothing is put into the others; or "pad" the shorter one before
            its first token (behind its last where the model is recurrent), so that they end (begin) together.
        names: of activations that will be taken from the clean run.

    Raises:
        ConfigError: an unknown way to align.
        InputError: unequal lengths that are refused, or texts that come in unequal numbers.
    """
    if align not in ("refuse", "token", "pad"):
        raise ConfigError(unknown("alignment", str(align), ["refuse", "token", "pad"]))
    begin = beginnings(model)
    if isinstance(clean, Recording) or isinstance(corrupt, Recording):
        first = (
            clean
            if isinstance(clean, Recording)
            else _run(model, inputs_of(model, clean, cast("Source | None", source)), names)
        )
        own = source if corrupt_source is None else corrupt_source
        second = (
            corrupt
            if isinstance(corrupt, Recording)
            else _run(model, inputs_of(model, corrupt, cast("Source | None", own)), begin)
        )
        return [_pair(first, second, align)]
    cleans, corrupts = (
        _rows(model, clean, source),
        _rows(model, corrupt, source if corrupt_source is None else corrupt_source),
    )
    if len(cleans) != len(corrupts):
        raise InputError(f"{len(cleans)} clean texts with {len(corrupts)} corrupt ones were given; give one for each")
    pairs = []
    for one, other in zip(cleans, corrupts, strict=True):
        if align == "pad" and one.ids.shape[1] != other.ids.shape[1]:
            one, other = _padded(model, one, other)
        pairs.append(_pair(_run(model, one, names), _run(model, other, begin), align))
    return pairs


def _rows(model: Model, text: Text, source: Source | Sequence[str] | None) -> list[Inputs]:
    """Each text by itself, so that none is padded for another's sake."""
    several = isinstance(text, list | tuple) and bool(text) and isinstance(text[0], str | list | tuple)
    if not several:
        inputs = inputs_of(model, text, source)
        return [inputs.rows(i, i + 1) for i in range(len(inputs))]
    texts = cast("Sequence[str]", text)
    sources = (
        source if isinstance(source, list | tuple) and source and isinstance(source[0], str) else [source] * len(texts)
    )
    if len(sources) != len(texts):
        raise InputError(f"{len(texts)} texts with {len(sources)} sources were given; give one source for each text")
    return [inputs_of(model, one, cast("Source | None", read)) for one, read in zip(texts, sources, strict=True)]


def _run(model: Model, inputs: Inputs, names: Sequence[str]) -> Recording:
    return record(model, inputs, list(dict.fromkeys([*names, model.network.tap_names()[-1]])))


def _padded(model: Model, one: Inputs, other: Inputs) -> tuple[Inputs, Inputs]:
    side = "right" if isinstance(model.network, Recurrent) else "left"
    both = inputs_of(model, [one.ids[0].tolist(), other.ids[0].tolist()], one.source, pad=side)  # pyright: ignore[reportArgumentType]
    first, second = both.rows(0, 1), both.rows(1, 2)
    return (
        replace(one, ids=first.ids, mask=first.mask, token_types=_types(one, first.mask)),
        replace(other, ids=second.ids, mask=second.mask, token_types=_types(other, second.mask)),
    )


def _types(inputs: Inputs, mask: Tensor | None) -> Tensor | None:
    """The types of the tokens where these stand now, and 0 at padding."""
    if inputs.token_types is None or mask is None:
        return inputs.token_types
    made = torch.zeros_like(mask, dtype=torch.int64)
    made[mask] = inputs.token_types[0]
    return made


def _pair(clean: Recording, corrupt: Recording, align: Align) -> Pair:
    mine, theirs = clean.ids[0].tolist(), corrupt.ids[0].tolist()
    elsewhere = clean.source is not None and corrupt.source is not None and not _same(clean.source, corrupt.source)
    same = min(len(mine), len(theirs))
    before = next((i for i in range(same) if mine[i] != theirs[i]), same)
    real = clean.inputs.mask is not None or corrupt.inputs.mask is not None
    if len(mine) == len(theirs) and not real:
        return Pair(clean, corrupt, None, before, elsewhere)
    if real and len(mine) == len(theirs):
        masks = [
            r.inputs.mask if r.inputs.mask is not None else torch.ones_like(r.ids).bool() for r in (corrupt, clean)
        ]
        both = (masks[0] & masks[1])[0].nonzero().flatten().tolist()
        return Pair(clean, corrupt, tuple((i, i) for i in both), 0, elsewhere)
    if align == "refuse":
        raise InputError(
            f"the clean text has {len(mine)} tokens and the corrupt one {len(theirs)}, so no token stands for another; "
            "make them equally long, or give align='token' or align='pad'"
        )
    partners = partners_of(mine, theirs)
    if not partners:
        raise InputError(
            "the two texts have neither a common beginning nor a common end, so no token stands for another"
        )
    return Pair(clean, corrupt, tuple(partners), before, elsewhere)


def partners_of(clean: Sequence[int], corrupt: Sequence[int]) -> list[tuple[int, int]]:
    """(position in the corrupt, position in the clean text) of the common beginning and the common end.

    >>> partners_of([1, 2, 3, 9], [1, 7, 8, 3, 9])
    [(0, 0), (3, 2), (4, 3)]
    """
    same = min(len(clean), len(corrupt))
    before = next((i for i in range(same) if clean[i] != corrupt[i]), same)
    behind = next((i for i in range(same - before) if clean[-1 - i] != corrupt[-1 - i]), same - before)
    partners = [(i, i) for i in range(before)]
    return partners + [(len(corrupt) - behind + i, len(clean) - behind + i) for i in range(behind)]


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
