"""Wikipedia dumps (MediaWiki's XML export), page by page, in constant memory.

The parser is expat with document types refused: a dump has none, and entity bombs (CVE-2003-1564, "billion laughs")
and external entities need one.
"""

from collections.abc import Iterator
from xml.parsers import expat

from cutaway.errors import DamagedFile, InputError
from cutaway.text.documents import Document
from cutaway.text.readers.base import MB, Input, Reader
from cutaway.text.readers.plain import read_plain
from cutaway.text.readers.wikitext import Namespaces, plain_text

_KEPT = {"title", "ns", "text", "dbname", "base", "namespace"}
_PAGE = 16 * MB  # MediaWiki's own limit is 2 MB


class _Pages:
    """Expat's handlers: collects the pages of one dump."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.language = ""
        self.namespaces = Namespaces()
        self.ready: list[tuple[str, str]] = []  # (title, wikitext)
        self.dropped = {"redirects": 0, "pages outside the article namespace": 0}
        self._path: list[str] = []
        self._pieces: list[str] | None = None
        self._size = 0
        self._page: dict[str, str] = {}
        self._key = ""

    def parser(self) -> expat.XMLParserType:
        """A parser that calls this object's handlers."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.buffer_size = MB
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        return parser

    def _refuse(self, *_: object) -> None:
        raise InputError(
            f"{self.name} declares XML entities, which no Wikipedia dump does and attacks do; it is not read"
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._path.append(tag)
        if len(self._path) > 100:
            raise InputError(f"{self.name} nests XML elements deeper than any Wikipedia dump does")
        if tag == "mediawiki":
            self.language = attributes.get("xml:lang", "")
        elif tag == "page":
            self._page = {}
        elif tag == "redirect":
            self._page["redirect"] = "yes"
        elif tag == "namespace":
            self._key = attributes.get("key", "")
        if tag in _KEPT:
            self._pieces, self._size = [], 0

    def _data(self, data: str) -> None:
        if self._pieces is not None:
            self._size += len(data)
            if self._size > _PAGE:
                raise InputError(f"{self.name} has a page of more than {_PAGE // MB} MB, which no Wikipedia dump has")
            self._pieces.append(data)

    def _end(self, tag: str) -> None:
        self._path.pop()
        value, self._pieces = "".join(self._pieces or ()), None if tag in _KEPT else self._pieces
        if tag == "namespace":
            self.namespaces.add(self._key, value)
        elif tag in ("title", "ns", "text") and "page" in self._path:
            self._page[tag] = value  # of several revisions the last one stays
        elif tag == "page":
            page = self._page
            if page.get("ns", "0") != "0":
                self.dropped["pages outside the article namespace"] += 1
            elif "redirect" in page or page.get("text", "")[:9].upper() == "#REDIRECT":
                self.dropped["redirects"] += 1
            else:
                self.ready.append((page.get("title", ""), page.get("text", "")))


def read_wiki(source: Input) -> Iterator[Document]:
    """A document per article, named "file#title"; XML that is no MediaWiki dump is read as the text it is.

    Raises:
        InputError: the file declares a document type or entities.
        DamagedFile: not well-formed.
    """
    if b"<mediawiki" not in source.stream.peek(1)[:4096]:
        yield from read_plain(source, kind="code")
        return
    pages = _Pages(source.name)
    parser = pages.parser()
    empty = 0
    while True:
        data = source.stream.read(MB)
        try:
            parser.Parse(data, not data)
        except expat.ExpatError as error:
            raise DamagedFile(f"{source.name} is not well-formed XML ({error}); fetch it again") from error
        for title, wikitext in pages.ready:
            text = plain_text(wikitext, pages.namespaces)
            empty += not text
            if text:
                meta = {"title": title, **({"language": pages.language} if pages.language else {})}
                yield Document(text, f"{source.name}#{title}", meta)
        pages.ready.clear()
        if not data:
            break
    for what, count in {**pages.dropped, "articles without text": empty}.items():
        if count:
            source.report(f"{count:,} {what} left out", read=True)


WIKI = Reader(read_wiki)
