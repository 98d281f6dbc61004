"""What attention, lenses, ledgers and saliencies suggest about causes, for `check` to try out.

Shapes: B texts, T queries or tokens, S keys, C channels, H heads, D head dim.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.interp.claims import Claim, Claims
from cutaway.interp.inputs import Inputs
from cutaway.interp.record import Edit, Recording
from cutaway.interp.target import Target

MOST = 256  # claims that are made; check tries the strongest and some of the rest
HEAD = re.compile(r"(?P<layer>(?:encoder\.)?layers\.\d+)\.(?P<kind>cross_)?head\.(?P<head>\d+)")
PART = re.compile(r"(?P<layer>(?:encoder\.)?layers\.\d+)\.mlp")
UNIT = re.compile(r"(?P<layer>layers\.\d+)\.unit\.(?P<unit>\d+)")


def of_attention(
    recording: Recording, target: Target, names: Sequence[str], tokens: Sequence[str], *, whole: bool
) -> Claims:
    """The strongest weights of all heads: that what is looked at matters.

    Args:
        recording: of the patterns.
        target: the number that is asked about.
        names: of the patterns, layer by layer.
        tokens: the keys, to be read.
        whole: whether the weights of all queries count, as in an encoder, whose every token may matter; else those of
            the query where the answer is read.
    """
    query = None if whole or target.position is None else int(recording.inputs.places(target.position)[0])
    claims = []
    for layer, name in enumerate(names):
        pattern = recording[name][0]  # (H, T, S)
        weights = pattern.mean(1) if query is None else pattern[:, query]  # (H, S)
        for head, row in enumerate(weights.tolist()):
            claims += [
                Claim(
                    f"layer {layer} head {head} → {tokens[key]} ({key})",
                    weight,
                    {name: without_weight(head, query, key)},
                )
                for key, weight in enumerate(row)
                if weight
            ]
    claims.sort(key=lambda claim: -claim.predicted)
    ablation = "a head's weight on one token becomes 0 and its other weights grow in proportion"
    return Claims(recording.model, recording.inputs, target, tuple(claims[:MOST]), ablation, "weight", signed=False)


def without_weight(head: int, query: int | None, key: int) -> Edit:
    """A pattern in which a head, at one query or at all, does not look at a key."""

    def edit(pattern: Float[Tensor, "B H T S"]) -> Float[Tensor, "B H T S"]:
        changed = pattern.clone()
        rows = slice(None) if query is None else slice(query, query + 1)
        part = changed[:, head, rows]
        part[..., key] = 0
        total = part.sum(-1, keepdim=True)
        changed[:, head, rows] = torch.where(total > 0, part / total.clamp(min=torch.finfo(part.dtype).tiny), part)
        return changed

    return edit


def of_lens(recording: Recording, target: Target, said: Sequence[float]) -> Claims:
    """That a layer does to the answer what the lens shows between the rows before and after it.

    Args:
        recording: of the run.
        target: the number that is asked about.
        said: what the lens reads for the target before the first layer and after each.
    """
    place = 0 if target.position is None else int(recording.inputs.places(target.position)[0])
    known = set(recording.model.network.tap_names())
    claims = []
    for layer in range(len(said) - 1):
        written = [f"layers.{layer}.{part}_out" for part in ("attn", "cross_attn", "mlp")]
        edits = {name: nothing_at(place) for name in written if name in known}
        claims.append(Claim(f"layer {layer}", said[layer + 1] - said[layer], edits))
    ablation = "a layer writes nothing at the token where the answer is read"
    return Claims(recording.model, recording.inputs, target, tuple(claims), ablation, "change of the lens")


def of_ledger(recording: Recording, inputs: Inputs, target: Target, terms: Mapping[str, float]) -> Claims:
    """That without a head, an MLP or a unit the number falls by its term.

    Args:
        recording: of the run.
        inputs: of it the text that was opened.
        target: the number that was opened.
        terms: name -> value.
    """
    place = None if target.position is None else int(inputs.places(target.position)[0])
    claims = []
    for name, value in terms.items():
        edits: dict[str, Edit] = {}
        at = None if name.startswith("encoder.") else place
        if found := HEAD.fullmatch(name):
            edits = {f"{found['layer']}.{found['kind'] or ''}attn.z": nothing_at(at, head=int(found["head"]))}
        elif found := PART.fullmatch(name):
            edits = {f"{found['layer']}.mlp_out": nothing_at(at)}
        elif found := UNIT.fullmatch(name):
            edits = {f"{found['layer']}.hidden": nothing_at(at, unit=int(found["unit"]))}
        if edits:
            claims.append(Claim(name.replace("layers.", "layer ").replace(".", " "), value, edits))
    ablation = "a part writes zeros at the token where the answer is read"
    return Claims(recording.model, inputs, target, tuple(claims), ablation, target.quantity)


def nothing_at(place: int | None, *, head: int | None = None, unit: int | None = None) -> Edit:
    """Zeros at one token (B, T, C), or of one head (B, H, T, D), or one unit; None: at all tokens."""

    def edit(x: Tensor) -> Tensor:
        changed = x.clone()
        rows = slice(None) if place is None else slice(place, place + 1)
        if head is not None:
            changed[:, head, rows] = 0
        elif unit is not None:
            changed[:, rows, unit] = 0
        else:
            changed[:, rows] = 0
        return changed

    return edit


def of_saliency(recording: Recording, target: Target, parts: Sequence[tuple[str, str, Sequence[int], float]]) -> Claims:
    """That without a part of the input the number falls by its score.

    Args:
        recording: of the run; only what it read is needed.
        target: the number that is asked about.
        parts: of each its label, its side ("source" or "target"), the positions it stands at, and its score.
    """
    claims = tuple(
        Claim(label, score, {_embedding(recording, side): typical_at(recording, side, places)})
        for label, side, places, score in parts
        if len(places)
    )
    ablation = "a part of the text gets the mean of all embeddings in place of its own"
    return Claims(recording.model, recording.inputs, target, claims, ablation, target.quantity)


def _embedding(recording: Recording, side: str) -> str:
    return "encoder.embed" if side == "source" and "encoder.embed" in recording.model.network.tap_names() else "embed"


def typical_at(recording: Recording, side: str, places: Sequence[int]) -> Edit:
    """Embeddings (B, T, C) in which some tokens have the mean embedding of the vocabulary; their positions stay."""
    network: Any = recording.model.network
    ids = recording.inputs.source if side == "source" else recording.inputs.ids
    assert ids is not None
    table, at = network.embed_tokens, list(places)
    scale = getattr(network.config, "embed_scale", 1.0)

    def edit(x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        everything = torch.arange(network.config.vocab_size, device=x.device)
        mean = torch.stack([table(part).mean(0) * len(part) for part in everything.split(8192)]).sum(0)
        change = (mean / len(everything) - table(ids[:1, at])) * scale  # (1, N, C)
        changed = x.clone()
        changed[:, at] = changed[:, at] + change.to(x)
        return changed

    return edit
