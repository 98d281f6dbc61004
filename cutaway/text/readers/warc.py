"""Web archives: WARC (ISO 28500), the pages of its responses, and the texts of Common Crawl's WET files.

Records are read one after the other; a .gz whose records are members of their own is just a longer .gz.
"""

import zlib
from collections.abc import Iterator
from io import BufferedReader

from cutaway.errors import CutawayError, DamagedFile
from cutaway.text.documents import Document
from cutaway.text.readers.base import Input, Reader
from cutaway.text.readers.encoding import Decoder, encodable
from cutaway.text.readers.html import main_text

_LINE = 1 << 16
_HEADERS = 500
_PAGES = ("text/html", "application/xhtml+xml")


def read_warc(source: Input) -> Iterator[Document]:
    """The main text of every successful response with a page, and every extracted text, named "file#url".

    Raises:
        DamagedFile: a record does not begin as one must.
    """
    while True:
        line = source.stream.readline(_LINE)
        if not line:
            return
        if not line.strip():
            continue
        if not line.startswith(b"WARC/"):
            raise DamagedFile(f"{source.name} has bytes where a record of a web archive should begin: {line[:40]!r}")
        headers = _headers(source.stream)
        url = headers.get("warc-target-uri", "").strip("<>")
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise DamagedFile(f"{source.name}#{url} has a record without its length")
        left, kind = int(length), headers.get("warc-type")
        if kind not in ("response", "conversion", "resource") or left > source.limits.document:
            if kind in ("response", "conversion", "resource"):
                source.report("larger than one document may be", at=f"#{url}")
            while left and (data := source.stream.read(min(left, 1 << 20))):
                left -= len(data)
            continue
        content = source.stream.read(left)
        if len(content) < left:
            raise DamagedFile(f"{source.name} is cut short in the record of {url}")
        yield from _record(content, kind, url, headers, source)


def _record(content: bytes, kind: str, url: str, headers: dict[str, str], source: Input) -> Iterator[Document]:
    """The document of one record, if it holds a page or a text."""
    name, said = f"{source.name}#{url}", headers.get("content-type", "")
    try:
        if kind == "response":
            if not said.startswith("application/http"):
                return
            status, said, content = _http(content, source.limits.document)
            if status != "200":
                return
        media, _, rest = said.lower().partition(";")
        charset = rest.partition("charset=")[2].split(";")[0].strip(" \"'")
        meta = {}
        if media.strip() in _PAGES:
            text, meta = main_text(content, name, charset)
        elif media.strip() == "text/plain":
            text = encodable(Decoder(name)(content)).strip()
        else:
            return
    except (CutawayError, zlib.error, ValueError) as error:
        if "MissingExtra" in type(error).__name__:
            raise
        source.report(f"cannot be read ({error})", at=f"#{url}")
        return
    if text:
        language = headers.get("warc-identified-content-language", "").split(",")[0]
        yield Document(text, name, {"url": url, **({"language": language} if language else {}), **meta})
    else:
        source.report("the page has no text", at=f"#{url}")


def _headers(stream: BufferedReader) -> dict[str, str]:
    """Header lines up to the empty one: lower-case name -> value."""
    found = {}
    for _ in range(_HEADERS):
        name, colon, value = stream.readline(_LINE).partition(b":")
        if not colon:
            break
        found[name.strip().lower().decode("latin-1")] = value.strip().decode("utf-8", "replace")
    return found


def _http(content: bytes, limit: int) -> tuple[str, str, bytes]:
    """An HTTP response (RFC 9112) -> status, content type, decoded body."""
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _unchunk(body)
    packing = headers.get("content-encoding", "").lower()
    if packing in ("gzip", "x-gzip", "deflate") and body.lstrip()[:1] != b"<":  # some crawlers store it unpacked
        unpack = zlib.decompressobj(47 if body[:2] == b"\x1f\x8b" or body[:1] == b"\x78" else -15)
        body = unpack.decompress(body, limit)
        if unpack.unconsumed_tail:
            raise ValueError("it unpacks to more than one document may have")
    elif packing not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise ValueError(f"packed as {packing}")
    return [*first.split(), "", ""][1], headers.get("content-type", ""), body


def _unchunk(body: bytes) -> bytes:
    """A body in chunks joined; one that does not have the form was stored joined already."""
    pieces, place = [], 0
    while True:
        end = body.find(b"\r\n", place, place + 100)
        size = body[place:end].partition(b";")[0].strip() if end >= 0 else b""
        try:
            length = int(size, 16)
        except ValueError:
            return b"".join(pieces) or body
        if length <= 0:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + length])
        place = end + 2 + length + 2


WARC = Reader(read_warc, binary=True)
