"""Tokens grouped into words and sentences of the text that they spell.

A group ends only where both a token and a word (or sentence) end: a token that reaches into the next word keeps the two
together. Special tokens are no part of the text, and stand alone at every grain.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Literal, TypeAlias

from cutaway.errors import ConfigError, unknown
from cutaway.text.bag import segment
from cutaway.text.sentences import sentence_spans
from cutaway.tokenizers import Tokenizer

Grain: TypeAlias = Literal["token", "word", "sentence"]
GRAINS = ("token", "word", "sentence")
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# a run of Han characters, a run of other letters and digits with what joins them, or one other sign
WORDS = re.compile(rf"[{HAN}]+|(?:(?![{HAN}])\w)+(?:['’-](?:(?![{HAN}])\w)+)*|[^\w\s]|_")


def groups(tokenizer: Tokenizer, ids: Sequence[int], grain: Grain | str) -> list[tuple[str, list[int]]]:
    """The words or sentences that ids spell: of each its text and the places of its tokens, in order.

    Args:
        tokenizer: whose ids they are.
        ids: of the text.
        grain: "token" gives each token alone, as `Tokenizer.token` shows it.

    Raises:
        ConfigError: an unknown grain.
        MissingExtra: words of a Chinese text without jieba installed.
    """
    if grain not in GRAINS:
        raise ConfigError(unknown("grain", str(grain), GRAINS))
    if grain == "token":
        return [(tokenizer.token(id), [place]) for place, id in enumerate(ids)]
    special, found, start = set(tokenizer.special.values()), [], 0
    for place in range(len(ids) + 1):
        if place == len(ids) or ids[place] in special:
            found += _of_text(tokenizer, ids, range(start, place), grain)
            found += [(tokenizer.token(ids[place]), [place])] if place < len(ids) else []
            start = place + 1
    return found


def _of_text(
    tokenizer: Tokenizer, ids: Sequence[int], places: range, grain: Grain | str
) -> list[tuple[str, list[int]]]:
    """The groups of a stretch of tokens without special ones among them."""
    pieces = spelled(tokenizer, [ids[place] for place in places])
    text = "".join(pieces)
    bounds = word_starts(text) if grain == "word" else sentence_starts(text)
    made: list[tuple[str, list[int]]] = []
    waiting: list[int] = []  # parts of a character that is not whole yet
    end = reached = 0  # of the token's text, and which unit the tokens so far have reached into
    for place, piece in zip(places, pieces, strict=True):
        waiting.append(place)
        if not piece and place != places[-1]:
            continue
        begin, end = end, end + len(piece)
        first, last = end - len(piece.lstrip()), begin + len(piece.rstrip())
        if made and (not piece.strip() or bisect_right(bounds, first) <= reached):
            made[-1] = (made[-1][0] + piece, made[-1][1] + waiting)
        else:
            made.append((piece, waiting))
        waiting = []
        if piece.strip():
            reached = bisect_left(bounds, last)
    return [(text.strip() or text, members) for text, members in made]


def spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text; a part of a character adds nothing until the character is whole."""
    stream = tokenizer.stream()
    pieces = [stream.add(id) for id in ids]
    if pieces:
        pieces[-1] += stream.finish()
    return pieces


def word_starts(text: str) -> list[int]:
    """Where words begin: runs of letters and digits, single other signs, and Chinese words as jieba cuts them."""
    starts = []
    for found in WORDS.finditer(text):
        place = found.start()
        for word in segment(found[0]).split():  # changes nothing but Chinese
            starts.append(place)
            place += len(word)
    return starts


def sentence_starts(text: str) -> list[int]:
    """Where sentences begin."""
    return [start for start, _ in sentence_spans(text)]
