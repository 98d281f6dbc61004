"""What counts in a graph of many nodes, and what of it is kept to be looked at (after Ameisen et al. 2025, appendix).

Shapes: N nodes, R of them whose sums were followed: rows of weights.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def shares(weights: Float[Tensor, "R N"]) -> Float[Tensor, "R N"]:
    """Of each node that has a row, the share of each other in what it gets, by absolute value."""
    size = weights.abs().double()
    return size / size.sum(dim=1, keepdim=True).clamp_min(1e-30)


def influence(
    weights: Float[Tensor, "R N"], rows: Int[Tensor, " R"], importance: Float[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """How much of the important nodes comes from each node, along all paths.

    Args:
        weights: what each column's node adds to each row's; no node leads back to itself.
        rows: the nodes of the rows.
        importance: of the nodes that are asked about, such as the probabilities of logits.
    """
    part, total, found = shares(weights), torch.zeros_like(importance), importance
    for _ in range(len(weights)):
        found = found[rows] @ part
        if not found.any():
            break
        total = total + found
    return total


def pruned(
    weights: Float[Tensor, "R N"],
    rows: Int[Tensor, " R"],
    importance: Float[Tensor, " N"],
    kinds: list[str],
    keep_nodes: float,
    keep_edges: float,
) -> tuple[list[int], list[list[int]]]:
    """The nodes and (target, source) edges that are worth looking at.

    First the most influential nodes stay, until they have the share `keep_nodes` of all influence; among them the most
    influential edges, likewise. Features without an edge on either side, and errors that lead nowhere, go too. Logits
    stay.

    Args:
        weights: as in `influence`.
        rows: as in `influence`.
        importance: as in `influence`.
        kinds: of each node: "feature", "error", "embed", "bias" or "logit".
        keep_nodes: a share.
        keep_edges: a share.
    """
    logits = torch.tensor([kind == "logit" for kind in kinds])
    reach = influence(weights, rows, importance)
    stays = _first_share(reach, keep_nodes) | logits
    between = weights * stays[rows, None] * stays
    carried = shares(between) * (influence(between, rows, importance) + importance)[rows, None]
    edges = _first_share(carried.flatten(), keep_edges).view_as(carried) & (between != 0)
    feature = torch.tensor([kind == "feature" for kind in kinds])
    source = torch.tensor([kind in ("error", "embed", "bias") for kind in kinds])
    while True:
        leads, led_to = edges.any(dim=0), torch.zeros_like(stays)
        led_to[rows] = edges.any(dim=1)
        left = stays & (logits | (source & leads) | (feature & leads & led_to))
        if torch.equal(left, stays):
            break
        stays = left
        edges = edges & stays[rows, None] & stays
    found = edges.nonzero()
    return stays.nonzero().flatten().tolist(), torch.stack((rows[found[:, 0]], found[:, 1]), dim=1).tolist()


def _first_share(values: Float[Tensor, " N"], share: float) -> Tensor:
    """Which are the largest that together have this share of the sum."""
    ordered, order = values.sort(descending=True)
    before = ordered.cumsum(0) - ordered
    kept = torch.zeros(len(values), dtype=torch.bool)
    kept[order[(before < share * ordered.sum()) & (ordered > 0)]] = True
    return kept
