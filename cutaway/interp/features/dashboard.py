"""One feature in plain sight: where it is active, how strongly, what it makes the model say, and what is like it.

Shapes: N rows, W features, O channels written, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.interp.features.dictionary import Features
from cutaway.interp.features.mlp import samples_for
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Cell, Curve, Panel, Result, Table, TokenScores
from cutaway.models import Decoder, Model
from cutaway.models.layers import RMSNorm

BINS = 20


@dataclass(frozen=True)
class Dashboard(Panel):
    """What `feature_dashboard` found.

    Attributes:
        feature: which.
        contexts: the texts in which it was strongest, strongest first, with its activation at each token.
    """

    feature: int = field(kw_only=True)
    contexts: list[TokenScores] = field(kw_only=True, repr=False, compare=False)


@torch.no_grad()
def feature_dashboard(
    model: Model,
    features: Features,
    texts: Sequence[Any],
    *,
    feature: int | None = None,
    top: int = 5,
    source: Sequence[str] | Tensor | None = None,
) -> Dashboard:
    """Look at one feature.

    Args:
        model: that the dictionary was trained on.
        features: a sparse autoencoder or a transcoder.
        texts: in which to look for it.
        feature: which, from 0; None takes the strongest at any token.
        top: how many texts, tokens and neighbours to show.
        source: what an encoder–decoder reads with each text.

    Raises:
        InputError: a feature that is not there, or top below 1.
        ConfigError: the dictionary does not name an activation of this model, or does not fit it.
    """
    if top < 1:
        raise InputError(f"top must be at least 1, but {top} was given")
    if feature is not None and not 0 <= feature < features.config.width:
        raise InputError(f"features are 0 … {features.config.width - 1}, but {feature} was given")
    given = {"features": features, "texts": list(texts), "source": source, "feature": feature, "top": top}
    clock = Clock(model, "feature_dashboard", None, **given)
    samples, x, _ = samples_for(model, features, texts, source)
    active = features.encode(x.to(features.dtype))  # (N, W)
    if feature is None:
        feature = int(active.amax(0).argmax())
    own = active[:, feature]
    fired = own > 0
    receipt = clock.receipt(bytes=x.numel() * x.element_size())
    notes = []
    parts: dict[str, Result] = {}
    contexts: list[TokenScores] = []
    strongest = torch.full((int(samples.texts.max()) + 1,), -1.0, dtype=own.dtype)
    strongest.scatter_reduce_(0, samples.texts, own, "amax")
    for text in strongest.argsort(descending=True)[:top].tolist():
        if strongest[text] <= 0:
            break
        rows = samples.texts == text
        ids = samples.ids[rows].tolist()
        tokens = [model.tokenizer.token(i) for i in ids]
        what = f"feature {feature} in text {text}"
        contexts.append(TokenScores(what, "activation", tokens, ids, own[rows].tolist(), receipt=receipt))
        parts[f"context {len(contexts)}"] = contexts[-1]
    if fired.any():
        parts["histogram"] = _histogram(own[fired], feature, receipt)
    else:
        notes.append("This feature is active nowhere in these texts.")
    effects = _logits(model, features, feature)
    if effects is None:
        notes.append("What it writes does not go straight to next tokens in this network, so no tokens are named.")
    else:
        parts["promoted"] = _tokens(model, effects, top, "Tokens whose logit it raises", receipt)
        parts["suppressed"] = _tokens(model, -effects, top, "Tokens whose logit it lowers", receipt, -1.0)
    parts["nearest"] = _nearest(features, feature, active, top, receipt)
    notes.append(
        "Contexts show what a feature is active on in these texts, not what it is for; edit it, and see what changes."
    )
    share = float(fired.double().mean())
    figures = {"share of tokens": share, "largest": float(own.max())}
    title = f"Feature {feature} of {features.config.name}"
    return Dashboard(title, parts, notes, figures, feature=feature, contexts=contexts, receipt=receipt)


def _histogram(values: Tensor, feature: int, receipt: Any) -> Curve:
    """How often the feature is how strong, where it is active at all."""
    counts = torch.histc(values.float(), BINS, 0.0, float(values.max()))
    width = float(values.max()) / BINS
    at = [(i + 0.5) * width for i in range(BINS)]
    lines: dict[str, list[float | None]] = {"tokens": counts.tolist()}
    return Curve(f"How strong feature {feature} is", "activation", "tokens", at, lines, receipt=receipt)


def _logits(model: Model, features: Features, feature: int) -> Float[Tensor, " V"] | None:
    """What one unit of the feature adds to each logit if nothing reads it on the way, up to the final norm's scale."""
    network = model.network
    config = features.config
    writes = config.transcoder or config.name.endswith(("_pre", "_mid", "_post", "_out", "embed"))
    if not isinstance(network, Decoder) or network.config.head != "causal_lm" or not writes or "mlp.p" in config.name:
        return None
    direction = features.decoder[feature].to(network.lm_head.weight)
    if isinstance(network.norm, nn.Identity):
        pass
    elif isinstance(network.norm, nn.LayerNorm):
        direction = (direction - direction.mean()) * network.norm.weight
    else:
        assert isinstance(network.norm, RMSNorm)
        direction = direction * network.norm.scale
    effects = network.lm_head.weight @ direction
    return effects - effects.mean()


def _tokens(model: Model, effects: Tensor, top: int, what: str, receipt: Any, sign: float = 1.0) -> Table:
    values, ids = effects.topk(min(top, len(effects)))
    rows: list[list[Cell]] = [
        [model.tokenizer.token(i), sign * value] for i, value in zip(ids.tolist(), values.tolist(), strict=True)
    ]
    return Table(what, ["token", "logit per unit"], rows, receipt=receipt)


def _nearest(features: Features, feature: int, active: Tensor, top: int, receipt: Any) -> Table:
    """Features that write in like directions, and how often they are active together."""
    cosines = features.decoder @ features.decoder[feature]
    cosines[feature] = -2.0  # of itself it is 1
    values, chosen = cosines.topk(min(top, len(cosines) - 1))
    own = active[:, feature] > 0
    rows: list[list[Cell]] = []
    for other, cosine in zip(chosen.tolist(), values.tolist(), strict=True):
        there = active[:, other] > 0
        either = int((own | there).sum())
        rows.append([other, cosine, int((own & there).sum()) / either if either else None])
    return Table("Features that write alike", ["feature", "cosine", "active together"], rows, receipt=receipt)
