"""Texts by words: which tokens each word begins with, and the windows in which a long text is read.

Shapes: W words, T tokens, L what the head makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cutaway.models import Model
from cutaway.progress import OnProgress
from cutaway.tasks.decode import windows_of
from cutaway.tasks.reading import read_all
from cutaway.text.tags import words_of
from cutaway.tokenizers.frame import beginning, frame

if TYPE_CHECKING:
    from cutaway.generation import Engine


@dataclass(frozen=True)
class Window:
    """A part of a text as a network reads it.

    Attributes:
        ids: with all special tokens.
        words: the words that are answered from here.
        places: of each of them, which of the ids it begins with.
    """

    ids: list[int]
    words: range
    places: Int64[np.ndarray, " W"]


@dataclass(frozen=True)
class Words:
    """The words of a text that have tokens.

    Attributes:
        bounds: where each begins and ends in the text, in characters.
        windows: in which the text is read; each word is answered from one of them.
    """

    bounds: list[tuple[int, int]]
    windows: list[Window]


def words_in(model: Model, texts: Sequence[str], context: int = 0, overlap: float = 0.25) -> list[Words]:
    """The words of texts, and the windows in which a model reads them.

    Args:
        model: whose tokenizer and context.
        texts: of any length.
        context: tokens of a window at the most; 0: those of the model.
        overlap: the share of a window that the next one reads too.
    """
    longest = min(context or model.config.context, model.config.context)
    before, around = len(beginning(model.tokenizer)), len(frame(model.tokenizer, [])[0])
    room = max(1, longest - around)
    made = []
    for text, (ids, places) in zip(texts, model.tokenizer.encode_with_places(texts), strict=True):
        bounds, first = _first_tokens(words_of(text), places)
        begins = np.zeros(len(ids), bool)
        begins[first] = True
        windows = []
        for begin, end, keep, drop in windows_of(begins.tolist(), room, min(int(room * overlap), room // 2)):
            words = range(*np.searchsorted(first, (keep, drop)).tolist())
            own = first[words.start : words.stop] - begin + before
            if len(words):
                windows.append(Window(frame(model.tokenizer, ids[begin:end].tolist())[0], words, own))
        made.append(Words(bounds, windows))
    return made


def _first_tokens(
    words: list[tuple[int, int]], places: Int64[np.ndarray, "T 2"]
) -> tuple[list[tuple[int, int]], Int64[np.ndarray, " W"]]:
    """The words that some token spells a part of, and the first such token of each."""
    bounds, first = [], []
    token, starts, ends = 0, places[:, 0].tolist(), places[:, 1].tolist()
    for start, end in words:
        while token < len(ends) and ends[token] <= start:
            token += 1
        if token < len(ends) and starts[token] < end:
            bounds.append((start, end))
            first.append(token)
    return bounds, np.array(first, np.int64)


def read_words(
    engine: Engine, words: Sequence[Words], progress: OnProgress | None = None
) -> list[Float[Tensor, "W L"]]:
    """What the head makes of the first token of each word of each text, on the CPU."""
    windows = [window for one in words for window in one.windows]
    read = iter(read_all(engine, [window.ids for window in windows], progress=progress))
    found = []
    for one in words:
        parts = [next(read)[torch.from_numpy(window.places)] for window in one.windows]
        found.append(torch.cat(parts) if parts else torch.zeros(0, len(engine.model.config.labels)))  # pyright: ignore[reportAttributeAccessIssue]
    return found
