"""Which encoding bytes are in: byte order mark, then strict UTF-8, then a statistical guess; and what is no text."""

import codecs
import io
from typing import BinaryIO

from cutaway.errors import InputError, need

_MARKS = (  # UTF-32 first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MAGIC = {
    b"\x1f\x8b": "gzip data; let its name end in .gz",
    b"PK\x03\x04": "a zip archive, as Word and Excel files are; let its name end in .zip, or save it as text",
    b"%PDF-": "a PDF; let its name end in .pdf",
    b"PAR1": "Parquet data; let its name end in .parquet",
    b"\x28\xb5\x2f\xfd": "Zstandard data; let its name end in .zst",
    b"\xfd7zXZ": "xz data; let its name end in .xz",
    b"BZh": "bzip2 data; let its name end in .bz2",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Microsoft Office file; save it as text",
}
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1a\x1b")) + b"\x7f"
_WIDER = {  # codecs that read all of the narrower one and what people really write
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
_TYPOGRAPHY = frozenset("\xa0¡§©«°·»¿…–—‘’“”„‚€£™®•")
_SAMPLE = 1 << 15


def wide(head: bytes) -> str | None:
    """The name of the UTF-16 or UTF-32 encoding that `head` begins, or None."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    pairs = len(head) // 2
    if pairs >= 4:  # no mark: in mostly Latin text every second byte is zero
        even, odd = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
        if odd > 0.5 * pairs and even < 0.05 * pairs:
            return "utf-16-le"
        if even > 0.5 * pairs and odd < 0.05 * pairs:
            return "utf-16-be"
    return None


def not_text(head: bytes) -> str | None:
    """What bytes that are no text seem to be, or None if they may be text (in any encoding that extends ASCII)."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic) and (b"\0" in head or not is_utf8(head)):
            return name
    if b"\0" in head or len(head) - len(head.translate(None, _CONTROL)) > 0.05 * len(head):
        return "binary data"
    return None


def is_utf8(head: bytes) -> bool:
    """Whether bytes are UTF-8, be it that the last character is cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


class Decoder:
    """Bytes to text, block by block; settles on an encoding at the first byte that needs one.

    Attributes:
        encoding: the encoding so far.
        replaced: how many places could not be decoded and became U+FFFD.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.encoding = "utf-8"
        self.replaced = 0
        self._settled = False

    def __call__(self, block: bytes) -> str:
        """The text of a block, which must not cut a character in two.

        Raises:
            InputError: the bytes are no text in any encoding.
        """
        if self.encoding == "utf-8":
            try:
                text = block.decode()
            except UnicodeDecodeError:
                if not self._settled and not mostly_utf8(block):
                    self.encoding = _guess(block, self.name)
                self._settled = True
            else:
                self._settled = self._settled or not text.isascii()
                return text
        text = block.decode(self.encoding, "replace")
        self.replaced += text.count("\ufffd") - block.count("\ufffd".encode())
        return text

    @property
    def meta(self) -> dict[str, str]:
        """For Document.meta: the encoding, where it is not the usual one."""
        return {} if self.encoding == "utf-8" else {"encoding": self.encoding}

    @property
    def loss(self) -> str | None:
        """The sentence for the report if anything was replaced."""
        if not self.replaced:
            return None
        places = "1 place is" if self.replaced == 1 else f"{self.replaced:,} places are"
        return f"{places} not valid {self.encoding.upper()} and became �"


def mostly_utf8(block: bytes) -> bool:
    """Whether broken UTF-8 is still UTF-8: at least four good characters beyond ASCII for each bad place."""
    text = block.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    good = sum(1 for c in text if c > "\x7f") - bad
    return good >= 4 * bad


def _guess(block: bytes, name: str) -> str:
    """The encoding of bytes that are not UTF-8, by charset-normalizer and two corrections for what it confuses."""
    normalizer = need("charset_normalizer", "documents", f"{name} is not UTF-8; finding its encoding")
    beyond = next((i for i, byte in enumerate(block) if byte > 0x7F), 0)
    start = block.rfind(b"\n", 0, beyond) + 1
    stop = block.rfind(b"\n", beyond, start + _SAMPLE) + 1
    sample = block[start:stop] if stop else block[start:]
    best = normalizer.from_bytes(sample).best()
    if best is None:
        raise InputError(f"{name} is text in no known encoding, or no text at all; save it as UTF-8")
    guess = _WIDER.get(best.encoding) or str(best.encoding)
    text = sample.decode(guess, "replace")
    # Short Chinese texts pass for Japanese or Korean ones that have no kana and no Hangul; those do not exist.
    if guess.startswith(("cp932", "shift_jis", "euc_jis", "euc_jp")) and not any(
        "\u3040" <= c <= "\u30ff" for c in text
    ):
        return next((wider for wider in ("big5hkscs", "gb18030") if _decodes(sample, wider)), guess)
    if guess in ("cp949", "johab") and not any("\uac00" <= c <= "\ud7a3" for c in text):
        return next((wider for wider in ("gb18030", "big5hkscs") if _decodes(sample, wider)), guess)
    # Western European text passes for its neighbours; it is cp1252 if that makes letters and typographer's signs of it.
    if _decodes(sample, "cp1252") and all(c < "\u0300" or c in _TYPOGRAPHY for c in text if c.isalpha()):
        signs = [c for c in sample.decode("cp1252") if c > "\x7f"]
        if sum(c.isalpha() or c in _TYPOGRAPHY for c in signs) >= 0.95 * len(signs):
            return "cp1252"
    return guess


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        sample.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


class Recoded(io.RawIOBase):
    """A stream of UTF-16 or UTF-32 as one of UTF-8, so that no reader needs to know that wider units exist."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        super().__init__()
        self._stream = stream
        self._decode = codecs.getincrementaldecoder(encoding)("replace").decode
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer cannot be sliced
        """Fill the buffer with UTF-8; less only at the end."""
        filled = 0
        while filled < len(buffer) and not (self._ended and not self._ready):
            if not self._ready:
                data = self._stream.read(1 << 18)
                self._ended = not data
                self._ready = self._decode(data, self._ended).encode("utf-8", "replace")
            taken = self._ready[: len(buffer) - filled]
            buffer[filled : filled + len(taken)] = taken
            self._ready = self._ready[len(taken) :]
            filled += len(taken)
        return filled


def encodable(text: str) -> str:
    """The text without lone surrogates, which JSON and PDF can spell and UTF-8 cannot: pairs joined, halves U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
