"""Try out what a view suggests: predicted against actual effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.interp.claims import Claim, Claims
from cutaway.interp.inputs import Inputs, forward
from cutaway.interp.receipt import Clock, going_on
from cutaway.interp.results import Cell, Panel, Result, Table
from cutaway.models import ActiveTap
from cutaway.progress import OnProgress, Progress

LEAST = 3  # claims below which a correlation says nothing


@torch.no_grad()
def check(view: Result, *, most: int = 24, seed: int = 0, progress: OnProgress | None = None) -> Panel:
    """Run the ablations that a correlational view suggests, and compare the effects with what it predicts.

    Half of the claims tried are the strongest; the others are drawn from the rest, as a view that is right must also be
    right about what does not matter.

    Args:
        view: what an analysis returned: attention, a lens, a saliency, a ledger, a probe.
        most: how many claims to try; each is one run of the model.
        seed: of the claims drawn.
        progress: told of every run.

    Returns:
        A table of predicted and actual effects; the figures are their Pearson and Spearman correlations, how often the
        sign is right where the view has signs, and how much of the actual effect the tried claims found in all.

    Raises:
        ConfigError: the view suggests nothing that can be tried.
    """
    claims = view.claims() if view.claims is not None else None
    if claims is None or len(claims.claims) < LEAST:
        raise ConfigError(
            f"this {type(view).__name__} suggests nothing that can be tried; check takes attention, a lens, a "
            "saliency, a ledger or a probe of a text with several tokens"
        )
    clock = Clock(claims.model, "check")
    clock.code = going_on(view.receipt.code, "view", "check", f", most={most}, seed={seed}")
    plain = _number(claims, Claim("", 0.0))
    tried = _chosen(claims.claims, most, seed)
    actual = []
    for i, claim in enumerate(tried):
        actual.append(plain - _number(claims, claim))
        if progress is not None:
            progress(Progress("checking", i + 1, len(tried), "runs"))
    predicted = torch.tensor([claim.predicted for claim in tried], dtype=torch.float64)
    effect = torch.tensor(actual, dtype=torch.float64)
    compared = effect if claims.signed else effect.abs()
    pearson, spearman = correlation(predicted, compared), rank_correlation(predicted, compared)
    figures = {"Pearson correlation": pearson, "Spearman correlation": spearman}
    large = effect.abs() > 1e-3 * effect.abs().max()
    if claims.signed and bool(large.any()):
        figures["sign is right"] = float((predicted.sign() == effect.sign())[large].double().mean())
    ordered = sorted(zip(tried, actual, strict=True), key=lambda pair: -abs(pair[1]))
    rows: list[list[Cell]] = [[claim.label, claim.predicted, value] for claim, value in ordered]
    table = Table(
        "predicted and actual effect", ["what", f"predicted ({claims.unit})", "actual"], rows, receipt=clock.receipt()
    )
    notes = [
        f"Asked about the {claims.target.what}: {plain:.4g} in the plain run.",
        f"Each row takes one thing away: {claims.ablation}.",
        _verdict(pearson, claims.signed),
    ]
    return Panel("Does the view say what matters?", {"claims": table}, notes, figures, receipt=clock.receipt(seed=seed))


def correlation(a: Float64[Tensor, " N"], b: Float64[Tensor, " N"]) -> float:
    """Pearson's; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    size = a.norm() * b.norm()
    return float(a @ b / size) if size > 0 else 0.0


def rank_correlation(a: Float64[Tensor, " N"], b: Float64[Tensor, " N"]) -> float:
    """Spearman's: Pearson's of the ranks, equal values sharing the middle one."""
    ranks = [((x[:, None] > x).sum(1) + ((x[:, None] == x).sum(1) + 1) / 2).double() for x in (a, b)]
    return correlation(*ranks)


def _chosen(claims: tuple[Claim, ...], most: int, seed: int) -> list[Claim]:
    ordered = sorted(claims, key=lambda claim: -abs(claim.predicted))
    if len(ordered) <= most:
        return ordered
    strongest, rest = ordered[: (most + 1) // 2], ordered[(most + 1) // 2 :]
    drawn = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[: most // 2]
    return strongest + [rest[i] for i in sorted(drawn.tolist())]


def _number(claims: Claims, claim: Claim) -> float:
    """The target without what a claim names."""
    inputs = claims.inputs.rows(0, 1)
    if claim.ids:
        inputs = replace(inputs, ids=_put(inputs.ids, claim.ids))
    if claim.source_ids and inputs.source is not None:
        inputs = replace(inputs, source=_put(inputs.source, claim.source_ids))
    return float(claims.target(_output(claims, inputs, claim), inputs)[0])


def _output(claims: Claims, inputs: Inputs, claim: Claim) -> Tensor:
    return forward(claims.model, inputs, ActiveTap(edits=claim.edits)) if claim.edits else forward(claims.model, inputs)


def _put(ids: Tensor, changes: Mapping[int, int]) -> Tensor:
    changed = ids.clone()
    for place, id_ in changes.items():
        changed[:, place] = id_
    return changed


def _verdict(found: float, signed: bool) -> str:
    what = "direction and size" if signed else "size"
    if found >= 0.8:
        return f"What the view says agrees with what happens, in {what} (correlation {found:.2f})."
    if found >= 0.4:
        return f"What the view says agrees only partly with what happens (correlation {found:.2f}): look at the rows."
    return f"What the view says does not tell what happens (correlation {found:.2f}): do not read causes into it."
