"""Which head reads what which earlier head wrote.

Shapes: L layers, H query heads, D head dim, C channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.interp.attention.parts import heads_of
from cutaway.interp.receipt import Clock, Receipt
from cutaway.interp.results import Matrix, Panel, Table
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress

KINDS = {"Q": "query", "K": "key", "V": "value"}


@torch.no_grad()
def composition_scores(
    model: Model,
    *,
    part: str | None = None,
    folded: bool = True,
    draws: int = 20,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Panel:
    """How much of what a head reads for its queries, keys or values lies where an earlier head writes.

    The share is that of Elhage et al. 2021: ‖A B‖ / (‖A‖ ‖B‖) with Frobenius norms, where B is the earlier head's
    W_O W_V and A the later one's W_Qᵀ W_K, from its query's side (Q) or its key's (K), or its W_O W_V (V). Matrices
    that have nothing to do with each other do not have 0, so what random ones of the same shapes have stands beside it
    and is to be subtracted in thought.

    Rotary positions turn W_Qᵀ W_K by the distance; here it is that of a distance of 0. Norms over queries and keys are
    left out, as they are not linear.

    Args:
        model: a model with attention and at least two layers.
        part: "decoder" or "encoder"; see `attention`.
        folded: whether the scales of the norms on the way are in the matrices.
        draws: how many random pairs of heads the control has.
        seed: of these.
        progress: told of each layer, and of the control.

    Returns:
        A panel of three matrices (rows the later head, columns the earlier, NaN where it is not earlier), a table of
        the strongest pairs and as figures what random heads have, with their standard deviation.

    Raises:
        ConfigError: a model without attention or that part, attention between two texts, or one layer alone.
    """
    heads = heads_of(model, part)
    if heads.part == "cross":
        raise ConfigError("heads compose within one stack of layers: choose the part decoder or encoder")
    L, H, _, D = heads.shape
    if L < 2:
        raise ConfigError("composition is between heads of two layers, but this model has one layer with attention")
    if draws < 2:
        raise ConfigError(f"draws must be at least 2, but {draws} was given")
    clock = Clock(model, "composition_scores", part=part, folded=folded, draws=draws, seed=seed)
    q, k, v = (torch.stack([heads.reading(i, which, folded=folded) for i in range(L)]) for which in ("q", "k", "v"))
    out = torch.stack([heads.writing(i, folded=folded) for i in range(L)])  # (L, H, C, D)
    scores = {kind: torch.full((L * H, L * H), float("nan"), dtype=torch.float64) for kind in KINDS}
    for later in range(1, L):
        if progress is not None:
            progress(Progress("composition", later, L, "layers"))
        for earlier in range(later):
            place = slice(later * H, (later + 1) * H), slice(earlier * H, (earlier + 1) * H)
            pairs = _pairs(q[later], k[later], v[later], out[later], v[earlier], out[earlier])
            for kind, value in pairs.items():
                scores[kind][place] = value
    draw = torch.Generator().manual_seed(seed)
    C = out.shape[2]

    def random(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=draw, dtype=torch.float64)

    def control() -> dict[str, Tensor]:
        return _pairs(random(D, C), random(D, C), random(D, C), random(C, D), random(D, C), random(C, D))

    drawn = []
    for number in range(draws):
        if progress is not None:
            progress(Progress("random heads", number, draws, "pairs"))
        drawn.append(control())
    chance = {kind: torch.stack([one[kind] for one in drawn]) for kind in KINDS}
    receipt = clock.receipt(seed=seed)
    figures = {f"{kind}, random heads": float(value.mean()) for kind, value in chance.items()}
    figures |= {f"{kind}, their deviation": float(value.std()) for kind, value in chance.items()}
    names = [f"{layer}.{head}" for layer in range(L) for head in range(H)]
    matrices = {kind: _matrix(kind, names, values, receipt) for kind, values in scores.items()}
    best = [
        [kind, row, column, value, value - float(chance[kind].mean())]
        for kind, one in matrices.items()
        for row, column, value in one.top(5)
    ]
    columns = ["kind", "later head", "earlier head", "score", "above random heads"]
    parts = {"strongest": Table("the five strongest pairs of each kind", columns, best, receipt=receipt), **matrices}
    notes = ["A score says that a head could read another, from weights alone; whether it does depends on the text."]
    return Panel("composition of heads", parts, notes, figures, receipt=receipt)


def _pairs(
    q: Float64[Tensor, "H D C"],
    k: Float64[Tensor, "H D C"],
    v: Float64[Tensor, "H D C"],
    out: Float64[Tensor, "H C D"],
    earlier_v: Float64[Tensor, "G D C"],
    earlier_out: Float64[Tensor, "G C D"],
) -> dict[str, Float64[Tensor, "H G"]]:
    """The scores of every later head with every earlier one.

    All products are of small matrices: ‖U M Vᵀ‖ is ‖R_u M R_vᵀ‖, with R from the QR decompositions of U and V.
    """

    def root(tall: Tensor) -> Tensor:
        """(…, C, D) -> (…, D, D)"""
        return torch.linalg.qr(tall, mode="r").R

    before = root(earlier_v.transpose(-1, -2))  # what is on the right of B, (G, D, D)
    earlier_size = torch.linalg.matrix_norm(root(earlier_out) @ before.transpose(-1, -2))  # (G,)

    def score(left: Tensor, reader: Tensor) -> Tensor:
        """A is left (…, C, D) times reader (…, D, C)."""
        left = root(left)
        size = torch.linalg.matrix_norm(left @ root(reader.transpose(-1, -2)).transpose(-1, -2))  # (H,)
        H, D, C = reader.shape
        # one large product is faster than one for each pair
        middle = reader.reshape(H * D, C) @ earlier_out.transpose(0, 1).reshape(C, -1)
        middle = middle.view(H, D, len(earlier_out), -1).transpose(1, 2)  # (H, G, D, D)
        both = left[:, None] @ middle @ before.transpose(-1, -2)
        return torch.linalg.matrix_norm(both) / (size[:, None] * earlier_size)

    return {
        "Q": score(k.transpose(-1, -2), q),
        "K": score(q.transpose(-1, -2), k),
        "V": score(out, v),
    }


def _matrix(kind: str, names: list[str], values: Tensor, receipt: Receipt) -> Matrix:
    what = f"{kind}-composition: what earlier heads write, read for {KINDS[kind]}s"
    return Matrix(what, "score", names, names, values, "later head", "earlier head", signed=False, receipt=receipt)
