"""All features of a dictionary at a glance: how often and how strongly each is active, and where most.

Shapes: N rows, W features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.interp.features.dictionary import Features
from cutaway.interp.features.evaluate import explain
from cutaway.interp.features.mlp import samples_for
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Cell, Panel, Table
from cutaway.models import Model

AROUND = 3  # tokens before the strongest one that are shown


@torch.no_grad()
def feature_overview(
    model: Model,
    features: Features,
    texts: Sequence[Any],
    *,
    top: int = 200,
    source: Sequence[str] | Tensor | None = None,
) -> Panel:
    """Which features there are.

    Args:
        model: that the dictionary was trained on.
        features: a sparse autoencoder or a transcoder.
        texts: in which to look for them.
        top: how many features to list, those of the largest mean activation.
        source: what an encoder–decoder reads with each text.

    Returns:
        A panel of the table "features", with the share of the variance that is explained, features active per token
        and the share that are active nowhere as figures.

    Raises:
        InputError: top below 1.
        ConfigError: the dictionary does not name an activation of this model, or does not fit it.
    """
    if top < 1:
        raise InputError(f"top must be at least 1, but {top} was given")
    clock = Clock(model, "feature_overview", None, features=features, texts=list(texts), source=source)
    samples, x, y = samples_for(model, features, texts, source)
    active = features.encode(x.to(features.dtype))  # (N, W)
    worth = explain(features, x, y)
    means, (largest, where) = active.mean(0), active.max(0)
    rows: list[list[Cell]] = []
    for number in means.argsort(descending=True)[:top].tolist():
        if largest[number] <= 0:
            break
        at, text = int(where[number]), int(samples.texts[where[number]])
        first = at - min(AROUND, int(samples.places[at]))
        tokens = [model.tokenizer.token(i) for i in samples.ids[first : at + 1].tolist()]
        share = float((active[:, number] > 0).double().mean())
        rows.append([number, share, float(means[number]), float(largest[number]), tokens[-1], "".join(tokens), text])
    receipt = clock.receipt(bytes=x.numel() * x.element_size())
    columns = ["feature", "share of tokens", "mean", "largest", "strongest at", "context", "text"]
    name = features.config.name
    return Panel(
        f"Features of {name}",
        {"features": Table(f"{len(rows)} features of {name}, by mean activation", columns, rows, receipt=receipt)},
        [f"Of {len(x):,} tokens. A feature is a direction; what it is for, only editing it shows."],
        {"explained variance": worth.explained, "active per token": worth.active, "active nowhere": worth.dead},
        receipt=receipt,
    )
