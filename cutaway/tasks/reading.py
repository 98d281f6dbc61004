"""Texts as networks read them, and what their heads make of many of them.

Shapes: T tokens, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
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
        raise InputError(f"text {empty + 1} has no token that this model knows")
    return made


def in_parts(model: Model, texts: Sequence[str], longest: int, *, ends: bool) -> tuple[list[list[int]], list[int]]:
    """Ids of texts of any length with all special tokens: each by its two ends, or in windows side by side.

    Windows of a text are as long as each other, to a token, so that none is a snippet.

    Args:
        model: whose tokenizer and context.
        texts: none of them empty.
        longest: tokens that are read at once.
        ends: the first and the last tokens, half each (Sun et al. 2019); else windows that cover the text.

    Returns:
        The ids, and of each the number of its text.

    Raises:
        InputError: a text of which no token is left.
    """
    longest = min(longest, model.config.context)
    room = longest - len(frame(model.tokenizer, [])[0])
    made, owners = [], []
    for number, encoded in enumerate(model.tokenizer.encode_bulk(list(texts))):
        ids = encoded.tolist()
        if not ids:
            raise InputError(f"text {number + 1} has no token that this model knows")
        count = -(-len(ids) // room)
        if ends and count > 1:
            ids, count = [*ids[: room - room // 2], *ids[len(ids) - room // 2 :]], 1
        edges = [len(ids) * n // count for n in range(count + 1)]
        made += [frame(model.tokenizer, ids[a:b], longest=longest)[0] for a, b in pairwise(edges)]
        owners += [number] * count
    return made, owners


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
