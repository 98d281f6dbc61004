"""Opening a part: decompression while reading, byte ranges, zip members, and the limits that stop bombs."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePath
from typing import Any, BinaryIO

from cutaway.errors import DamagedFile, InputError, need
from cutaway.text.readers.base import MB, Limits, Part
from cutaway.text.readers.encoding import Recoded, wide

COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}
_MEMORY = 192 * MB  # a decompressor's dictionary may ask for gigabytes; everyday files need at most 128 MB


def suffixes(name: str) -> tuple[str, str]:
    """The format's suffix and the compression's, lower case: "a.JSONL.zst" -> (".jsonl", ".zst")."""
    path = PurePath(name)
    packing = path.suffix.lower() if path.suffix.lower() in COMPRESSED else ""
    return (PurePath(path.stem) if packing else path).suffix.lower(), packing


class _Guarded(io.RawIOBase):
    """A stream that reads exactly a range, turns a decompressor's complaint into DamagedFile, and stops at a limit."""

    def __init__(self, inner: BinaryIO, name: str, *, allowed: int | None = None, length: int | None = None) -> None:
        super().__init__()
        self._inner = inner
        self._name = name
        self._allowed = allowed
        self._left = length
        self._count = 0

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer cannot be sliced
        """Fill the buffer as far as there is data."""
        wanted = len(buffer) if self._left is None else min(len(buffer), self._left)
        filled = 0
        while filled < wanted:
            try:
                data = self._inner.read(wanted - filled)
            except Exception as error:  # each decompressor has exceptions of its own, not all of them public
                if isinstance(error, OSError) and error.errno:
                    raise
                raise DamagedFile(f"{self._name} is damaged or cut short ({error}); fetch or pack it again") from error
            if not data:
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        self._count += filled
        if self._left is not None:
            self._left -= filled
        if self._allowed is not None and self._count > self._allowed:
            raise InputError(
                f"{self._name} unpacks to more than {self._allowed / MB:,.0f} MB, far more than a text of its size (a "
                "decompression bomb?); if you trust it, unpack it yourself and give the result"
            )
        return filled


class _Frames(io.RawIOBase):
    """Concatenated .xz or .zst streams, fed a little at a time so that no step unfolds to more than some 30 MB.

    lzma.LZMAFile has no memory limit, and zstandard's own stream reader takes a file that is cut short for a whole one.
    """

    def __init__(self, file: BinaryIO, new: Callable[[], Any]) -> None:
        super().__init__()
        self._file = file
        self._new = new
        self._decoder: Any = None
        self._ready = self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """Up to `size` decoded bytes; b"" at the end."""
        while not self._ready:
            data = self._rest or self._file.read(1024)
            self._rest = b""
            if self._decoder is None:
                if not data:
                    return b""
                data = data.lstrip(b"\0")  # .xz files may have zeros between their streams
                if not data:
                    continue
                self._decoder = self._new()
            elif not data:
                raise EOFError("it ends too early")
            self._ready = self._decoder.decompress(data)
            if self._decoder.eof:
                self._rest, self._decoder = self._decoder.unused_data, None
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken


def _unpack(file: BinaryIO, packing: str) -> BinaryIO:
    """The decompressed stream of `file`."""
    if packing == ".gz":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]  # a BinaryIO in all that is used here
    if packing == ".bz2":
        return bz2.BZ2File(file)  # type: ignore[return-value]  # likewise
    if packing == ".xz":
        return _Frames(file, lambda: lzma.LZMADecompressor(memlimit=_MEMORY))  # type: ignore[return-value]  # likewise
    zstandard = need("zstandard", "documents", "reading .zst files")
    window = zstandard.ZstdDecompressor(max_window_size=128 * MB)
    return _Frames(file, window.decompressobj)  # type: ignore[return-value]  # likewise


@contextmanager
def opened(part: Part, limits: Limits) -> Iterator[io.BufferedReader]:
    """The decompressed bytes of a part that is not an archive."""
    packing = suffixes(part.path)[1]
    with open(part.path, "rb", buffering=MB) as file:
        if packing:
            inner, allowed, length = _unpack(file, packing), limits.allowed(part.size), None
        else:
            file.seek(part.start)
            inner, allowed, length = file, None, None if part.stop is None else part.stop - part.start
        yield io.BufferedReader(_Guarded(inner, part.name, allowed=allowed, length=length), MB)


def members(part: Part, limits: Limits) -> Iterator[tuple[str, io.BufferedReader | None, str]]:
    """The members start … stop of a zip: (full name, bytes, ""), or (full name, None, why it cannot be read).

    Raises:
        DamagedFile: the archive's directory cannot be read.
    """
    with zip_file(part.path, part.name) as archive:
        for info in archive.infolist()[part.start : part.stop]:
            if info.filename.endswith("/") or not info.filename:  # a folder; is_dir() fails on an empty name
                continue
            name, packing = f"{part.name}/{info.filename}", suffixes(info.filename)[1]
            hidden = any(piece.startswith(".") or piece == "__MACOSX" for piece in PurePath(info.filename).parts)
            if info.flag_bits & 1 or hidden:
                yield name, None, "hidden" if hidden else "encrypted; unpack it yourself"
                continue
            with ExitStack() as stack:
                try:
                    inner: BinaryIO = stack.enter_context(archive.open(info))  # type: ignore[assignment]  # ZipExtFile
                except Exception as error:  # as in zip_file
                    yield name, None, f"damaged, or packed in an unknown way ({error})"
                    continue
                allowed = limits.allowed(info.compress_size)
                if packing:  # the limit holds for each of the two layers
                    inner = _unpack(io.BufferedReader(_Guarded(inner, name, allowed=allowed)), packing)  # type: ignore[arg-type]
                yield name, io.BufferedReader(_Guarded(inner, name, allowed=allowed), MB), ""


def zip_file(path: str, name: str) -> zipfile.ZipFile:
    """Open a zip archive, or DamagedFile."""
    try:
        return zipfile.ZipFile(path)
    except OSError:
        raise
    except Exception as error:  # besides BadZipFile, damage shows as ValueError, struct.error and others
        raise DamagedFile(f"{name} is not a zip archive, or a damaged one ({error})") from error


@contextmanager
def os_errors(name: str) -> Iterator[None]:
    """Turn what the system says about a file (no permission, a disk's error) into one sentence (InputError)."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error


def as_utf8(stream: io.BufferedReader) -> io.BufferedReader:
    """The same stream, recoded if it begins UTF-16 or UTF-32."""
    encoding = wide(stream.peek(1)[:4096])
    return io.BufferedReader(Recoded(stream, encoding), MB) if encoding else stream
