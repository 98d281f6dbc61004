"""Characters: repair what was decoded wrongly, normalise what has two spellings, remove what nobody can see.

Three steps, in this order: `unicode` (mojibake, surrogates, NFC), `characters` (control and zero-width characters, line
ends), `whitespace` (odd spaces, trailing spaces, runs of empty lines). An ASCII text skips nearly all of it: Python
knows in constant time that a string is ASCII.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

from cutaway.errors import need
from cutaway.text.documents import Document
from cutaway.text.outcome import Outcome, is_code

# UTF-8 read as Latin-1, Windows-1252, Mac Roman or Windows-1251 shows as a lead byte and a continuation byte, each in
# that encoding. Only lines in which such a pair stands are handed to ftfy, which then decides carefully but slowly.
_CONTINUATION = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_SUSPICIOUS = re.compile(
    f"[\x80-\x9f\ud800-\udfff]|[Â-ô][{_CONTINUATION}]|[√‚][^\\sa-zA-Z0-9]|вЂ|[РС][{_CONTINUATION}Ђ-џ]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")

# Outside these blocks there may be characters that NFC changes, orders or joins; a text without any is in NFC as it is.
_MAY_COMPOSE = re.compile(
    "[^\x00-\u02ff\u0391-\u03ce\u0400-\u0482\u048a-\u052f\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u3001-\u3029"
    "\u3041-\u3096\u30a1-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff5e]"
)

# Shown by nothing, or meant for a terminal: C0 except tab and line feed, DEL, C1, soft hyphen, zero-width space, word
# joiner, byte order mark, directional overrides, interlinear marks. The joiners U+200C and U+200D stay: emoji,
# Persian and Indic scripts need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\xad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]+"
)
_TERMINAL = re.compile("\x1b\\[[0-9;?]{0,32}[ -/]{0,8}[@-~]")  # ANSI escapes as a whole, not only the escape character
_LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")
# Printable ASCII, tab and line feed as spaces, controls as one of them, the bytes of other characters as they are.
_RARE = bytes(b if b > 127 else 32 if b in (9, 10) or 32 <= b < 127 else 1 for b in range(256))

_ODD_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f]")
_TRAILING = re.compile(r"[ \t]+(?=\n)")
_RUNS = re.compile(r"(?<=[^ \n]) {2,}")
_EMPTY_LINES = re.compile(r"\n{3,}")


def unicode(documents: Sequence[Document]) -> Outcome:
    """Repair mojibake and stray surrogates (ftfy), then normalise to NFC (Unicode Standard Annex 15).

    Raises:
        MissingExtra: ftfy is not installed.
    """
    fixes = need("ftfy", "documents", "repairing wrongly decoded text")
    outcome = Outcome()
    for document in documents:
        text = document.text
        what = "normalised to NFC"
        if not text.isascii():
            if _SUSPICIOUS.search(rare(text)):
                repaired = _repair(text, fixes.fix_encoding)
                what, text = ("wrong decoding repaired", repaired) if repaired != text else (what, text)
            if _MAY_COMPOSE.search(rare(text)) and not unicodedata.is_normalized("NFC", text):
                text = unicodedata.normalize("NFC", text)
        outcome.keep(document, text, what)
    return outcome


def characters(documents: Sequence[Document]) -> Outcome:
    """Make every line end a line feed and remove characters that nobody sees, terminal escapes included."""
    outcome = Outcome()
    for document in documents:
        text = document.text
        if (beyond := rare(text)) and (_UNSEEN.search(beyond) or _LINE_ENDS.search(beyond)):
            text = _UNSEEN.sub("", _LINE_ENDS.sub("\n", _TERMINAL.sub("", text)))
        outcome.keep(document, text, "control and unseen characters removed")
    return outcome


def whitespace(documents: Sequence[Document]) -> Outcome:
    """Plain spaces, no trailing ones, at most one empty line in prose and two in source code.

    The indentation of a line is never touched. Runs of spaces inside a line are kept in source code and in texts that
    quote it (Markdown fences), since they may line up columns.
    """
    outcome = Outcome()
    for document in documents:
        text = document.text
        code = is_code(document)
        if not code and _ODD_SPACES.search(rare(text)):
            text = _ODD_SPACES.sub(" ", text)
        if " \n" in text or ("\t" in text and "\t\n" in text):
            text = _TRAILING.sub("", text)
        if not code and "  " in text and "```" not in text:
            text = _RUNS.sub(" ", text)
        if code and "\n\n\n\n" in text:
            text = re.sub(r"\n{4,}", "\n\n\n", text)
        elif not code and "\n\n\n" in text:
            text = _EMPTY_LINES.sub("\n\n", text)
        text = text.lstrip("\n").rstrip()
        # nearly every file ends in a line break: without it the text is the same to a reader
        changed = text != document.text.rstrip("\n")
        outcome.keep(document, text, "white space normalised" if changed else "")
    return outcome


@lru_cache(maxsize=16)  # the steps ask for the same texts one after the other
def rare(text: str) -> str:
    """The characters of a text beyond printable ASCII: their runs in order, a space between two, any control as U+0001.

    Tables of bytes find them ten times faster than a regular expression looks through the whole, so searches for rare
    characters look here first.
    """
    runs = text.encode("utf-8", "surrogatepass").translate(_RARE).split()
    return b" ".join(runs).decode("utf-8", "surrogatepass")


def _repair(text: str, repair: Callable[[str], str]) -> str:
    """The text with `repair` of the lines that look suspicious; no surrogate is left."""
    if _SURROGATE.search(text):
        # Two halves of one character (JSON escapes) join; a half alone cannot be written as UTF-8 and goes.
        text = _SURROGATE.sub("", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    lines = text.split("\n")
    return "\n".join(repair(line) if _SUSPICIOUS.search(line) else line for line in lines)
