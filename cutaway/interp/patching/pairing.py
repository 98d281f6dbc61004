"""Two texts token by token, before anything is patched: which stand for each other, and what the model says to each.

Shapes: T tokens, V what the model chooses among.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cutaway.interp.inputs import Inputs, inputs_of
from cutaway.interp.patching.pairs import partners_of
from cutaway.interp.receipt import Clock
from cutaway.interp.record import record
from cutaway.interp.results import Cell, Table
from cutaway.interp.target import WORDS, at_position, name_of, target_of
from cutaway.models import Model
from cutaway.models.model import Source

NAMED = 8  # answers of each text that are named


@dataclass(frozen=True)
class Answer:
    """One of the likeliest answers to a text.

    Attributes:
        token: to be read.
        id: its number.
        value: its probability; of a head without probabilities the number itself.
    """

    token: str
    id: int
    value: float


@dataclass(frozen=True)
class Pairing(Table):
    """Two texts beside each other; the rows of the table pair their tokens.

    Attributes:
        clean: its tokens, to be read.
        corrupt: likewise.
        partners: (position in the clean, position in the corrupt text) of tokens that stand for each other.
        differ: pairs of `partners` whose tokens are not the same.
        equal: whether the two are equally long, so that each token stands for that of its place.
        answers: the likeliest answers to the clean text.
        others: to the corrupt one.
        probabilities: whether the answers' values are probabilities.
    """

    clean: list[str] = field(kw_only=True)
    corrupt: list[str] = field(kw_only=True)
    partners: list[tuple[int, int]] = field(kw_only=True)
    differ: list[tuple[int, int]] = field(kw_only=True)
    equal: bool = field(kw_only=True)
    answers: list[Answer] = field(kw_only=True)
    others: list[Answer] = field(kw_only=True)
    probabilities: bool = field(kw_only=True)


@torch.no_grad()
def pairing(
    model: Model,
    text: str,
    corrupt: str | None = None,
    *,
    source: Source | None = None,
    corrupt_source: Source | None = None,
    position: int = -1,
) -> Pairing:
    """Put a clean and a corrupt text beside each other, token by token, with the likeliest answers to each.

    Texts of equal length are paired place by place, as `patch` takes them. Of others the common beginning and the
    common end are, as with align="token"; what is between them has no partner.

    Args:
        model: what reads them.
        text: the clean one.
        corrupt: the other; None: the same.
        source: what an encoder–decoder reads.
        corrupt_source: what it reads with the corrupt text; None: the same.
        position: after which token the answers are asked for, as in `target_of`.

    Raises:
        InputError: an empty text, or a position that one of them does not have.
    """
    clock = Clock(
        model, "pairing", text, corrupt=corrupt, source=source, corrupt_source=corrupt_source, position=position
    )
    one = inputs_of(model, text, source).rows(0, 1)
    other = inputs_of(
        model, text if corrupt is None else corrupt, source if corrupt_source is None else corrupt_source
    ).rows(0, 1)
    mine, theirs = one.ids[0].tolist(), other.ids[0].tolist()
    equal = len(mine) == len(theirs)
    partners = [(i, i) for i in range(len(mine))] if equal else [(a, b) for b, a in partners_of(mine, theirs)]
    tokenizer = model.tokenizer.target or model.tokenizer
    clean, corrupted = ([tokenizer.token(i) for i in ids] for ids in (mine, theirs))
    rows: list[list[Cell]] = [
        [a, None if a is None else clean[a], b, None if b is None else corrupted[b]]
        for a, b in _lines(partners, len(clean), len(corrupted))
    ]
    answers, sure = _answers(model, one, position)
    others, _ = _answers(model, other, position)
    return Pairing(
        "the clean and the corrupt text, token by token",
        ["clean position", "clean", "corrupt position", "corrupt"],
        rows,
        clean=clean,
        corrupt=corrupted,
        partners=partners,
        differ=[(a, b) for a, b in partners if mine[a] != theirs[b]],
        equal=equal,
        answers=answers,
        others=others,
        probabilities=sure,
        receipt=clock.receipt(),
    )


def _lines(partners: list[tuple[int, int]], clean: int, corrupt: int) -> list[tuple[int | None, int | None]]:
    """Positions of both texts, line by line, where those without a partner stand alone."""
    lines: list[tuple[int | None, int | None]] = []
    a = b = 0
    for mine, theirs in [*partners, (clean, corrupt)]:
        lines += [(i, None) for i in range(a, mine)] + [(None, i) for i in range(b, theirs)]
        if mine < clean:
            lines.append((mine, theirs))
        a, b = mine + 1, theirs + 1
    return lines


def _answers(model: Model, inputs: Inputs, position: int) -> tuple[list[Answer], bool]:
    output = record(model, inputs, model.network.tap_names()[-1]).logits
    target = target_of(model, inputs, position=position, output=output)
    row: Tensor = output[0] if target.position is None else at_position(output, inputs, target.position)[0]
    row = row.reshape(-1)
    head = getattr(model.config, "head", "causal_lm")
    sure = head in (*WORDS, "sequence_classification", "token_classification") and len(row) > 1
    values, ids = (row.softmax(-1) if sure else row).topk(min(NAMED, len(row)))
    named = zip(ids.tolist(), values.tolist(), strict=True)
    return [Answer(name_of(model, id_), id_, value) for id_, value in named], sure
