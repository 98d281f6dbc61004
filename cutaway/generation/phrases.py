"""Strings that a text has to hold: their tokens, and when a text holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cutaway.errors import ConfigError
from cutaway.models import Model

UNSPACED = "\u2e80"  # letters from here on (Chinese, Japanese, Korean) are written without spaces between words
MOST = 64  # phrases of one text
SPARE = 2  # beams beside those of which each has so many tokens of phrases


@dataclass(frozen=True)
class Phrase:
    """A string that a text has to hold.

    Attributes:
        text: the string.
        first: its tokens where it begins a text, or stands behind what is no letter.
        behind: its tokens behind a word.
    """

    text: str
    first: tuple[int, ...]
    behind: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many tokens it takes at the most."""
        return max(len(self.first), len(self.behind))

    def tokens(self, before: str) -> tuple[int, ...]:
        """Its tokens behind a text."""
        return self.behind if before and _joined(before[-1], self.text[0]) else self.first


def is_inside(phrase: str, text: str) -> bool:
    """Whether a text holds a phrase, not as a part of a longer word."""
    place = text.find(phrase)
    while place >= 0:
        end = place + len(phrase)
        if not (_joined(text[place - 1 : place], phrase[0]) or _joined(phrase[-1], text[end : end + 1])):
            return True
        place = text.find(phrase, place + 1)
    return False


def phrases_of(model: Model, texts: Sequence[str]) -> tuple[Phrase, ...]:
    """Each of some strings once, with its tokens.

    Raises:
        ConfigError: one of them is no text, or empty, or there are too many.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ConfigError("phrases must be a list of texts, none of them empty")
    if len(texts) > MOST:
        raise ConfigError(f"a text can be made to hold at most {MOST} phrases, but {len(texts)} were given")
    tokenizer = model.tokenizer.target or model.tokenizer
    made = []
    for text in dict.fromkeys(text.strip() for text in texts):
        made.append(Phrase(text, tuple(tokenizer.encode(text)), tuple(tokenizer.encode(" " + text))))
    return tuple(made)


def beams_for(phrases: Sequence[Phrase]) -> int:
    """How many beams leave some for each number of tokens that are there already."""
    return SPARE + sum(phrase.size for phrase in phrases)


def _joined(one: str, other: str) -> bool:
    """Whether two letters beside each other are of one word."""
    return all(letter.isalnum() and letter < UNSPACED for letter in (one or " ", other or " "))
