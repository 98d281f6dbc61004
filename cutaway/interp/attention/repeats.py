"""Random tokens that come twice, to see what heads do with a repetition, and what the model then knows.

Shapes: B texts, T tokens.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from cutaway.errors import InputError
from cutaway.interp.inputs import Inputs
from cutaway.interp.text.exam import Exam, exam_of
from cutaway.models import Model

SHORTEST = 8  # tokens of a row
USUAL = 48


def repeated_tokens(model: Model, *, rows: int = 8, length: int | None = None, seed: int = 0) -> Int[Tensor, "B T"]:
    """Rows of random tokens in which a stretch comes twice.

    Where it begins, how long it is and how far apart the two are differ from row to row: with a fixed distance a head
    that always looks so far back would pass for one that looks for repetitions. Within a row no other token comes
    twice, as far as the vocabulary goes. A row begins with the token that begins texts, if there is one.

    Args:
        model: whose tokens; special ones are left out.
        rows: B.
        length: T; None: 48, or the context where that is shorter.
        seed: of all that is drawn.

    Raises:
        InputError: rows shorter than 8 tokens, or longer than the context.
    """
    return _drawn(model, rows, length, seed)[0]


def _drawn(model: Model, rows: int, length: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Rows, and where the second stretch stands in them, (B, T) bool."""
    context: int = model.config.context
    length = min(USUAL, context) if length is None else length
    if not SHORTEST <= length <= context:
        raise InputError(f"rows of {length} tokens were asked for; this model reads {SHORTEST} … {context}")
    if rows < 1:
        raise InputError(f"rows must be at least 1, but {rows} was given")
    tokenizer = model.tokenizer
    special = set(tokenizer.special.values())
    known = torch.tensor([i for i in range(min(tokenizer.vocab_size, model.config.vocab_size)) if i not in special])
    if len(known) < 2:
        raise InputError("the vocabulary has fewer than two tokens that are not special, so nothing can be repeated")
    first = tokenizer.end_of_text if tokenizer.begin_of_text is None else tokenizer.begin_of_text
    draw = torch.Generator().manual_seed(seed)

    def below(low: int, high: int) -> int:
        """low … high, both included"""
        return int(torch.randint(low, high + 1, (), generator=draw))

    room = length - (first is not None)
    ids, again = torch.zeros(rows, length, dtype=torch.int64), torch.zeros(rows, length, dtype=torch.bool)
    for row in range(rows):
        if len(known) >= room:
            tokens = known[torch.randperm(len(known), generator=draw)[:room]]
        else:
            tokens = known[torch.randint(len(known), (room,), generator=draw)]
        size = below(2 + room // 8, room // 2 - room // 8)
        between = below(0, room - 2 * size)
        start = below(0, room - 2 * size - between)
        second = start + size + between
        tokens[second : second + size] = tokens[start : start + size]
        ids[row, length - room :] = tokens
        again[row, length - room + second : length - room + second + size] = True
        if first is not None:
            ids[row, 0] = first
    return ids.to(model.device), again.to(model.device)


def exam_of_repeats(model: Model, *, rows: int = 8, length: int | None = None, seed: int = 0) -> tuple[Exam, Exam]:
    """Two exams on the same rows: of tokens that the repetition tells, and of those that nothing tells."""
    ids, again = _drawn(model, rows, length, seed)
    told = again.clone()
    told[:, 1:] &= again[:, :-1]  # the first of a stretch comes as a surprise
    new = ~again
    new[:, 0] = False
    return exam_of(model, Inputs(ids), told, seed), exam_of(model, Inputs(ids), new, seed)
