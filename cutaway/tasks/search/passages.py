"""Documents in passages that overlap, each with its exact place: `text[start:end]` is what the passage says."""

from __future__ import annotations

import re

from cutaway.text.sentences import sentence_spans

WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")
WIDTH = 3  # letters of an alphabet that a Chinese character says as much as
BREAK = re.compile(r"\n[^\S\n]*\n")


def size_of(text: str) -> int:
    """How long a text is in letters, a Chinese character counting for WIDTH."""
    return len(text) + (WIDTH - 1) * len(WIDE.findall(text))


def passages(text: str, size: int, overlap: int) -> list[tuple[int, int]]:
    """Where passages begin and end: whole sentences, ended early at an empty line where they are long enough.

    Args:
        text: a document.
        size: letters of a passage; one sentence may be longer than that by half.
        overlap: letters at the end of a passage with which the next one begins again, whole sentences of them.
    """
    spans = sentence_spans(text, longest=max(1, size * 3 // 2 if not WIDE.search(text) else size // 2))
    sizes = [size_of(text[start:end]) for start, end in spans]
    made: list[tuple[int, int]] = []
    first = 0
    while first < len(spans):
        stop, length = first, 0
        while stop < len(spans) and (stop == first or length + sizes[stop] <= size):
            length += sizes[stop]
            stop += 1
            if length > size // 2 and stop < len(spans) and BREAK.search(text, spans[stop - 1][1], spans[stop][0]):
                break
        made.append((spans[first][0], spans[stop - 1][1]))
        if stop == len(spans):
            break
        # no more than leaves room for a sentence that is new: else a passage would say what this one has said already
        again, shared, most = stop, 0, min(overlap, size - sizes[stop])
        while again - 1 > first and shared + sizes[again - 1] <= most:
            again -= 1
            shared += sizes[again]
        first = again
    return made
