"""The first two lessons: a text becomes tokens, and tokens become vectors.

Shapes: T tokens, C channels, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.inputs import Text
from cutaway.interp.lessons.worked import (
    Opens,
    Shown,
    Worked,
    cells,
    given_to,
    model_of,
    names_of,
    place_in,
    recorded,
)
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.models import Model
from cutaway.models.model import Source

SHOWN = 8  # channels of a vector
CHUNK = 4096  # rows of the table of vectors that are looked at together


@torch.no_grad()
def tokens_by_hand(
    model: Recording | Model, text: Text = "", *, source: Source | Sequence[str] | None = None
) -> Worked:
    """A text as the model reads it: pieces that it has numbers for.

    Args:
        model: of any kind.
        text: what it reads; of an encoder–decoder the target.
        source: what an encoder–decoder reads.

    Returns:
        A row for each token: its number in the vocabulary, its bytes. Figures: "characters" and "bytes" of the text,
        "tokens", "bytes per token", the "vocabulary", and the "bits" that a number out of it takes when all are alike.

    Raises:
        InputError: empty text, or more tokens than the context.
    """
    run = model_of(model)
    clock = Clock(run, "tokens_by_hand", model if isinstance(model, Recording) else text, source=source)
    recording = recording_of(model, text, ["embed"], source=source, first=True)  # it must be short enough to be read
    ids = recording.inputs.ids[0]
    tokenizer = run.tokenizer.target or run.tokenizer
    special = set(tokenizer.special.values())
    names = names_of(run, ids)
    pieces = [tokenizer.token_bytes(id) for id in ids.tolist()]
    written = sum(len(piece) for piece, id in zip(pieces, ids.tolist(), strict=True) if id not in special)
    said = tokenizer.decode([id for id in ids.tolist() if id not in special])
    plain = sum(id not in special for id in ids.tolist())
    figures = [
        Shown("characters", len(said)),
        Shown("bytes", written),
        Shown("tokens", len(names)),
        Shown("bytes per token", written / plain if plain else 0.0),
        Shown("vocabulary", tokenizer.vocab_size),
        Shown("bits", math.log2(tokenizer.vocab_size)),
    ]
    rows = cells(
        range(len(names)), names, ids, [piece.hex(" ") for piece in pieces], [id in special for id in ids.tolist()]
    )
    columns = ["position", "token", "id", "bytes", "special"]
    return Worked("a text in tokens", columns, rows, figures, tokens=names, receipt=clock.receipt())


@torch.no_grad()
def embedding_by_hand(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    position: int = 0,
    other: str | int | None = None,
) -> Worked:
    """The vector by which a token enters the model, and how near it lies to another one.

    Args:
        model: of any kind.
        text: what it reads.
        source: what an encoder–decoder reads.
        position: of the token.
        other: a token, as text or id, that it is compared with; None: the nearest one of the vocabulary.

    Returns:
        The first channels of three vectors: the token's "row" of the table, what the model does to it ("added": a
        scale, positions, kinds of tokens, a norm), and what enters, "embed". Figures: the "width", the "length" of the
        row, its "dot" product with the other's row, that one's "other length", and the "cosine". The nearest tokens
        are among the facts.

    Raises:
        InputError: a position outside the text, or no such token.
    """
    run = model_of(model)
    if not hasattr(run.network, "embed_tokens"):
        raise ConfigError("this network has no table of tokens")
    clock = Clock(run, "embedding_by_hand", model if isinstance(model, Recording) else text, source=source,
                  position=position, other=other)  # fmt: skip
    inputs = given_to(model, text, source)
    ids = inputs.ids[0]
    place = place_in(position, len(ids))
    recording = recording_of(model, text, ["embed"], source=source, first=True)
    entered, row = recorded(recording, "embed")[place], _row(run, int(ids[place]))
    tokenizer = run.tokenizer.target or run.tokenizer
    cosines = _cosines(run, row)
    cosines[int(ids[place])] = -2
    near = cosines[: min(len(cosines), tokenizer.vocab_size)].topk(5).indices.tolist()
    beside = near[0] if other is None else tokenizer.id(other) if isinstance(other, str) else other
    if not 0 <= beside < run.config.vocab_size:
        raise InputError(f"token ids lie in 0 … {run.config.vocab_size - 1}, but {beside} was given")
    second = _row(run, beside)
    shown = min(SHOWN, len(row), len(entered))
    same = len(row) == len(entered)
    opens: list[Opens | None] = [{"what": "embed", "position": place, "index": c} for c in range(shown)]
    figures = [
        Shown("width", len(row)),
        Shown("length", float(row.norm())),
        Shown("other length", float(second.norm())),
        Shown("dot", float(row @ second)),
        Shown("cosine", float(row @ second / (row.norm() * second.norm()).clamp(min=1e-300))),
    ]
    added = (entered - row)[:shown] if same else [None] * shown
    rows = cells(range(shown), row[:shown], second[:shown], added, entered[:shown])
    names = names_of(run, ids)
    facts = {
        "token": names[place], "id": str(int(ids[place])), "other": tokenizer.token(beside),
        "near": "\n".join(f"{tokenizer.token(id)}\t{float(cosines[id]):.3f}" for id in near),
    }  # fmt: skip
    return Worked(
        "the vector of a token", ["channel", "row", "other", "added", "embed"], rows, figures, facts, {"embed": opens},
        tokens=names, places=list(range(len(names))), place=place, receipt=clock.receipt(bytes=recording.receipt.bytes),
    )  # fmt: skip


def _row(model: Model, id: int) -> Tensor:
    """(C,) float64: a row of the table, quantised ones as they are read."""
    return model.network.embed_tokens(torch.tensor([id], device=model.device))[0].double()


def _cosines(model: Model, row: Tensor) -> Tensor:
    """(V,) with every row of the table; few of them are in memory at a time."""
    size, found = model.config.vocab_size, []
    direction = (row / row.norm().clamp(min=1e-300)).float()
    for start in range(0, size, CHUNK):
        rows = model.network.embed_tokens(torch.arange(start, min(size, start + CHUNK), device=model.device)).float()
        found.append((rows @ direction) / rows.norm(dim=-1).clamp(min=1e-30))
    return torch.cat(found)
