"""Web pages: the main text without menus, advertisements and footers, by trafilatura (Barbaresi 2021)."""

import html
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from cutaway.errors import InputError, need
from cutaway.text.documents import Document
from cutaway.text.readers.base import Input, Reader
from cutaway.text.readers.encoding import Decoder, encodable

_CHARSET = re.compile(rb"charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w.:-]{1,40})", re.IGNORECASE)
_TITLE = re.compile(r"<title\b[^<>]{0,200}>([^<]{0,500})", re.IGNORECASE)
_LANGUAGE = re.compile(r"<html\b[^<>]{0,500}?\blang\s{0,9}=\s{0,9}[\"']?([A-Za-z-]{2,20})", re.IGNORECASE)
_HEAD = 1 << 16


def main_text(page: bytes, name: str, charset: str = "") -> tuple[str, dict[str, str]]:
    """The main text of a page and its title and language; "" if there is no text.

    Args:
        page: the page's bytes.
        name: what to call it in messages.
        charset: what the server said about its encoding; the page's own word and the bytes come first.

    Raises:
        MissingExtra: trafilatura is not installed.
        InputError: the bytes are no text, or the parser fails on them.
    """
    markup = _decode(page, name, charset)
    try:
        text = _library().extract(markup, include_comments=False) or _library().html2txt(markup)
    except Exception as error:  # lxml and trafilatura raise many kinds on pages made to break them
        raise InputError(f"{name} cannot be read as a web page ({type(error).__name__}: {error})") from error
    head = markup[:_HEAD]
    found = {"title": _TITLE.search(head), "language": _LANGUAGE.search(head)}
    meta = {key: " ".join(html.unescape(match[1]).split()) for key, match in found.items() if match}
    return encodable(text or "").strip(), {key: encodable(value) for key, value in meta.items() if value}


def _decode(page: bytes, name: str, charset: str) -> str:
    """The page's text: UTF-8 if it is that, else what it or the server says, else a guess."""
    try:
        return page.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    said = _CHARSET.search(page[:2048])
    for label in (said[1].decode("ascii", "replace") if said else "", charset):
        encoding = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "iso-8859-1": "cp1252"}.get(
            label.lower(), label
        )
        try:
            return page.decode(encoding or "none")
        except (UnicodeDecodeError, LookupError):
            continue
    return Decoder(name)(page)


@cache
def _library() -> Any:
    return need("trafilatura", "documents", "reading web pages")


def read_html(source: Input) -> Iterator[Document]:
    """The page as one document, or a report that it holds no text."""
    text, meta = main_text(source.whole(), source.name)
    if text:
        yield Document(text, source.name, meta)
    else:
        source.report("the page has no text")


HTML = Reader(read_html)
