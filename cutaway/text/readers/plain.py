"""Plain text, Markdown and source code of any size: a long file becomes consecutive documents cut at paragraph ends."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from cutaway.errors import InputError
from cutaway.text.documents import Document
from cutaway.text.readers.base import MB, Input, Part, Reader
from cutaway.text.readers.encoding import Decoder

WHOLE = MB  # a text of fewer bytes is one document
PIECE = MB // 4  # a longer one is cut into documents of about this many
PART = 2 * MB  # and a very long one is divided into parts of about this many, for several processes


def paragraph_end(block: bytes) -> int:
    """Where to cut `block`: after its last empty line, else its last line, else its last space; 0 if it has none."""
    end = max(block.rfind(b"\n\n") + 2, block.rfind(b"\n\r\n") + 3)
    if end > 2:
        return end
    return block.rfind(b"\n") + 1 or block.rfind(b" ") + 1


def line_end(block: bytes) -> int:
    """Where to cut `block`: after its last line end; 0 if it has none."""
    return block.rfind(b"\n") + 1


def blocks(source: Input, cut=line_end, *, size: int = PIECE) -> Iterator[tuple[int, bytes]]:
    """The bytes of an input in blocks of about `size` that end where `cut` says: (offset in the file, block).

    Raises:
        InputError: no place to cut within `limits.document` bytes.
    """
    offset, rest = source.part.start, b""
    while data := source.stream.read(size):
        rest += data
        end = cut(rest)
        if not end and len(rest) > source.limits.document:
            raise InputError(f"{source.name} has a line of more than {source.limits.document // MB} MB; break it up")
        if end:
            yield offset, rest[:end]
            offset, rest = offset + end, rest[end:]
    if rest:
        yield offset, rest


def split(part: Part) -> list[Part]:
    """Divide a long file at line ends into parts of about PART bytes that together are the file."""
    cuts = [0]
    with open(part.path, "rb") as file:
        if b"\0" not in file.read(4096):  # UTF-16 has no line ends that bytes can show
            while (end := cuts[-1] + PART) < part.size:
                found = _next_cut(file, end)
                if found >= part.size:
                    break
                cuts.append(found)
    if len(cuts) == 1:
        return [part]
    bounds = zip(cuts, [*cuts[1:], part.size], strict=True)
    return [replace(part, start=start, stop=stop, size=stop - start) for start, stop in bounds]


def _next_cut(file: BinaryIO, position: int) -> int:
    """The end of the last paragraph (or line) in the PIECE before `position`, else of the first line after it."""
    file.seek(position - PIECE)
    window = file.read(PIECE)
    end = paragraph_end(window) if b"\n" in window else 0
    if end:
        return position - PIECE + end
    while data := file.read(PIECE):
        if b"\n" in data:
            return file.tell() - len(data) + data.index(b"\n") + 1
    return file.tell()


def read_plain(source: Input, *, kind: str = "") -> Iterator[Document]:
    """A text below WHOLE bytes as one document, a longer one as pieces named "file@offset" that add up to it."""
    decode = Decoder(source.name)
    meta = {"kind": kind} if kind else {}
    if source.part.whole and len(source.stream.peek(WHOLE)) < WHOLE:  # the stream's buffer is WHOLE bytes
        text = decode(source.stream.read()).removeprefix("\ufeff")
        yield Document(text, source.name, meta | decode.meta)
    else:
        for offset, block in blocks(source, _piece_end):
            text = decode(block)
            yield Document(
                text if offset else text.removeprefix("\ufeff"), f"{source.name}@{offset}", meta | decode.meta
            )
    if decode.loss:
        source.report(decode.loss, read=True)


def _piece_end(block: bytes) -> int:
    """As paragraph_end; and where a text has neither lines nor spaces, before its last UTF-8 character."""
    end = paragraph_end(block)
    if end or len(block) < MB:
        return end
    end = len(block) - 1
    while end and block[end] & 0xC0 == 0x80:
        end -= 1
    return end


_FENCE = re.compile(r"(---|\+\+\+)[ \t]*\r?\n")
_PAIR = re.compile(r"([A-Za-z][\w-]*)\s*:\s*(\S.*)")


def read_markdown(source: Input) -> Iterator[Document]:
    """Markdown as it is written; front matter (YAML's plain pairs, or TOML) moves into meta."""
    for number, document in enumerate(read_plain(source)):
        if number == 0 and source.part.start == 0:
            text, meta = front_matter(document.text)
            document = replace(document, text=text, meta={**document.meta, **meta})
        yield document


def front_matter(text: str) -> tuple[str, dict[str, str]]:
    """A Markdown text without its front matter, and what that says: title, language, url, date, author."""
    fence = _FENCE.match(text)
    if not fence:
        return text, {}
    end = re.compile(rf"^{re.escape(fence[1])}[ \t]*\r?$\n?", re.MULTILINE).search(text, fence.end())
    if not end:
        return text, {}  # a horizontal line that opens the text
    block = text[fence.end() : end.start()]
    if fence[1] == "+++":
        try:
            pairs = tomllib.loads(block)
        except (tomllib.TOMLDecodeError, RecursionError):
            return text, {}
    else:
        pairs = {m[1]: m[2].strip().strip("\"'") for line in block.splitlines() if (m := _PAIR.fullmatch(line))}
        if block.strip() and not pairs:
            return text, {}
    known = {
        "title": "title",
        "lang": "language",
        "language": "language",
        "url": "url",
        "date": "date",
        "author": "author",
    }
    meta = {known[key.lower()]: str(value) for key, value in pairs.items() if key.lower() in known}
    return text[end.end() :].lstrip("\r\n"), meta


TEXT = Reader(read_plain, split)
MARKDOWN = Reader(read_markdown)
CODE = Reader(partial(read_plain, kind="code"))
CODE_SUFFIXES = (  # noqa: SIM905  # a list of strings would be a page long
    ".py .pyi .pyx .js .mjs .cjs .jsx .ts .tsx .c .h .cc .cpp .cxx .hpp .hh .cu .java .kt .kts .scala .go .rs "
    ".rb .php .pl .pm .lua .r .jl .swift .m .mm .cs .fs .vb .hs .ml .mli .ex .exs .erl .clj .lisp .el .scm .sh "
    ".bash .zsh .fish .ps1 .bat .sql .f .f90 .f95 .pas .asm .s .v .sv .vhd .vhdl .zig .nim .d .dart .groovy "
    ".tcl .cmake .mk .css .scss .less .vue .svelte .proto .tex .bib .toml .yaml .yml .ini .cfg .conf .xsl .xsd "
    ".dtd "
).split()
