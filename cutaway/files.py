"""Files that are either whole or not there: write beside, sync, rename; and checksums that prove it."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cutaway.errors import DamagedFile, InputError

MANIFEST = "manifest.json"
LARGEST_JSON = 32 * 2**20  # bytes; the largest published index of shards has some 9 MB
ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # two of them are one character
HALF = re.compile("[\ud800-\udfff]")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn 'disk full', 'read-only' and 'permission denied' into one clear sentence (InputError)."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space or choose another folder",
            errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
            errno.EROFS: "the file system is read-only; choose another folder",
            errno.EACCES: "permission is denied; choose another folder",
            errno.EPERM: "permission is denied; choose another folder",
        }
        if error.errno not in reasons:
            raise
        raise InputError(f"cannot write {path}: {reasons[error.errno]}. What was there before is unchanged.") from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable (a no-op where folders cannot be opened, as on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, of which readers see the old content or, when the block has ended well, the new.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    with atomic_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable, ending in a line break."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; see `parse_json`.

    Raises:
        InputError: no such file.
        DamagedFile: not JSON, or larger than any that Cutaway reads.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_JSON + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    if len(data) > LARGEST_JSON:
        raise DamagedFile(f"{path} is larger than {LARGEST_JSON:,} bytes, which no file of its kind is")
    return parse_json(data, str(path))


def parse_json(data: bytes | str, where: str) -> Any:
    """The value of a JSON text in UTF-8, of which every reader makes the same.

    Args:
        data: the text.
        where: what to call it in a message.

    Raises:
        DamagedFile: not JSON; or what readers differ about or break at: a key that is there twice, lists in lists
            without end, a number of thousands of digits, half a character.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(text, object_pairs_hook=_once)
        if ESCAPED_HALF.search(text):  # an escape may be half a character, which no text can hold
            _check_whole(value)
    except (ValueError, RecursionError) as error:  # of these are UnicodeError and JSONDecodeError
        raise DamagedFile(f"{where} is not valid JSON ({error}); restore it or make it again") from error
    return value


def _check_whole(value: Any) -> None:
    """Refuse a text that holds half a character, wherever it stands."""
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, str) and HALF.search(part):
            raise ValueError("half a character stands in it")
        if isinstance(part, dict):
            stack.extend(part)
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def holds(folder: Path, name: str) -> bool:
    """Whether a folder has anything under this name, be it a link to nowhere; `inside` then says what it is."""
    return os.path.lexists(folder / name)


def inside(folder: Path, name: str) -> Path:
    """A file of a folder, by a name that may come from outside, such as "1_Pooling/config.json".

    Raises:
        DamagedFile: the name could lead elsewhere, the file is a link that does, or there is no such file.
    """
    pieces = name.split("/")
    if len(pieces) > 4 or not all(PLAIN_NAME.fullmatch(piece) for piece in pieces):
        raise DamagedFile(f"{folder} names the file {name[:200]!r}, which is no plain file name; nothing was opened")
    path, home = folder / name, folder.resolve()
    # the hub's cache keeps files as links from snapshots/<revision>/ to blobs/
    homes = [home, home.parents[1] / "blobs"] if folder.parent.name == "snapshots" else [home]
    try:
        leads_to = path.resolve()
    except (OSError, RuntimeError) as error:  # links that lead to each other
        raise DamagedFile(f"{path} cannot be followed ({error}); nothing was opened") from error
    if not any(leads_to.is_relative_to(home) for home in homes):
        raise DamagedFile(f"{path} is a link to a place outside its folder; nothing was opened")
    if not path.is_file():
        raise DamagedFile(f"{folder} lacks the file {name}; copy or download it again")
    return path


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary sibling folder; when the block ends well, seal it with a manifest and rename it to `path`.

    The manifest (SHA-256 and size of every file) is written last. A folder already at `path` is replaced only
    after the new one is complete and synced; after an exception nothing has changed.

    Raises:
        InputError: the disk is full, the place cannot be written, or it is a link.
    """
    if path.is_symlink():
        raise InputError(f"{path} is a link; give the folder that it leads to, or another place, to write into")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield room
            seal(room)
            if path.exists():
                old = room.with_name(f"{room.name}.old")
                os.replace(path, old)
                try:
                    os.replace(room, path)
                except BaseException:
                    os.replace(old, path)
                    raise
                shutil.rmtree(old)
            else:
                os.replace(room, path)
        except BaseException:
            shutil.rmtree(room, ignore_errors=True)
            raise
        sync_folder(path.parent)


def seal(folder: Path) -> None:
    """Sync every file in `folder` and write the manifest of their checksums, last."""
    entries = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
        entries[file.relative_to(folder).as_posix()] = {"sha256": sha256(file), "bytes": file.stat().st_size}
    write_json(folder / MANIFEST, {"files": entries})


def verify(folder: Path, *, only: str | None = None) -> None:
    """Check every file of a sealed folder (or `only` one) against its manifest.

    Raises:
        DamagedFile: no manifest, or a file is missing or differs; the message names it.
    """
    if not (folder / MANIFEST).is_file():
        raise DamagedFile(f"{folder} has no {MANIFEST}: it was not finished or not made by Cutaway")
    manifest = read_json(inside(folder, MANIFEST))
    entries = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(entries, dict) or (only is not None and only not in entries):
        raise DamagedFile(f"{folder / MANIFEST} is damaged or does not list {only or 'files'}; make {folder} again")
    for name, entry in entries.items():
        if only not in (None, name):
            continue
        file = inside(folder, name)
        size = file.stat().st_size
        if (
            not isinstance(entry, dict)
            or entry.get("bytes") != size
            or entry != {"sha256": sha256(file), "bytes": size}
        ):
            raise DamagedFile(f"{file} is damaged: its bytes do not match the checksum in {MANIFEST}")
