"""How right an answer is: exact match and F1, as the scripts of SQuAD and, for Chinese, of CMRC 2018 count them.

SQuAD's (Rajpurkar et al. 2016; 2.0: 2018) compares bags of words, in lower case, without punctuation and the articles.
CMRC's (Cui et al. 2019) compares the longest run that two answers share, of Chinese characters and of other words, so
that their order counts. Of several right answers the best one counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal

Script = Literal["words", "characters"]
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
CHINESE_SIGNS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》……·、「」（）－～『』")  # noqa: RUF100
PIECES = re.compile("[\u4e00-\u9fa5]|[^\\W\u4e00-\u9fa5]+|[^\\w\\s]")


def normal(text: str) -> str:
    """As SQuAD's script compares it: lower case, no punctuation, no articles, single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact(said: str, known: Sequence[str], script: Script = "words") -> float:
    """1 if the answer is one of the right ones, else 0.

    Args:
        said: "" says that there is none.
        known: the right answers; none: there is no answer.
        script: "words" as SQuAD counts, "characters" as CMRC does.
    """
    same = _unsigned if script == "characters" else normal
    return float(any(same(said) == same(one) for one in _there(known, script)))


def f1(said: str, known: Sequence[str], script: Script = "words") -> float:
    """How much of the answer is right and of the right one is there, 0 … 1; arguments as for `exact`."""
    count = _shared_run if script == "characters" else _shared_words
    return max(count(said, one) for one in _there(known, script))


def _there(known: Sequence[str], script: Script) -> Sequence[str]:
    """The right answers of which something is left to compare; "" where there is no answer."""
    same = _unsigned if script == "characters" else normal
    return [one for one in known if same(one)] or [""]


def _shared_words(said: str, known: str) -> float:
    first, second = normal(said).split(), normal(known).split()
    if not first or not second:
        return float(first == second)
    common = sum((Counter(first) & Counter(second)).values())
    return 2 * common / (len(first) + len(second))


def _unsigned(text: str) -> str:
    return "".join(letter for letter in text.lower().strip() if letter not in CHINESE_SIGNS)


def _shared_run(said: str, known: str) -> float:
    first, second = PIECES.findall(_unsigned(said)), PIECES.findall(_unsigned(known))
    if not first or not second:
        return float(first == second)
    longest, before = 0, [0] * (len(second) + 1)
    for piece in first:
        row = [0] * (len(second) + 1)
        for place, other in enumerate(second, 1):
            if piece == other:
                row[place] = before[place - 1] + 1
                longest = max(longest, row[place])
        before = row
    return 2 * longest / (len(first) + len(second))
