"""From what the user names to the files to read: folders walked in order, omissions reported, wrong names corrected."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from cutaway.errors import CutawayError, InputError, MissingExtra
from cutaway.text.readers import python_sources
from cutaway.text.readers.base import MB, Limits, OnSkipped, Part, Reader, Skipped, skipped_for
from cutaway.text.readers.plain import PART
from cutaway.text.readers.streams import os_errors, suffixes, zip_file

Sources = str | Path | Sequence[str | Path]


class Finder:
    """One search: remembers which files it has seen, so that none is read twice."""

    def __init__(self, readers: Mapping[str, Reader], limits: Limits, on_skipped: OnSkipped | None) -> None:
        self._readers = readers
        self._limits = limits
        self._on_skipped = on_skipped
        self._seen: dict[str, str] = {}  # real path -> name
        self.skipped: list[Skipped] = []  # the first few, for a message

    def skip(self, source: str, reason: str) -> None:
        """Report that something is left out."""
        if len(self.skipped) < 3:
            self.skipped.append(Skipped(source, reason))
        if self._on_skipped:
            self._on_skipped(Skipped(source, reason))

    def source(self, given: str | Path, *, only: bool) -> Iterator[Part]:
        """The parts of one file or folder that the user named.

        Raises:
            InputError: no such path; a special file; an empty file that is the only source.
        """
        if str(given) == python_sources.NAME:
            yield from python_sources.parts()
            return
        path = Path(given)
        if not os.path.lexists(path):
            raise InputError(missing(path))
        if path.is_dir():
            yield from self._folder(path)
        elif not path.exists():
            raise InputError(f"{path} is a link to {os.readlink(path)}, which does not exist")
        elif not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is neither a file nor a folder; give a file or a folder")
        elif path.stat().st_size == 0 and only:
            raise InputError(f"{path} is empty; give a file with text in it")
        else:
            yield from self._file(path, asked=True)

    def _folder(self, root: Path) -> Iterator[Part]:
        """The files below a folder in the order of their names."""
        inside = os.path.realpath(root) + os.sep

        def unreadable(error: OSError) -> None:
            self.skip(str(error.filename), f"cannot be opened ({error.strerror})")

        for folder, folders, files in os.walk(root, onerror=unreadable):
            folders.sort()
            for name in list(folders):
                link = os.path.islink(os.path.join(folder, name))
                if name.startswith(".") or link:
                    folders.remove(name)
                    self.skip(os.path.join(folder, name), "a link to a folder" if link else "hidden")
            for name in sorted(files):
                path = os.path.join(folder, name)
                if name.startswith("."):
                    self.skip(path, "hidden")
                elif os.path.islink(path) and not os.path.realpath(path).startswith(inside):
                    self.skip(path, "a link that leaves the folder")
                elif not os.path.isfile(path):
                    self.skip(path, "a broken link" if os.path.islink(path) else "not a regular file")
                else:
                    yield from self._file(Path(path), asked=False)

    def _file(self, path: Path, *, asked: bool) -> Iterator[Part]:
        """The parts of one file."""
        name, real = str(path), os.path.realpath(path)
        if real in self._seen:
            self.skip(name, f"the same file as {self._seen[real]}")
            return
        self._seen[real] = name
        size = path.stat().st_size
        if not size:
            self.skip(name, "empty")
            return
        suffix, packing = suffixes(name)
        part = Part(name, name, size, suffix if suffix in self._readers or suffix == ".zip" else "", asked=asked)
        try:
            with os_errors(name):
                if suffix == ".zip" and not packing:
                    yield from self._archive(part)
                    return
                reader = self._readers.get(part.suffix)
                yield from reader.split(part) if reader and reader.split and not packing else [part]
        except CutawayError as error:
            if asked or isinstance(error, MissingExtra):
                raise
            self.skip(name, skipped_for(name, error).reason)

    def _archive(self, part: Part) -> list[Part]:
        """A zip's members in runs of about PART bytes.

        Raises:
            InputError: its members overlap or claim sizes that no archive of texts has.
        """
        with zip_file(part.path, part.name) as archive:
            infos = archive.infolist()
        total = sum(info.file_size for info in infos)
        if total > self._limits.allowed(part.size):
            raise InputError(
                f"{part.name} says that it unpacks to {total / MB:,.0f} MB, far more than texts of its size (a "
                "decompression bomb?); if you trust it, unpack it yourself and give the folder"
            )
        parts, start, weight = [], 0, 0
        for index, info in enumerate(infos):
            if weight and weight + info.file_size > PART:
                parts.append(replace(part, start=start, stop=index, size=weight))
                start, weight = index, 0
            weight += info.file_size
        # Sizes are those on disk: shares of the archive, by what the members hold.
        parts.append(replace(part, start=start, stop=len(infos), size=weight))
        return [replace(p, size=part.size * p.size // max(1, total)) for p in parts]


def missing(path: Path) -> str:
    """The sentence for a path that does not exist: where it goes wrong, and what is there instead."""
    parent, name = path.parent, path.name
    while not parent.is_dir() and parent != parent.parent:
        parent, name = parent.parent, parent.name
    try:
        known = sorted(entry for entry in os.listdir(parent) if not entry.startswith("."))
    except OSError:
        known = []
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    folder = "the current folder" if str(parent) == "." else str(parent)
    if near:
        hint = f"did you mean {' or '.join(str(parent / n) for n in near)}?"
    elif known:
        hint = f"{folder} holds {', '.join(known[:8])}{' …' if len(known) > 8 else ''}"
    else:
        hint = f"{folder} is empty"
    return f"there is no file or folder {path}; {hint}"
