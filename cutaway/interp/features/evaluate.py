"""What a dictionary of features is worth: what it explains, what the model loses by it, and what it finds again.

Shapes: N rows, C channels read, O channels written, W features, B texts, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.features.dictionary import Features
from cutaway.interp.features.match import Match, match_directions
from cutaway.interp.features.mlp import decoder_of, mlp_input, mlp_layer, read_at, samples_for
from cutaway.interp.inputs import forward, inputs_of
from cutaway.interp.receipt import Clock, Receipt
from cutaway.interp.record import Edit
from cutaway.interp.results import Cell, Panel, Table
from cutaway.models import OFF, ActiveTap, Decoder, Model, Tap


@dataclass(frozen=True)
class Explained:
    """How much of what was to be written a dictionary writes.

    Attributes:
        explained: share of the variance.
        active: features active per row (L0).
        dead: share of the features that were active in no row.
        shrinkage: what is written over what was to be written, by least squares: 1 where lengths are right, below where
            activations are too small.
    """

    explained: float
    active: float
    dead: float
    shrinkage: float


@torch.no_grad()
def explain(
    features: Features, x: Float[Tensor, "N C"], y: Float[Tensor, "N O"] | None = None, *, batch: int = 4096
) -> Explained:
    """Run a dictionary over activations.

    Args:
        features: of which.
        x: what it reads.
        y: what it is to write; None: what it reads.
        batch: rows at once.
    """
    y = x if y is None else y
    mean = y.double().mean(0)
    missed = spread = along = own = torch.zeros((), dtype=torch.float64)
    count, fired = 0, torch.zeros(features.config.width, dtype=torch.bool)
    for start in range(0, len(x), batch):
        read, wanted = x[start : start + batch].to(features.dtype), y[start : start + batch].double()
        active = features.encode(read)
        written = features.decode(active).double()
        count += int((active != 0).sum())
        fired |= (active != 0).any(0)
        missed = missed + (written - wanted).square().sum()
        spread = spread + (wanted - mean).square().sum()
        part = written - features.bias.double()
        along, own = along + (part * (wanted - features.bias.double())).sum(), own + part.square().sum()
    # by how much what is written would have to be stretched to fit best
    stretch = float(along / own) if float(own) else math.inf
    return Explained(1 - float(missed / spread), count / len(x), 1 - float(fired.double().mean()), 1 / stretch)


@dataclass(frozen=True)
class Evaluated(Panel):
    """What `evaluate_features` found.

    Attributes:
        match: with the planted directions; None without any.
    """

    match: Match | None = field(kw_only=True, repr=False, compare=False)


def evaluate_features(
    model: Model | Tensor,
    features: Features,
    texts: Sequence[Any] | Tensor | None = None,
    *,
    source: Sequence[str] | Tensor | None = None,
    planted: Float[Tensor, "P O"] | None = None,
    batch: int = 16,
    seed: int = 0,
) -> Evaluated:
    """What a dictionary of features is worth, beside its baselines.

    In the model the activation is replaced by what the dictionary writes of it, by zeros, and by its mean; *loss
    recovered* is the share of the way from zeros to the plain run that the replacement keeps, in mean cross-entropy of
    the next token (Bricken et al. 2023). Against planted directions stand those of as many random ones.

    Args:
        model: that it was trained on; or activations (N, C) to run it over, without any model.
        features: a sparse autoencoder or a transcoder; its `config.name` says what it stands for.
        texts: what the model reads; texts that it was not trained on say more. For a transcoder over activations, what
            it is to write (N, O).
        source: what an encoder–decoder reads with each text.
        planted: (P, O) true directions, if they are known.
        batch: texts that are run together.
        seed: of the random directions.

    Raises:
        ConfigError: the dictionary does not name an activation of this model, or does not fit it.
        InputError: no texts.
    """
    options = {"features": features, "source": source, "seed": seed}
    notes: list[str] = []
    if isinstance(model, Tensor):
        if features.config.transcoder and not isinstance(texts, Tensor):
            raise ConfigError("a transcoder over activations needs what it is to write as well: give it after features")
        found = explain(features, model, texts if isinstance(texts, Tensor) else None)
        clock, figures, difference = None, {}, 0.0
    else:
        if texts is None or isinstance(texts, Tensor):
            raise InputError("with a model, give the texts that it reads")
        clock = Clock(model, "evaluate_features", None, texts=list(texts), **options)
        _, x, y = samples_for(model, features, texts, source)
        found = explain(features, x, y)
        figures, difference = _losses(model, features, texts, source, y.double().mean(0), batch)
        if not figures:
            notes.append("The loss is that of the next token, which this model does not predict; it is left out.")
    match = None
    if planted is not None:
        match = match_directions(features.decoder, planted)
        random = torch.randn(features.decoder.shape, generator=torch.Generator().manual_seed(seed))
        base = match_directions(random, planted)
        figures = figures | {"mcc": match.mcc, "unique": match.unique, "mcc of random directions": base.mcc}
    figures = {
        "explained variance": found.explained,
        "active features": found.active,
        "dead features": found.dead,
        "shrinkage": found.shrinkage,
    } | figures
    rows: list[list[Cell]] = [[name, value] for name, value in figures.items()]
    if clock is None:
        dtype = str(features.dtype).removeprefix("torch.")
        receipt = Receipt(0.0, 0.0, 0, dtype, features.config.name, seed)
    else:
        receipt = clock.receipt(seed=seed, difference=difference)
    notes += [
        "Dead: active in no row of these. Shrinkage below 1: what is written is too short, as the cost of the sum of "
        "activations makes it.",
        *(["A high match with directions that were planted says nothing on models, whose directions nobody knows."]
          if planted is not None else []),
    ]  # fmt: skip
    table = Table("Of the dictionary", ["figure", "value"], rows, receipt=receipt)
    title = f"{features.config.width} features ({features.config.kind}) of {features.config.name or 'activations'}"
    return Evaluated(title, {"numbers": table}, notes, figures, match=match, receipt=receipt)


def _losses(
    model: Model,
    features: Features,
    texts: Sequence[Any],
    source: Sequence[str] | Tensor | None,
    mean: Tensor,
    batch: int,
) -> tuple[dict[str, float], float]:
    """Cross-entropy in nats of plain and replaced runs, and how far the dictionary moved logits at the most.

    Nothing for models that do not predict the next token.
    """
    if getattr(model.config, "head", "causal_lm") != "causal_lm":
        return {}, 0.0
    totals = dict.fromkeys(("plain", "replaced", "zeros", "mean"), 0.0)
    count, difference = 0, 0.0
    for start in range(0, len(texts), batch):
        part = None if source is None else source[start : start + batch]
        inputs = inputs_of(model, list(texts[start : start + batch]), part)
        if inputs.ids.shape[1] < 2:
            continue
        known = torch.ones_like(inputs.ids, dtype=torch.bool) if inputs.mask is None else inputs.mask
        known = known[:, 1:] & known[:, :-1]
        count += int(known.sum())
        plain = torch.zeros(())
        for way in totals:
            with torch.no_grad():
                logits = forward(model, inputs, _tap(model, features, way, mean))[:, :-1].float()
            if way == "plain":
                plain = logits
            elif way == "replaced":
                difference = max(difference, float((logits - plain)[known].abs().max()))
            totals[way] += float(F.cross_entropy(logits[known], inputs.ids[:, 1:][known], reduction="sum"))
    if not count:
        raise InputError("the texts have one token each: there is no next one to predict")
    losses = {way: total / count for way, total in totals.items()}
    gone = losses["zeros"] - losses["plain"]
    recovered = (losses["zeros"] - losses["replaced"]) / gone if abs(gone) > 1e-9 else math.nan
    return {"loss recovered": recovered} | {f"loss, {way}": value for way, value in losses.items()}, difference


def _tap(model: Model, features: Features, way: str, mean: Tensor) -> Tap:
    """A tap that replaces what the dictionary stands for."""
    if way == "plain":
        return OFF
    config = features.config
    place = f"{config.name}_out" if config.transcoder else config.name
    if way == "zeros":
        return ActiveTap((), {place: torch.zeros_like})
    if way == "mean":
        return ActiveTap((), {place: lambda x: _wide(mean.to(x), x)})
    if not config.transcoder:
        return ActiveTap((), {place: lambda x: _replaced(features, x)})
    network = decoder_of(model, "a transcoder")
    return ActiveTap((), replaced_mlps(network, {mlp_layer(model, config.name): features}))


def replaced_mlps(network: Decoder, transcoders: dict[int, Features]) -> dict[str, Edit]:
    """Edits that put transcoders in the place of MLPs, by layer."""
    edits: dict[str, Edit] = {}
    for layer, transcoder in transcoders.items():
        seen: dict[str, Tensor] = {}
        name = read_at(network, layer)

        def keep(x: Tensor, seen: dict[str, Tensor] = seen, name: str = name) -> Tensor:
            seen[name] = x
            return x

        def write(
            x: Tensor, seen: dict[str, Tensor] = seen, layer: int = layer, transcoder: Features = transcoder
        ) -> Tensor:
            return transcoder(mlp_input(network, layer, seen).to(transcoder.decoder)).to(x)

        edits[name], edits[f"layers.{layer}.mlp_out"] = keep, write
    return edits


def _replaced(features: Features, x: Tensor) -> Tensor:
    """What a dictionary writes of an activation; heads are read side by side."""
    if x.ndim != 4:
        return features(x.to(features.decoder)).to(x)
    flat = x.transpose(1, 2).flatten(2)
    return features(flat.to(features.decoder)).to(x).unflatten(2, (x.shape[1], x.shape[3])).transpose(1, 2)


def _wide(mean: Tensor, x: Tensor) -> Tensor:
    return mean.expand_as(x) if x.ndim != 4 else mean.view(x.shape[1], 1, x.shape[3]).expand_as(x)
