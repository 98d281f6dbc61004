"""Path patching: what one part says to another directly, with everything else held as it was.

Goldowsky-Dill et al. 2023 (https://arxiv.org/abs/2304.05969); Wang et al. 2022 (https://arxiv.org/abs/2211.00593). One
run holds every head and every MLP at its corrupt value, puts the sender's clean value in, and shows what the receiver
then reads. A second run puts that, and nothing else, into the receiver.

Shapes: B rows of a batch, H heads, T tokens, R layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from cutaway.errors import ConfigError, unknown
from cutaway.interp.inputs import Text, forward
from cutaway.interp.patching.pairs import Align, Pair
from cutaway.interp.patching.patch import study
from cutaway.interp.patching.rerun import TOKENS, Put
from cutaway.interp.patching.site import Site, heads_at, layers_of, place_of
from cutaway.interp.patching.sweep import Grid, Sweep, sweep_of
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.target import Quantity
from cutaway.models import ActiveTap, Model, Recurrent
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

HELD = ("attn.z", "cross_attn.z", "mlp_out")  # what parts say to each other, before it is added up


@torch.no_grad()
def path_patching(
    model: Model,
    text: Recording | Text,
    corrupt: Text | None = None,
    *,
    receiver: str = "logits",
    head: int | None = None,
    hold_mlps: bool = True,
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
    """Put each head's (and each MLP's) clean value into what one receiver reads, and nothing else.

    Args:
        model: what runs; of an encoder–decoder the decoder's side.
        text: the clean one, as in `patch`.
        corrupt: as in `patch`.
        receiver: "logits", which read the last residual stream, or an activation that some part reads, such as
            "layers.5.attn.q".
        head: of the receiver; None: all of them.
        hold_mlps: whether MLPs between sender and receiver are held too; else they answer to the sender, as in Wang et
            al.
        source: as in `patch`, and so are the others.
        corrupt_source: as in `patch`.
        align: as in `patch`.
        token: as in `patch`.
        minus: as in `patch`.
        position: as in `patch`.
        quantity: as in `patch`.
        normalise: as in `patch_sweep`.
        batch: senders at a time; 0: as many as hold about a thousand tokens.
        progress: told how many senders are done.

    Returns:
        Layers × heads, with a last column for the MLP where there is one. Senders from which no path leads to the
        receiver have no number.

    Raises:
        ConfigError: a recurrent model, whose parts speak through one state, or a receiver that is not there.
        InputError: as in `patch`.
    """
    clock = Clock(
        model, "path_patching", text, corrupt=corrupt, receiver=receiver, head=head, align=align, token=token,
        minus=minus, position=position, quantity=quantity, normalise=normalise, hold_mlps=hold_mlps, source=source,
        corrupt_source=corrupt_source,
    )  # fmt: skip
    if isinstance(model.network, Recurrent):
        raise ConfigError("a recurrent model's parts speak through one state, so there are no paths to patch")
    if head is not None and receiver == "logits":
        raise ConfigError(
            f"the logits have no heads, but head {head} was given; name a receiver such as layers.1.attn.q"
        )
    known = [name for name in model.network.tap_names() if name.startswith("layers.")]
    ends = receiver == "logits"
    if not ends and receiver not in known:
        raise ConfigError(unknown("receiver", receiver, ["logits", *known]))
    made = study(
        model, text, corrupt, source=source, corrupt_source=corrupt_source, align=align, token=token, minus=minus,
        position=position, quantity=quantity,
    )  # fmt: skip
    count = layers_of(model)
    before = count if ends else place_of(model, receiver).layer
    heads = heads_at(model, "layers.0.attn.z")
    cells = _senders(model, known, count, heads)
    reached = [place_of(model, site.name).layer < before for site in cells.sites]
    senders = [site for site, leads in zip(cells.sites, reached, strict=True) if leads]
    total = torch.zeros(len(senders), dtype=torch.float64)
    for pair, rerun in zip(made.pairs, made.reruns, strict=True):
        names = _held(known, hold_mlps)
        recording = recording_of(pair.corrupt, "", names)
        held = {name: recording[name] for name in names}
        values = pair.values(list(dict.fromkeys(site.name for site in senders))) if senders else {}
        size = batch or max(1, TOKENS // pair.corrupt.ids.shape[1])
        for start in range(0, len(senders), size):
            some = senders[start : start + size]
            output, read = _first_run(pair, held, some, values, None if ends else receiver)
            if ends:
                numbers = made.target(output, pair.corrupt.inputs.repeat(len(some))).double().cpu()
            else:
                numbers = rerun([[Put(Site(receiver, head=head), read[i : i + 1])] for i in range(len(some))])
            total[start : start + size] += numbers
            if progress is not None:
                progress(Progress("patching paths", start + len(some), len(senders), "senders"))
    patched = torch.full((len(cells.sites),), torch.nan, dtype=torch.float64)
    patched[torch.tensor(reached)] = total / len(made.pairs)
    change = made.change(patched)
    shown = made.recovered(patched) if normalise else change
    named = receiver if head is None else f"{receiver} head {head}"
    return sweep_of(
        made, cells, change, shown, f"{made.target.what}: what each head of the clean run says to {named} directly",
        "recovered" if normalise else made.target.quantity, clock, clean=float(made.clean.mean()),
    )  # fmt: skip


def _senders(model: Model, known: Sequence[str], count: int, heads: int) -> Grid:
    mlps = "layers.0.mlp_out" in known
    sites = []
    for i in range(count):
        sites += [Site(f"layers.{i}.attn.z", head=h) for h in range(heads)]
        sites += [Site(f"layers.{i}.mlp_out")] * mlps
    columns = [*map(str, range(heads)), *["mlp"] * mlps]
    return Grid([f"layer {i}" for i in range(count)], columns, "head", sites)


def _held(known: Sequence[str], mlps: bool) -> list[str]:
    parts = HELD if mlps else HELD[:2]
    return [name for name in known if name.split(".", 2)[2] in parts]


def _first_run(
    pair: Pair, held: Mapping[str, Tensor], senders: Sequence[Site], values: dict[str, Tensor], receiver: str | None
) -> tuple[Tensor, Tensor]:
    """The output, and what the receiver reads, (B, …), with each row's sender at its clean value and the rest held."""
    own: dict[str, list[tuple[int, Site]]] = {}
    for row, site in enumerate(senders):
        own.setdefault(site.name, []).append((row, site))

    def hold(name: str, x: Tensor) -> Tensor:
        x = held[name].expand_as(x).clone() if name in held else x.clone()
        for row, site in own.get(name, []):
            index = site.index(x.shape[1:])
            x[row][index] = values[name].to(x)[0][index]
        return x

    kept: dict[str, Tensor] = {}
    names = {*held, *own}
    edits = {name: partial(hold, name) for name in names}
    tap = ActiveTap([receiver] if receiver else [], edits, kept.__setitem__)
    output = forward(pair.model, pair.corrupt.inputs.repeat(len(senders)), tap)
    return output, kept[receiver] if receiver else output
