"""What logits say at each token, place by place: the table of a lens.

Shapes: T tokens, L places, K tokens of a cell, N rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.interp.record import Recording
from cutaway.interp.target import choice_of
from cutaway.models import Encoder
from cutaway.models.quantised import dequantised_once
from cutaway.progress import OnProgress, Progress

ROWS = 256  # tokens whose logits are held at a time
BLOCK = 256  # logits of which the largest is taken first, in search of the largest of all

Read = Callable[[int, slice], Tensor]  # of a place, the logits (N, V) at some tokens


@torch.no_grad()
def table(
    recording: Recording, read: Read, count: int, top: int, token: str | int | None, progress: OnProgress | None
) -> dict[str, object]:
    """The fields of a `Lens` that hold numbers.

    Args:
        recording: of the run, for its tokens.
        read: what is said.
        count: places.
        top: tokens of each cell.
        token: which every cell is asked about; None: the one that came next.
        progress: told after each place.
    """
    T = recording.ids.shape[1]
    parts = [slice(start, min(start + ROWS, T)) for start in range(0, T, ROWS)]
    chosen = asked(recording, token, lambda at: recording.logits[0, at])
    rows = []
    with dequantised_once(recording.model.network):
        for place in range(count):
            found = [_cells(read(place, part).float(), chosen[part], top) for part in parts]
            rows.append([torch.cat(column) for column in zip(*found, strict=True)])
            if progress is not None:
                progress(Progress("reading layers", place + 1, count, "rows"))
    ids, logits, probabilities, entropies, ranks, chances = (torch.stack(one).cpu() for one in zip(*rows, strict=True))
    tokenizer = recording.model.tokenizer.target or recording.model.tokenizer
    named = torch.cat((ids.flatten(), chosen.cpu())).unique().tolist()
    return {
        "ids": ids,
        "logits": logits,
        "probabilities": probabilities,
        "entropies": entropies,
        "words": {i: tokenizer.token(i) for i in named},
        "chosen": chosen.int().cpu(),
        "ranks": ranks,
        "chances": chances,
    }


def asked(recording: Recording, token: str | int | None, output: Callable[[int], Tensor]) -> Int[Tensor, " T"]:
    """A token for each column: the one that was given, or the one that came next (of an encoder the one that is there).

    Where none came, behind the end or in a gap, it is the model's own likeliest.

    Args:
        recording: of the run.
        token: as text or id.
        output: the model's logits (V,) at a token.

    Raises:
        InputError: a token that is none.
    """
    run, ids = recording.model, recording.ids[0]
    if token is not None:
        number, _ = choice_of(run, token, getattr(run.config, "head", "causal_lm"))
        return torch.full_like(ids, number)
    if isinstance(run.network, Encoder):
        chosen, open_ = ids.clone(), (ids == run.tokenizer.mask).nonzero().flatten().tolist()
    else:
        chosen, open_ = ids.roll(-1), [len(ids) - 1]
    for at in open_:
        chosen[at] = output(at).argmax()
    return chosen


def _cells(logits: Float[Tensor, "N V"], chosen: Int[Tensor, " N"], top: int) -> tuple[Tensor, ...]:
    probabilities = logits.softmax(-1)
    values, ids = largest(logits, min(top, logits.shape[-1]))
    named = probabilities.gather(1, ids)
    # the logarithm of the normaliser, seen from the likeliest
    whole = values[:, 0] - named[:, 0].log()
    entropies = ((whole - torch.linalg.vecdot(probabilities, logits)) / math.log(2)).clamp(min=0)
    own = logits.gather(1, chosen[:, None])
    ranks = 1 + (logits > own).view(torch.uint8).sum(-1, dtype=torch.int32)
    return ids.int(), values, named, entropies, ranks, probabilities.gather(1, chosen[:, None])[:, 0]


def largest(numbers: Float[Tensor, "N V"], count: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The largest numbers of each row and where they stand, as `topk`, some times as fast where rows are long.

    The K largest stand in the K blocks whose own largest are largest.
    """
    N, V = numbers.shape
    blocks = V // BLOCK
    if blocks <= count:
        return numbers.topk(count)
    whole = numbers[:, : blocks * BLOCK].view(N, blocks, BLOCK)
    chosen = whole.amax(-1).topk(count).indices  # (N, K)
    inside = whole.gather(1, chosen[..., None].expand(-1, -1, BLOCK)).flatten(1)
    places = (chosen[..., None] * BLOCK + torch.arange(BLOCK, device=numbers.device)).flatten(1)
    rest = torch.arange(blocks * BLOCK, V, device=numbers.device).expand(N, -1)
    values, at = torch.cat((inside, numbers[:, blocks * BLOCK :]), dim=1).topk(count)
    return values, torch.cat((places, rest), dim=1).gather(1, at)
