"""Texts as sentences, English, Chinese and others of their scripts, with exact places.

A Latin stop ends a sentence before a space, unless it is that of an abbreviation, an initial or a list's number, or the
sentence began with a capital and goes on without; a Chinese one does anywhere. Closing quotation marks and brackets
belong to the sentence before them. An empty line ends a sentence; a single line break does not where a line was full.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST = 2000  # characters of a "sentence"; what goes on without any stop (tables, lists, logs) is cut
FULL = 50  # columns of a line that may have been broken because it was full; a Chinese character fills two

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
CLOSING = "\"'”’」』）)》】〉\\]}»"
# what may end a sentence: stops before a space or the end, wide stops anywhere, "……" before a close; lines
PLACES = re.compile(
    rf"(?<![.!?…‼⁇⁈⁉])[.!?…‼⁇⁈⁉]++[{CLOSING}]*+(?=\s|$|(?<=[.!?])[{HAN}])"
    rf"|[。！？｡।॥؟۔]+[。！？!?…]*[{CLOSING}]*|…+[”’」』）》】]+|\n[^\S\n]*\n\s*|\n"
)
BULLET = re.compile(
    r"\s*(?:[-*•·–—▪◦‣]|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,4})[.)]|#{1,6})\s|\s*[（(]?[一二三四五六七八九十]+[）)、]"
)
NUMBER = re.compile(r"(?:^|\n)\s*\(?(?:\d{1,3}(?:\.\d{1,3})*|[A-Za-z]|[ivxIVX]{1,4})\.$")
# before a name or number; the sentence goes on
TITLES = re.compile(
    r"mr|mrs|ms|mx|dr|prof|st|mt|ft|gen|col|maj|capt|lt|sgt|rev|hon|sr|sra|messrs|mme|mlle|gov|sen|rep|"
    r"pres|supt|det|insp|fig|figs|eq|eqs|sec|secs|ch|chap|vol|vols|no|nos|nr|pp|p|art|arts|ref|refs|tab|"
    r"ed|eds|ex|def|thm|prop|app|appx|cf|vs|viz|e\.g|i\.e|eg|ie|approx|ca|c|resp|esp|incl|aka|a\.k\.a|et|"
    r"seq",
    re.IGNORECASE,
)
# of which the sentence may end, too: it does before a word that begins one
DOUBTFUL = re.compile(
    r"etc|al|jr|sr|inc|ltd|co|corp|bros|dept|univ|assn|dist|est|a\.m|p\.m|am|pm|ph\.d|m\.d|b\.a|m\.a|b\.c|"
    r"a\.d|u\.s|u\.k|u\.n|e\.u|u\.s\.a|d\.c|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|mon|tue|wed|"
    r"thu|fri|sat|sun|ave|blvd|rd",
    re.IGNORECASE,
)
STARTERS = re.compile(
    r"the|a|an|this|that|these|those|it|he|she|we|they|i|you|his|her|its|their|our|my|in|on|at|for|from|"
    r"with|to|by|as|of|however|but|and|so|or|if|when|while|although|though|because|since|after|before|"
    r"there|here|what|who|how|why|where|moreover|furthermore|finally|then|thus|therefore|also|yet|still|"
    r"unlike|both|each|some|many|most|all|no|not",
    re.IGNORECASE,
)
WORD_BEFORE = re.compile(r"([^\W\d_]+(?:\.[^\W\d_]+)*)\.$")
WORD_AFTER = re.compile(r"\s{0,99}[\"'“‘(\[«]{0,9}([^\W_]+)")
CUTS = (re.compile(r"[,;:，；：、]\s*"), re.compile(r"\s+"))


def sentence_spans(text: str, *, longest: int = LONGEST) -> list[tuple[int, int]]:
    """Where the sentences of a text begin and end: `text[start:end]` is one, without the white space around it.

    They are in order, and between them is nothing but white space: nothing of the text is lost.

    Args:
        text: any.
        longest: characters of one, above which it is cut at a comma, at a space, else anywhere.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for end in (*_ends(text), len(text)):
        first, last = _trimmed(text, start, end)
        if first < last:
            spans += _cut(text, first, last, longest)
        start = end
    return spans


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space around them."""
    return [text[start:end] for start, end in sentence_spans(text)]


def _ends(text: str) -> Iterator[int]:
    start = 0
    for found in PLACES.finditer(text):
        what, end = found[0], found.end()
        if what[0] == "\n":
            ends = _line_ends(text, start, found.start(), end, what)
        elif what[0] in ".!?…‼⁇⁈⁉":
            ends = _stop_ends(text, start, found.start(), end)
        else:
            ends = not text.startswith(("，", "、", "；", "：", ","), end)
        if ends:
            yield end
            start = end


def _line_ends(text: str, start: int, place: int, after: int, what: str) -> bool:
    """Whether a line break ends a sentence that began at `start`."""
    if what.count("\n") > 1 or BULLET.match(text, after):
        return True
    following = WORD_AFTER.match(text, after)
    if following is not None and following[1][0].islower():
        return False
    line = text[max(start, text.rfind("\n", 0, place) + 1) : place].rstrip()
    return sum(2 if "\u2e80" <= letter <= "\uffee" else 1 for letter in line[:FULL]) < FULL


def _stop_ends(text: str, start: int, place: int, after: int) -> bool:
    """Whether a stop before a space ends a sentence that began at `start`."""
    following = WORD_AFTER.match(text, after)
    if following is not None and following[1][0].islower():
        first = WORD_AFTER.match(text, start)
        if first is None or not first[1][0].islower():  # a text that is all in lower case has sentences, too
            return False
    if text[place:after] != ".":
        return True
    before = text[max(start, place - 40) : place + 1]
    if NUMBER.search(before) and (place - start < 12 or "\n" in before):
        return False
    word = WORD_BEFORE.search(before)
    if word is None or following is None:
        return True
    name, goes_on = word[1], not STARTERS.fullmatch(following[1])
    if TITLES.fullmatch(name):
        return name.lower() == "no" and not following[1][0].isdigit()  # "No." is an answer, too
    if DOUBTFUL.fullmatch(name) or (len(name) == 1 and name.isupper() and name != "I"):
        return not goes_on
    return True


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _cut(text: str, start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """A stretch in pieces of at most `longest` characters."""
    while end - start > longest:
        limit = start + longest
        places = (max((m.end() for m in cut.finditer(text, start + longest // 2, limit)), default=0) for cut in CUTS)
        place = next((place for place in places if place), limit)
        yield _trimmed(text, start, place)
        start, _ = _trimmed(text, place, end)
    if start < end:
        yield start, end
