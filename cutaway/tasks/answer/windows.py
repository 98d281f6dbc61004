"""A question and a text as a network reads them: the text in overlapping windows, with the place of every token.

Shapes: T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cutaway.errors import InputError
from cutaway.models import Model
from cutaway.tokenizers import Tokenizer
from cutaway.tokenizers.frame import frame

MOST_ASKED = 64  # tokens of a question, and at the most half a window; the rest is cut


@dataclass(frozen=True)
class Pieces:
    """A text in tokens.

    Attributes:
        ids: of its tokens.
        starts: in characters.
        ends: likewise, behind them.
    """

    ids: list[int]
    starts: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Window:
    """What is read at once.

    Attributes:
        ids: of T tokens, special ones included.
        types: of them.
        tokens: (T,) int64, the number of the text's token at each place; -1 for the question and special ones.
    """

    ids: list[int]
    types: list[int]
    tokens: np.ndarray

    @property
    def allowed(self) -> np.ndarray:
        """(T,) bool: where an answer may begin or end; the first place stands for none."""
        made = self.tokens >= 0
        made[0] = True
        return made


def pieces_of(tokenizer: Tokenizer, text: str) -> Pieces:
    """A text's tokens and where they stand."""
    encoding, _ = tokenizer.cut(text)
    offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    return Pieces(encoding.ids, offsets[:, 0], offsets[:, 1])


class Windows:
    """Makes windows of questions and texts.

    Args:
        model: that reads.
        longest: tokens of a window.
        overlap: tokens of the text that two neighbours share, at the least.
    """

    def __init__(self, model: Model, longest: int, overlap: int) -> None:
        self.tokenizer, self.overlap = model.tokenizer, overlap
        self.longest = min(longest, model.config.context)
        self.pieces = lru_cache(maxsize=256)(lambda text: pieces_of(self.tokenizer, text))  # texts are asked often

    def __call__(self, question: str, text: str) -> list[Window]:
        """The windows of a text for a question.

        Raises:
            InputError: there is no room for a text beside the question.
        """
        asked, ids = self.tokenizer.encode(question)[: min(MOST_ASKED, self.longest // 2)], self.pieces(text).ids
        room = self.longest - len(frame(self.tokenizer, asked, [])[0])
        if room < 8:
            raise InputError(f"{self.longest} tokens leave no room for a text beside the question; give more")
        return [self._window(asked, ids, first, stop) for first, stop in stretches(len(ids), room, self.overlap)]

    def _window(self, asked: Sequence[int], ids: Sequence[int], first: int, stop: int) -> Window:
        marked, types = frame(self.tokenizer, asked, [~number for number in range(first, stop)])
        tokens = np.array([~mark if mark < 0 else -1 for mark in marked], np.int64)
        return Window([ids[~mark] if mark < 0 else mark for mark in marked], types, tokens)


def stretches(count: int, room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """First and last-but-one of windows over `count` tokens, each of at most `room`, which overlap.

    They are about equally long, so that none is a short rest.
    """
    if count <= room:
        yield 0, count
        return
    step = max(1, room - min(overlap, room // 2))
    windows = 1 + -(-(count - room) // step)
    for number in range(windows):
        first = (count - room) * number // (windows - 1)
        yield first, first + room


def places_in(window: Window, pieces: Pieces, start: int, end: int) -> tuple[int, int] | None:
    """The places of a stretch of characters in a window; None where it does not hold all of it."""
    first = int(np.searchsorted(pieces.ends, start, side="right"))
    last = int(np.searchsorted(pieces.starts, end, side="left")) - 1
    if first > last:
        return None
    begin = np.flatnonzero(window.tokens == first)
    stop = np.flatnonzero(window.tokens == last)
    return (int(begin[0]), int(stop[0])) if len(begin) and len(stop) else None
