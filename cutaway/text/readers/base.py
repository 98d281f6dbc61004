"""What readers are made of: a Part says what to read, an Input is an open part, a Reader turns it into documents."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader

from cutaway.errors import InputError
from cutaway.text.documents import Document

MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of work that can be read by itself, in any process: a file, or a range of one.

    Attributes:
        path: the file on disk.
        name: what documents call it: the path as the user would write it.
        size: how many bytes on disk this part stands for, for progress.
        suffix: the reader's key in READERS, or "" to look at the content.
        start: where the part begins: a byte of a plain file, a member of a zip, a row group of a Parquet file.
        stop: where it ends (exclusive), or None for the end of the file.
        column: the text column that was found when the file was divided, so that all its parts agree.
        asked: the user named this file, so a failure is an error; in a folder or an archive it is skipped and reported.
    """

    path: str
    name: str
    size: int
    suffix: str
    start: int = 0
    stop: int | None = None
    column: str = ""
    asked: bool = False

    @property
    def whole(self) -> bool:
        """Whether this is all of its file."""
        return self.start == 0 and self.stop is None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was left out, or read with a loss.

    Attributes:
        source: what it is, as in Document.source.
        reason: why, in a short clause.
        read: True if it was read all the same and only what the reason says is lost.
    """

    source: str
    reason: str
    read: bool = False


OnSkipped = Callable[[Skipped], None]


def skipped_for(source: str, error: Exception) -> Skipped:
    """An error as a report; its sentence begins with the source's name, which a report says already."""
    return Skipped(source, str(error).removeprefix(source).lstrip(": "))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a source may unfold to before it is taken for a decompression bomb (CVE-2024-12886 and its kin).

    Attributes:
        ratio: decoded bytes per byte on disk; text packs to about 1/4, very repetitive logs to 1/100.
        floor: decoded bytes that are always allowed, whatever the ratio.
        decoded: decoded bytes that are never exceeded, per file.
        document: bytes of one document of a format that must be held whole (a PDF, a page, a JSON record).
    """

    ratio: float = 250.0
    floor: int = 64 * MB
    decoded: int = 1 << 40
    document: int = 64 * MB

    def allowed(self, packed: int) -> int:
        """How many bytes `packed` bytes may decode to."""
        return min(self.decoded, max(self.floor, int(self.ratio * packed)))


@dataclass(frozen=True, slots=True)
class Input:
    """An open part: its decompressed bytes and where to report.

    Attributes:
        name: what documents call it (a zip member: "texts.zip/a.txt").
        stream: the bytes; text in UTF-16 or UTF-32 arrives as UTF-8.
        part: what was opened.
        column: the column the user asked for.
        also: further columns to keep in Document.meta, under their names.
        limits: see Limits.
        on_skipped: who wants to know.
    """

    name: str
    stream: BufferedReader
    part: Part
    column: str | None
    limits: Limits
    on_skipped: OnSkipped | None
    also: tuple[str, ...] = ()

    def whole(self) -> bytes:
        """All bytes, for formats that cannot be streamed.

        Raises:
            InputError: more than `limits.document`.
        """
        data = self.stream.read(self.limits.document + 1)
        if len(data) > self.limits.document:
            raise InputError(
                f"{self.name} is larger than the {self.limits.document // MB} MB that one document may have; divide it"
            )
        return data

    def report(self, reason: str, *, at: str = "", read: bool = False) -> None:
        """Say that something of this input was left out, or (read=True) read with a loss."""
        if self.on_skipped:
            self.on_skipped(Skipped(self.name + at, reason, read))


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes:
        read: an open input -> its documents, as a stream.
        split: a whole uncompressed file -> parts of about PART bytes, where the format allows it.
        binary: the format is not text, so bytes that are no text are expected.
    """

    read: Callable[[Input], Iterator[Document]]
    split: Callable[[Part], list[Part]] | None = None
    binary: bool = False
