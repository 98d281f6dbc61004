"""What lies in a folder that can be opened: runs with their steps, models, GGUF files. Requests choose among them.

A request names an entry, never a path: what can be opened is what this found, and what the command line gave.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from cutaway.models.model import CHECKPOINTS, MODEL_JSON, checkpoints, step_of, steps_of

DEPTH = 4  # folders below the given one that are looked into
MOST = 200  # entries that are listed
LOOKED = 20_000  # files and folders that are looked at: whose studio shows a whole disk waits for no end of it
SKIPPED = {"node_modules", "__pycache__", "site-packages", "build", "dist", CHECKPOINTS}
Kind = Literal["run", "model", "file", "hub", "given"]


@dataclass(frozen=True)
class Entry:
    """Something that can be opened.

    Attributes:
        name: in requests.
        kind: "run", "model", "file", "hub", or "given" (on the command line).
        about: where it lies, as people would say it: below the folder.
        changed: when, in seconds since 1970; 0 where nobody knows.
        steps: of a run, its checkpoints, from first to last.
        task: whether it was made for a task.
    """

    name: str
    kind: Kind
    about: str
    changed: float = 0.0
    steps: list[int] = field(default_factory=list)
    task: bool = False


def step_folder(folder: Path, step: int) -> Path | None:
    """Where the checkpoint of a step lies; None: there is none."""
    return next((path for path in checkpoints(folder) if step_of(path) == step), None)


def given_entry(name: str, path: Path) -> Entry:
    """What was given on the command line."""
    steps = steps_of(path) if (path / CHECKPOINTS).is_dir() else []
    return Entry(name, "given", shown(path.name) or name, _changed(path), steps, (path / "task.json").is_file())


def catalogue(folder: Path, taken: Mapping[str, str], names: dict[str, str]) -> dict[str, tuple[Entry, Path]]:
    """What lies below a folder, by name, newest first.

    Args:
        folder: looked into, a few levels deep; links are not followed.
        taken: names that mean something else.
        names: place -> name of what was found before, and keeps it; what is new is added.
    """
    found: dict[str, tuple[Entry, Path]] = {}
    known = {Path(source).resolve() for source in taken.values() if Path(source).exists()}
    entries: list[tuple[Kind, Path]] = [one for one in _found(folder) if one[1].resolve() not in known]
    for kind, path in sorted(entries, key=lambda one: -_changed(one[1]))[:MOST]:
        about = shown(path.relative_to(folder).as_posix())
        plain = re.sub(r"[^\w.-]+", ".", about).strip(".")[-56:] or "here"
        name = named(str(path), plain, names, taken)
        steps = steps_of(path) if kind == "run" else []
        task = path.is_dir() and (path / "task.json").is_file()
        found[name] = Entry(name, kind, about, _changed(path), steps, task), path
    return found


def named(place: str, plain: str, names: dict[str, str], taken: Iterable[str] = ()) -> str:
    """The name by which requests find a place, the same one always; no two places share one.

    Args:
        place: a path, or a name on the hub.
        plain: what it would be called.
        names: place -> name, of all that were named; it is added.
        taken: other names.
    """
    if place not in names:
        used, number, name = {*names.values(), *taken}, 2, plain
        while name in used:
            name, number = f"{plain}-{number}", number + 1
        names[place] = name
    return names[place]


def shown(name: str) -> str:
    """A file's name as it may be shown: without what is no letter, such as what turns lines around."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _found(root: Path) -> Iterator[tuple[Kind, Path]]:
    """What lies near first."""
    folders, left = deque([(root, DEPTH)]), LOOKED
    while folders and left > 0:
        folder, depth = folders.popleft()
        try:
            with os.scandir(folder) as seen:
                inside = sorted(islice(seen, left), key=lambda one: one.name)
        except OSError:
            continue
        left -= len(inside)
        for one in inside:
            with suppress(OSError):  # what goes while it is looked at
                if one.name.startswith(".") or one.is_symlink():
                    continue
                path = Path(one.path)
                if one.is_file() and one.name.endswith(".gguf"):
                    yield "file", path
                elif one.is_dir() and one.name not in SKIPPED:
                    kind = _kind(path)
                    if kind is not None:
                        yield kind, path
                    elif depth > 1:
                        folders.append((path, depth - 1))


def _kind(folder: Path) -> Kind | None:
    if (folder / CHECKPOINTS).is_dir() and checkpoints(folder):
        return "run"
    config = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return "model" if config or (folder / MODEL_JSON).is_file() else None
