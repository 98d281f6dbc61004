"""Wikitext to plain text in one pass: linear in the length of the page, whatever is nested or left open.

What reads as prose stays: paragraphs, headings that have something under them, list items, link texts. Templates,
tables, references, pictures, formulas and categories go.
The syntax: https://www.mediawiki.org/wiki/Help:Formatting and https://www.mediawiki.org/wiki/Help:Links
"""

import html
import re

_TOKEN = re.compile(
    r"\{\{|\}\}|\[\[|\]\]|^[ \t:*]*\{\||^[ \t]*\|\}(?!\})|<!--|</?[A-Za-z][^<>]{0,2000}>"
    r"|\[(?=https?:|ftp:|mailto:|//)|\]|-\{(?!\{)|(?<!\})\}-",
    re.MULTILINE,
)
_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9]*)")
_CLOSES = {"}}": "{{", "]]": "[[", "]": "[", "}-": "-{", "|}": "{|", "</ref>": "<ref>"}
_DROPPED = {
    *(
        "math",
        "chem",
        "timeline",
        "gallery",
        "score",
        "imagemap",
        "hiero",
        "graph",
        "mapframe",
        "templatedata",
        "style",
    ),
}
_VERBATIM = {"nowiki", "pre", "syntaxhighlight", "source"}
_QUOTES = re.compile(r"'{2,5}")
_MAGIC = re.compile(r"__[A-Z]{3,25}__")
_INTERLANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]{2,10})?:")
_SPACES = re.compile(r"[ \t\xa0]{2,}")
_EMPTY_BRACKETS = re.compile(r" ?[(（][\s,;，；、]{0,20}[)）]")
_SHORT = {
    "ndash": "–",
    "snd": " – ",
    "spnd": " – ",
    "mdash": "—",
    "'": "'",
    "'s": "'s",
    "!": "",
    "nbsp": " ",
    "·": " · ",
}
_LAST = {"lang", "nowrap", "nobr", "small", "big", "transl", "nihongo2", "zh-hans", "zh-hant"}


class Namespaces:
    """The names under which a wiki files pictures (6) and categories (14), in its own language and in English."""

    def __init__(self) -> None:
        self.names = {"file", "image", "category", "media"}

    def add(self, key: str, name: str) -> None:
        """Take note of a namespace as the dump's head declares it."""
        if key in ("6", "14") and name:
            self.names.add(name.strip().lower())


def plain_text(wikitext: str, namespaces: Namespaces | None = None) -> str:
    """The prose of a page."""
    return _lines(html.unescape(_inline(wikitext, namespaces or Namespaces())))


def _inline(text: str, namespaces: Namespaces) -> str:
    """Links, templates, tables and tags resolved; headings, lists and quotes still as written."""
    stack: list[tuple[str, list[str]]] = [("", [])]  # (opener, what has been read since)
    open_count: dict[str, int] = {}
    missing: set[str] = set()  # closing marks that do not occur any more, so that nobody searches twice
    place = 0

    def close(opener: str) -> None:
        """Close the innermost `opener`; what was opened inside it and never closed becomes its text."""
        while True:
            kind, pieces = stack.pop()
            open_count[kind] -= 1
            inner = "".join(pieces)
            stack[-1][1].append(_render(kind, inner, namespaces) if kind == opener else inner)
            if kind == opener:
                return

    def skip_to(mark: str, start: int) -> int:
        """Where `mark` is next, or -1."""
        found = -1 if mark in missing else text.find(mark, start)
        if found < 0:
            missing.add(mark)
        return found

    while token := _TOKEN.search(text, place):
        stack[-1][1].append(text[place : token.start()])
        mark, place = token[0], token.end()
        if mark == "<!--":
            end = skip_to("-->", place)
            place = end + 3 if end >= 0 else place
        elif mark[0] == "<":
            name = _TAG.match(mark)[1].lower()  # type: ignore[index]  # _TOKEN's tags have names
            if mark[1] == "/":
                if name == "ref" and open_count.get("<ref>"):
                    close("<ref>")
            elif mark[-2] == "/":
                stack[-1][1].append("\n" if name == "br" else "")
            elif name == "ref":
                stack.append(("<ref>", []))
                open_count["<ref>"] = open_count.get("<ref>", 0) + 1
            elif name in _DROPPED or name in _VERBATIM:
                end = skip_to(f"</{name}>", place)
                if end >= 0:
                    stack[-1][1].append(text[place:end] if name in _VERBATIM else "")
                    place = end + len(name) + 3
            elif name in ("br", "p", "div", "li", "tr"):
                stack[-1][1].append("\n")
        else:
            mark = mark.strip(" \t:*")
            opener = _CLOSES.get(mark)
            if opener is None:
                stack.append((mark, []))
                open_count[mark] = open_count.get(mark, 0) + 1
            elif open_count.get(opener):
                close(opener)
            else:
                stack[-1][1].append(mark)
    stack[-1][1].append(text[place:])
    return "".join("".join(pieces) for _, pieces in stack)


def _render(kind: str, inner: str, namespaces: Namespaces) -> str:
    """What stays of a closed construct."""
    if kind == "[[":
        target, _, label = inner.partition("|")
        space, colon, _ = target.partition(":")
        if (colon and space.strip().lower() in namespaces.names) or _INTERLANGUAGE.match(target):
            return ""
        return label.rpartition("|")[2] if label else target.lstrip(": ")
    if kind == "[":
        return inner.partition(" ")[2]
    if kind == "-{":  # one text for several scripts: "-{zh-hans:…; zh-hant:…}-"
        return inner.partition(";")[0].partition(":")[2] if ":" in inner else inner.rpartition("|")[2]
    if kind == "{{":
        name, *arguments = inner.split("|")
        name = name.strip().lower()
        if name in _LAST and arguments:
            return arguments[-1]
        if name.startswith("lang-") and arguments:
            return arguments[0]
        if name in ("convert", "cvt") and len(arguments) > 1:
            return f"{arguments[0]} {arguments[1]}"
        return _SHORT.get(name, "")
    return ""  # a table or a reference


def _lines(text: str) -> str:
    """Block markup resolved; headings without text under them and runs of empty lines removed."""
    kept: list[str] = []
    headings: list[tuple[int, str]] = []  # those not yet followed by any text
    for line in _MAGIC.sub("", _QUOTES.sub("", text)).split("\n"):
        line = line.strip()
        level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")), 6)
        if level and line[level:-level].strip():
            headings = [h for h in headings if h[0] < level] + [(level, line[level:-level].strip())]
            continue
        marker = line[: len(line) - len(line.lstrip("*#:;"))]
        line = _EMPTY_BRACKETS.sub("", _SPACES.sub(" ", line[len(marker) :])).strip()
        if not line or not line.strip("-|} "):
            if kept and kept[-1]:
                kept.append("")
            continue
        for _, title in headings:
            kept += ["", title, ""] if kept and kept[-1] else [title, ""]
        headings.clear()
        kept.append(f"- {line}" if marker[-1:] in ("*", "#") else line)
    return "\n".join(kept).strip()
