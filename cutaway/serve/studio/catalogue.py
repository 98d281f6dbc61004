"""What lies in a folder that can be opened: runs with their steps, models, GGUF files. Requests choose among them.

A request names an entry, never a path: what can be opened is what this found, and what the command line gave.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cutaway.models.model import CHECKPOINTS, MODEL_JSON, checkpoints

DEPTH = 4  # folders below the given one that are looked into
MOST = 200  # entries that are listed
SKIPPED = {"node_modules", "__pycache__", "site-packages", "build", "dist", CHECKPOINTS}
Kind = Literal["run", "model", "file", "hub", "given"]
STEP = re.compile(r"step-(\d+)")


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


def steps_of(folder: Path) -> list[int]:
    """The steps of which a run holds a checkpoint."""
    found = (STEP.fullmatch(path.name) for path in checkpoints(folder))
    return sorted(int(match[1]) for match in found if match)


def step_folder(folder: Path, step: int) -> Path | None:
    """Where the checkpoint of a step lies; None: there is none."""
    for path in checkpoints(folder):
        if (match := STEP.fullmatch(path.name)) and int(match[1]) == step:
            return path
    return None


def given_entry(name: str, path: Path) -> Entry:
    """What was given on the command line."""
    steps = steps_of(path) if (path / CHECKPOINTS).is_dir() else []
    return Entry(name, "given", path.name or name, _changed(path), steps, (path / "task.json").is_file())


def catalogue(folder: Path, taken: Mapping[str, str]) -> dict[str, tuple[Entry, Path]]:
    """What lies below a folder, by name, newest first.

    Args:
        folder: looked into, a few levels deep; links are not followed.
        taken: names that mean something else.
    """
    found: dict[str, tuple[Entry, Path]] = {}
    known = {Path(source).resolve() for source in taken.values() if Path(source).exists()}
    entries: list[tuple[Kind, Path]] = [one for one in _found(folder, DEPTH) if one[1].resolve() not in known]
    for kind, path in sorted(entries, key=lambda one: -_changed(one[1]))[:MOST]:
        about = path.relative_to(folder).as_posix()
        name = _free(re.sub(r"[^A-Za-z0-9._-]+", ".", about).strip(".")[-56:] or "here", {*taken, *found})
        steps = steps_of(path) if kind == "run" else []
        task = path.is_dir() and (path / "task.json").is_file()
        found[name] = Entry(name, kind, about, _changed(path), steps, task), path
    return found


def _free(name: str, taken: set[str]) -> str:
    made, number = name, 2
    while made in taken:
        made, number = f"{name}-{number}", number + 1
    return made


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _found(folder: Path, depth: int) -> Iterator[tuple[Kind, Path]]:
    try:
        inside = sorted(os.scandir(folder), key=lambda one: one.name)
    except OSError:
        return
    for one in inside:
        if one.name.startswith(".") or one.is_symlink():
            continue
        path = Path(one.path)
        if one.is_file() and one.name.endswith(".gguf"):
            yield "file", path
        elif one.is_dir() and one.name not in SKIPPED:
            if (path / CHECKPOINTS).is_dir() and checkpoints(path):
                yield "run", path
            elif (path / MODEL_JSON).is_file() or (
                (path / "config.json").is_file() and any(path.glob("*.safetensors"))
            ):
                yield "model", path
            elif depth > 1:
                yield from _found(path, depth - 1)
