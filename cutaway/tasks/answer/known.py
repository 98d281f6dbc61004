"""The answers that a table gives, and where they stand in the text that was asked.

A cell may hold one answer, a list of them, or SQuAD's {"text": [...], "answer_start": [...]}. A place that does not
point at its answer, and an answer without a place, is looked for in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cutaway.errors import InputError
from cutaway.tasks.task import cell_of

SHOWN = 60  # characters of an answer in a message


@dataclass(frozen=True)
class Known:
    """A right answer.

    Attributes:
        text: as it was given.
        places: (start, end) in characters of the text, wherever it may be that it stands; () where another of several
            answers does, and this one was only worded so.
    """

    text: str
    places: tuple[tuple[int, int], ...]


def known_answers(value: Any, start: Any, context: str) -> tuple[Known, ...]:
    """What a row says is right; (): the text holds no answer.

    Args:
        value: an answer, several, or SQuAD's table of them; empty: there is none.
        start: the place of its first character, where it is known.
        context: the text.

    Raises:
        InputError: an answer is not text, or none of them is in its context.
    """
    found: dict[str, Known] = {}
    for text, place in _listed(value, start):
        if not isinstance(text, str):
            raise InputError(f"an answer must be text, but {type(text).__name__} was given")
        if not text.strip():
            continue
        before = found.get(text, Known(text, ())).places
        found[text] = Known(text, tuple(dict.fromkeys((*before, *_places(text, place, context)))))
    if found and not any(known.places for known in found.values()):
        text = next(iter(found))
        shown = text if len(text) <= SHOWN else text[:SHOWN] + "…"
        raise InputError(f"the answer is not in its context ({shown!r})")
    return tuple(found.values())


def _listed(value: Any, start: Any) -> Iterable[tuple[Any, Any]]:
    value = cell_of(value, ("[", "{"))
    if isinstance(value, Mapping):
        if "text" not in value:
            raise InputError(f"answers in a table need 'text', but there are {', '.join(map(str, value)) or 'none'}")
        value, start = value["text"], value.get("answer_start", value.get("start"))
    if not isinstance(value, list):
        return [(value if value is not None else "", start)]
    if value and all(isinstance(one, Mapping) for one in value):
        return [(one.get("text"), one.get("answer_start")) for one in value]
    starts = start if isinstance(start, list) and len(start) == len(value) else [None] * len(value)
    return zip(value, starts, strict=True)


def _places(text: str, start: Any, context: str) -> list[tuple[int, int]]:
    """Where an answer stands: at the place that was told, else at words' bounds, else anywhere."""
    with suppress(ValueError, TypeError, OverflowError):  # nothing, or no number
        place = int(start)
        if place >= 0 and context.startswith(text, place):
            return [(place, place + len(text))]
    text = text.strip()
    spelled = r"\s+".join(map(re.escape, text.split()))  # a line break may stand for a space
    found = [(match.start(), match.end()) for match in re.finditer(spelled, context)]
    found = found or [(match.start(), match.end()) for match in re.finditer(spelled, context, re.IGNORECASE)]
    return [place for place in found if _whole(context, *place)] or found


def _whole(context: str, start: int, end: int) -> bool:
    """Whether no word goes on over the ends of a stretch."""
    return not (_joined(context[max(0, start - 1) : start + 1]) or _joined(context[end - 1 : end + 1]))


def _joined(two: str) -> bool:
    return len(two) == 2 and all(letter.isalnum() and not "\u2e80" <= letter <= "\uffee" for letter in two)
