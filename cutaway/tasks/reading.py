"""Texts as networks read them, and what their heads make of many of them.

Shapes: T tokens, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from cutaway.errors import InputError
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress
from cutaway.tokenizers.frame import frame

if TYPE_CHECKING:
    from cutaway.generation import Engine

AT_ONCE = 4096  # texts that are read before progress is told


def framed(model: Model, texts: Sequence[str], context: int = 0) -> list[list[int]]:
    """Ids of each text with all special tokens, cut to the context.

    Args:
        model: whose tokenizer and context.
        texts: none of them empty.
        context: tokens at the most; 0: those of the model.

    Raises:
        InputError: a text of which no token is left.
    """
    longest = min(context or model.config.context, model.config.context)
    encoded = model.tokenizer.encode_bulk(list(texts))
    made = [frame(model.tokenizer, ids.tolist(), longest=longest)[0] for ids in encoded]
    empty = next((number for number, ids in enumerate(encoded) if not len(ids)), None)
    if empty is not None:
        raise InputError(f"text {empty} has no token that this model knows")
    return made


def framed_pairs(
    model: Model, first: Sequence[str], second: Sequence[str], context: int = 0
) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of two texts beside each other with all special tokens, and the types of the tokens.

    Args:
        model: whose tokenizer and context.
        first: texts.
        second: the ones beside them.
        context: tokens at the most; 0: those of the model. The longer text is cut.
    """
    longest = min(context or model.config.context, model.config.context)
    both = zip(model.tokenizer.encode_bulk(list(first)), model.tokenizer.encode_bulk(list(second)), strict=True)
    made = [frame(model.tokenizer, a.tolist(), b.tolist(), longest=longest) for a, b in both]
    return [ids for ids, _ in made], [types for _, types in made]


def arrays(rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """As parts of rows in memory."""
    return [np.array(row, np.int64) for row in rows]


def read_all(
    engine: Engine,
    ids: Sequence[list[int]],
    types: Sequence[Sequence[int]] | None = None,
    progress: OnProgress | None = None,
) -> list[Tensor]:
    """What the head makes of each text, on the CPU: (L,) of whole texts, else (T, L).

    Args:
        engine: what reads.
        ids: of each text.
        types: of its tokens, where there are several.
        progress: told now and then.
    """
    found: list[Tensor] = []
    for start in range(0, len(ids), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        found += engine.read(ids[part], types=None if types is None else types[part]).results()
        if progress:
            progress(Progress("reading", len(found), len(ids), "texts"))
    return found
