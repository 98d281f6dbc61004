"""Patched runs, many at a time, that compute no more than a patch can change and than is asked for.

A run that is to be patched is recorded once. A patched run then begins with the residual stream before the layer of the
patch; a decoder's attention is not computed where the patch stands behind it, nor are tokens before the first one that
changes, nor those after the one that is asked about, and the last layer computes that one alone. Each row of a batch is
a patched run of its own. Everything is the network's own code: the numbers are those of one replaced run after another.

Shapes: B rows of a batch, H heads, T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp.inputs import Inputs, evaluating, forward
from cutaway.interp.patching.site import Place, Site, layers_of, place_of, token_axis
from cutaway.interp.recall import heard
from cutaway.interp.record import Edit, Recording, recording_of
from cutaway.interp.target import Target
from cutaway.models import ActiveTap, Decoder, Encoder, Model, Recurrent, Seq2Seq
from cutaway.models.cache import Prefix
from cutaway.progress import OnProgress, Progress

KNOWN = ("attn.k", "attn.v", "attn.z")
SAME = 2**62  # since when: never, the values are the same
TOKENS = 1024  # in a batch: matrices large enough to be fast, activations small enough to stay near


@dataclass(frozen=True)
class Put:
    """What is put where: one activation's numbers at a site.

    Attributes:
        site: where to.
        value: (1, …) of the whole activation, or what expands to it.
        since: the first token at which it may differ from what is there.
    """

    site: Site
    value: Tensor
    since: int = 0


Patch = Sequence[Put]  # what is put in together, in one run


def beginnings(model: Model) -> list[str]:
    """What a run has to hold so that patched runs can begin at any layer."""
    network = model.network
    if isinstance(network, Recurrent):
        names = ["embed", *(f"layers.{i}.{network.states}" for i in range(network.config.layers))]
    elif isinstance(network, Decoder):
        names = [f"layers.{i}.{part}" for i in range(network.config.layers) for part in ("resid_pre", *KNOWN)]
    else:
        names = [name for name in network.tap_names() if name.endswith("resid_pre")]
    if isinstance(network, Seq2Seq):
        names.append(heard(network))
    return [*names, network.tap_names()[-1]]


class Rerun:
    """A recorded run of one text, and what a target becomes when it is patched.

    Args:
        base: the run, of one text; what it does not hold is recorded once more. Its edits must be of embeddings.
        target: which number is asked about.

    Raises:
        ConfigError: several texts, or a run with edits elsewhere.
    """

    def __init__(self, base: Recording, target: Target) -> None:
        self.model, self.inputs, self.target = base.model, base.inputs, target
        if len(base.inputs) != 1:
            raise ConfigError(f"a patched run is of one text, but {len(base.inputs)} were given")
        if late := [name for name in base.edits if name.split(".")[-1] != "embed"]:
            raise ConfigError(f"the run that is patched has edits of {', '.join(late)}; it may have them of embeddings")
        self.base = base
        self.length = base.ids.shape[1]
        self.at = None if target.position is None else int(base.inputs.places(target.position)[0])
        self.plain = asked(base, target)

    @torch.no_grad()
    def __call__(
        self, patches: Sequence[Patch], *, batch: int = 0, progress: OnProgress | None = None
    ) -> Float64[Tensor, " N"]:
        """The target in each patched run, (N,) float64.

        Args:
            patches: what is put in, run by run.
            batch: runs at a time; 0: as many as hold about a thousand tokens.
            progress: told how many runs are done.

        Raises:
            InputError: a batch below 0.
            NonFinite: a patched run computes a NaN or an infinity; names the site.
        """
        if batch < 0:
            raise InputError(f"batch must be 0 or more runs at a time, but {batch} was given")
        given, patches = patches, [[self._earliest(put) for put in patch] for patch in patches]
        found = torch.full((len(patches),), torch.nan, dtype=torch.float64)
        groups: dict[Place, list[int]] = {}
        for i, patch in enumerate(patches):
            if all(map(self._idle, patch)):
                found[i] = self.plain
                continue
            groups.setdefault(self._start(patch), []).append(i)
        self.base = recording_of(self.base, "", self._needed(groups)) if groups else self.base
        done = 0
        with evaluating(self.model):
            for start, members in groups.items():
                members.sort(key=lambda i: self._first(start, patches[i]))  # together what shares its first tokens
                while members:
                    tokens = self.length - self._first(start, patches[members[0]])
                    size = batch or max(1, TOKENS // tokens)
                    rows, members = members[:size], members[size:]
                    found[rows] = self._run(start, [patches[i] for i in rows]).double().cpu()
                    done += len(rows)
                    if progress is not None:
                        progress(Progress("patching", done, len(patches), "runs"))
        for i, patch in enumerate(given):
            if not found[i].isfinite():
                where = " and ".join(put.site.label for put in patch)
                raise NonFinite(f"with {where} patched the model computes a NaN or an infinity; look at what is put in")
        return found

    # what has to be known

    def _earliest(self, put: Put) -> Put:
        """The same at the next layer's beginning, where that is what is patched."""
        place = place_of(self.model, put.site.name)
        if place.rest != "resid_post" or place.layer + 1 >= layers_of(self.model, encodes=place.encodes):
            return put
        name = f"{'encoder.' * place.encodes}layers.{place.layer + 1}.resid_pre"
        return replace(put, site=replace(put.site, name=name))

    def _start(self, patch: Patch) -> Place:
        """Where the computation of a patched run begins: its layer, and whether the attention there is needed."""
        first: Place | None = None
        for put in patch:
            place = place_of(self.model, put.site.name)
            if first is None or (not place.encodes, place.layer) < (not first.encodes, first.layer):
                first = place
            elif (place.encodes, place.layer) == (first.encodes, first.layer) and not place.after_z:
                first = place
        assert first is not None
        known = isinstance(self.model.network, Decoder) and first.after_z
        return Place(first.encodes, first.layer, "z" if known else "")

    def _needed(self, starts: Iterable[Place]) -> list[str]:
        """What the recording must hold for runs that begin there."""
        network, names = self.model.network, []
        for start in starts:
            if start.layer < 0:
                continue
            names.append(self._stream(start))
            if isinstance(network, Decoder):
                names += [f"layers.{start.layer}.attn.z"] if start.rest else []
                names += [f"layers.{i}.attn.{part}" for i in range(network.config.layers) for part in "kv"]
            if isinstance(network, Seq2Seq):
                names += ["layers.0.resid_pre", heard(network)]
        return list(dict.fromkeys(names))

    def _stream(self, start: Place) -> str:
        """The name of what the first computed layer reads."""
        prefix, count = "encoder." * start.encodes, layers_of(self.model, encodes=start.encodes)
        if isinstance(self.model.network, Recurrent):
            return f"layers.{start.layer - 1}.{self.model.network.states}" if start.layer else "embed"
        if start.layer < count:
            return f"{prefix}layers.{start.layer}.resid_pre"
        return f"{prefix}layers.{count - 1}.resid_post"

    def _since(self, patch: Patch) -> int:
        """The first token of the text at which a patch changes anything."""
        firsts = []
        for put in patch:
            places = put.site.positions(self.length) if isinstance(self.model.network, Decoder) else None
            firsts.append(max(put.since, 0 if places is None else min(places)))
        return min(firsts)

    def _idle(self, put: Put) -> bool:
        """Whether what is put in is what is there, or stands where the target cannot see it."""
        if put.site.name.startswith("encoder."):
            return put.since >= SAME
        places = put.site.positions(self.length)
        places = range(self.length) if places is None else places
        if put.since >= self.length:
            return True
        if isinstance(self.model.network, Encoder) or getattr(self.model.config, "bidirectional", False):
            return False
        return all(place < put.since or (self.at is not None and place > self.at) for place in places)

    def _first(self, start: Place, patch: Patch) -> int:
        """The first token that has to be computed."""
        network = self.model.network
        if self.at is None or not self._cuts(network) or not start.layer >= 0 or _behind(patch):
            return 0
        return min(self._since(patch), self.at)

    def _cuts(self, network: object) -> bool:
        """Whether tokens may be left out: none that is computed would be another number without them."""
        if not isinstance(network, Decoder) or self.inputs.mask is not None or self.at is None:
            return False
        scaling = network.config.rotary_scaling  # these turn by the length of the whole text
        return scaling is None or scaling.kind not in ("dynamic", "longrope")

    # runs

    def _run(self, start: Place, patches: Sequence[Patch]) -> Tensor:
        """The target of some runs that begin at the same place, (B,)."""
        network, rows = self.model.network, len(patches)
        if start.layer < 0:
            inputs = self.inputs.repeat(rows)
            edits = self._edits(patches) | {name: self._by_row(edit) for name, edit in self.base.edits.items()}
            for name in self._edits(patches).keys() & self.base.edits.keys():
                edits[name] = partial(_both, self._by_row(self.base.edits[name]), self._edits(patches)[name])
            return self.target(forward(self.model, inputs, ActiveTap(edits=edits)), inputs)
        if isinstance(network, Decoder):
            return self._run_decoder(network, start, patches)
        tap = ActiveTap(edits=self._edits(patches))
        x = self.base[self._stream(start)].expand(rows, -1, -1)
        mask = None if self.inputs.mask is None else self.inputs.mask.expand(rows, -1)
        if isinstance(network, Recurrent):
            return self._read(network.resume(start.layer, x, mask=mask, tap=tap), mask, tap)
        if isinstance(network, Encoder):
            types = None if self.inputs.token_types is None else self.inputs.token_types.expand(rows, -1)
            return self._read(network.resume(start.layer, x, mask=mask, token_types=types, tap=tap), mask, tap)
        assert isinstance(network, Seq2Seq)
        real = self.inputs.source_mask
        real = None if real is None else real.expand(rows, -1)
        if start.encodes:
            states = network.encode_on(start.layer, x, mask=real, tap=tap)
            start, x = Place(False, 0, ""), self.base["layers.0.resid_pre"].expand(rows, -1, -1)
        else:
            states = self.base[heard(network)].expand(rows, -1, -1)
        x = network.resume(start.layer, x, states=states, mask=mask, source_mask=real, tap=tap)
        return self._read(x, None, tap)

    def _run_decoder(self, network: Decoder, start: Place, patches: Sequence[Patch]) -> Tensor:
        rows, count, mask = len(patches), network.config.layers, self.inputs.mask
        first = min(self._first(start, patch) for patch in patches)
        cut = self._cuts(network) and not any(map(_behind, patches))
        end = self.at + 1 if cut and self.at is not None else self.length  # no token sees a later one
        edits = self._edits(patches, first, end)
        tap = ActiveTap(edits=edits)
        x = self.base[self._stream(start)][:, first:end].expand(rows, -1, -1)
        z = self.base[f"layers.{start.layer}.attn.z"][:, :, first:end].expand(rows, -1, -1, -1) if start.rest else None
        before = None
        if first:
            keys, values = ([self.base[f"layers.{i}.attn.{part}"][:, :, :first] for i in range(count)] for part in "kv")
            before = Prefix(keys, values)
        alone = cut and not any(name.startswith(f"layers.{count - 1}.") for name in edits)
        mask = None if mask is None else mask.expand(rows, -1)
        wanted = end - first - 1 if alone else None
        x = network.resume(start.layer, x, mask=mask, before=before, z=z, wanted=wanted, tap=tap)
        return self._read(x[:, -1:] if cut else x, mask, tap, row=0 if cut else self.at)

    def _read(self, x: Tensor, mask: Tensor | None, tap: ActiveTap, row: int | None = None) -> Tensor:
        """The target out of the last stream, of the one token that is asked about where there is one."""
        network = self.model.network
        row = self.at if row is None else row
        given: dict[str, Any] = {"mask": mask} if isinstance(network, Decoder | Encoder) else {}
        if isinstance(network, Encoder) and self.inputs.token_types is not None:
            given["token_types"] = self.inputs.token_types.expand(len(x), -1)
        if row is None or any(map(_is_behind, tap.replacements)):
            inputs = self.inputs.repeat(len(x))
            return self.target(network.read_out(x, **given, tap=tap), inputs)
        output = network.read_out(x[:, row : row + 1], tap=tap)
        return replace(self.target, position=0)(output, Inputs(self.inputs.ids[:, :1].expand(len(x), -1)))

    # edits

    def _edits(self, patches: Sequence[Patch], first: int = 0, end: int | None = None) -> dict[str, Edit]:
        """Name -> the edit of all rows that patch it."""
        by_name: dict[str, list[tuple[int, Put]]] = {}
        for row, patch in enumerate(patches):
            for put in patch:
                by_name.setdefault(put.site.name, []).append((row, put))
        return {name: partial(self._put, puts, first, end) for name, puts in by_name.items()}

    def _put(self, puts: Sequence[tuple[int, Put]], first: int, end: int | None, x: Tensor) -> Tensor:
        """The rows of one activation, each with what is put into it."""
        x = x.clone()
        for row, put in puts:
            value = put.value.to(x)
            axis = token_axis(put.site.name, x)
            length = None
            if axis is not None:
                if (first or end is not None) and value.ndim == x.ndim and value.shape[axis] > 1:
                    value = value.narrow(axis, first, x.shape[axis])
                    if put.site.name.endswith(("scores", "pattern")):
                        value = value[..., : x.shape[-1]]
                length = self.length if end is not None else None
            index = put.site.index(x.shape[1:], before=first, length=length)
            x[row][index] = value.expand(1, *x.shape[1:])[0][index]
        return x

    def _by_row(self, edit: Edit) -> Edit:
        """An edit of one text's run, of every row."""
        return lambda x: torch.cat([edit(row[None]) for row in x])


def asked(recording: Recording, target: Target) -> float:
    """The target of a recorded run of one text, in the precision of the network, which `logits` may have lost."""
    last = recording.model.network.tap_names()[-1]  # what the network returns
    return float(target(recording_of(recording, "", [last])[last], recording.inputs)[0])


def _is_behind(name: str) -> bool:
    """Whether an activation is one of the head's, behind all layers."""
    return not name.startswith(("layers.", "encoder.")) and name != "embed"


def _behind(patch: Patch) -> bool:
    return any(_is_behind(put.site.name) for put in patch)


def _both(first: Edit, second: Edit, x: Tensor) -> Tensor:
    return second(first(x))
