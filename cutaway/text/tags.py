"""Spans of a text and the tags of its words: B- begins a span, I- goes on with it, O is outside.

Spans are read off tags as conlleval does (Tjong Kim Sang & Buchholz 2000), and seqeval after it: a span also begins at
an I- that follows nothing of its type. So IOB1, whose spans begin with I- where no other stands before, is read rightly
too. Tags that mark ends and single words (BIOES, BILOU, BMES) and bare types (IO) are read as they mean.

Shapes: W words, K types of spans, L = 1 + 2·K tags: O, then B and I of each type.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from cutaway.errors import InputError

OUTSIDE = 0
ENDS, SINGLES = "EL", "SU"  # of BIOES and BILOU
# Chinese characters, Japanese and Thai have no spaces between words; each is tagged by itself
ALONE = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e30\u0e32-\u0e33\u0e40-\u0e46\U00020000-\U0003134f"
)
WORD = re.compile(rf"[{ALONE}]|(?:(?![{ALONE}])\w)+|\S")
JOINER, TONES = "\u200d", range(0x1F3FB, 0x1F400)  # what joins emoji, and the tones of skin
PREFIXED = re.compile(r"([BIESLUM])-(.+)", re.DOTALL)
UNKNOWN = re.compile(r"[BIESLUM]_.|[BIESLUM]-$|$")  # B_PER, B- without a type, nothing


class Span(NamedTuple):
    """A stretch of a text, from its first character to behind its last, or of words likewise."""

    start: int
    end: int
    label: str


def words_of(text: str) -> list[tuple[int, int]]:
    """Where each word of a text begins and ends: runs of letters and digits, and every other sign by itself.

    Accents stay with their letters and emoji that are joined stay together; Chinese is cut into characters.
    """
    found: list[tuple[int, int]] = []
    open_word = False  # whether letters that follow go on with the last word: after a mark
    for match in WORD.finditer(text):
        start, end = match.span()
        before = bool(found) and found[-1][1] == start
        sign = text[start]
        joined = before and (text[start - 1] == JOINER or sign == JOINER or _clings(sign))
        if joined or (before and open_word and (sign.isalnum() or sign == "_") and not re.match(f"[{ALONE}]", sign)):
            open_word = _clings(sign) and _letter(text, found[-1][0]) if joined else open_word
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
            open_word = False
    return found


def _clings(sign: str) -> bool:
    return unicodedata.category(sign)[0] == "M" or ord(sign) in TONES


def _letter(text: str, place: int) -> bool:
    return text[place].isalnum() and not re.match(f"[{ALONE}]", text[place])


def read_tags(tags: Sequence[str]) -> tuple[list[Span], str]:
    """The spans of words that tags mean, and the name of the scheme that they are written in.

    Args:
        tags: one for each word: "O", "B-Disease" …

    Returns:
        Spans of words; and "BIO", "IOB1" (a span begins with I-), "BIOES", "BILOU", "BMES" or "IO" (bare types).

    Raises:
        InputError: tags of no scheme that is known; names one of them.
    """
    cut: list[tuple[str, str]] = []
    bare = prefixed = ""
    for tag in tags:
        match = PREFIXED.fullmatch(tag)
        if tag == "O":
            cut.append(("O", ""))
        elif match:
            prefixed = tag
            cut.append((match[1], match[2]))
        elif tag.isdecimal() or UNKNOWN.match(tag):
            raise InputError(f"the tag {tag!r} is of no known scheme; write O, B-TYPE and I-TYPE")
        else:
            bare = tag
            cut.append(("I", tag))
    if bare and prefixed:
        raise InputError(f"the tags {prefixed!r} and {bare!r} are of different schemes; write O, B-TYPE and I-TYPE")
    spans: list[Span] = []
    begun, scheme = False, "IO" if bare else "BIO"  # whether a span is open that may go on
    for place, (prefix, label) in enumerate(cut):
        if prefix == "O":
            begun = False
            continue
        first = prefix in "B" + SINGLES or not begun or spans[-1].label != label
        if first:
            spans.append(Span(place, place + 1, label))
            scheme = "IOB1" if prefix == "I" and scheme == "BIO" else scheme
        else:
            spans[-1] = spans[-1]._replace(end=place + 1)
        begun = prefix not in ENDS + SINGLES
    prefixes = {prefix for prefix, _ in cut}
    for name, own in (("BMES", "M"), ("BILOU", "LU"), ("BIOES", "ES")):
        if prefixes & set(own):
            return spans, name
    return spans, scheme


def tag_names(types: Sequence[str]) -> tuple[str, ...]:
    """Names of the tags of these types of spans: O, then B- and I- of each."""
    return ("O", *(f"{prefix}-{label}" for label in types for prefix in "BI"))


def tags_of(spans: Sequence[Span], count: int, types: Sequence[str]) -> Int64[np.ndarray, " W"]:
    """The numbers of the tags of words, (W,) int64; spans of types that are not known are outside.

    Args:
        spans: of words, none over another.
        count: W.
        types: of spans.
    """
    made = np.full(count, OUTSIDE, np.int64)
    for start, end, label in spans:
        if label in types and start < end:
            made[start:end] = 2 + 2 * types.index(label)
            made[start] -= 1
    return made


def spans_of(tags: Int64[np.ndarray, " W"]) -> Int64[np.ndarray, "S 3"]:
    """First word, behind the last word and number of the type of each span that numbers of tags mean, (S, 3) int64."""
    tags = np.asarray(tags, np.int64)
    kind = (tags + 1) // 2  # 0 outside, else 1 + the type
    before = np.r_[0, kind[:-1]]
    starts = (kind > 0) & ((tags % 2 == 1) | (kind != before))
    first = np.flatnonzero(starts)
    breaks = np.flatnonzero(np.r_[starts | (kind == 0), True])  # where the span before has ended
    last = breaks[np.searchsorted(breaks, first, side="right")]
    return np.stack([first, last, kind[first] - 1], axis=1)
