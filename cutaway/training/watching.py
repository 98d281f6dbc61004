"""A run as its files tell it: how it stands, what it has recorded; and the corpora that one can be trained on.

The files may be half written, damaged, or somebody else's: what is not as it must be is left out.
"""

from __future__ import annotations

import json
import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from cutaway.errors import CutawayError
from cutaway.files import holds, read_json
from cutaway.models.model import steps_of
from cutaway.tokenizers.writer import STORE_JSON
from cutaway.training.checkpoint import CONFIG, RESULT
from cutaway.training.launched import TOLD
from cutaway.training.metrics import METRICS

DEPTH = 4  # folders below in which corpora are found
LOOKED = 20_000  # files and folders that are looked at for them
LONGEST = 64 << 20  # bytes of metrics that are told at a time, the last ones
STATES = ("running", "stopped", "finished", "failed")
TELLS: dict[str, type | tuple[type, ...]] = {
    "stage": str,
    "done": (int, float),
    "total": (int, float),
    "unit": str,
    "message": str,
    "code": str,
}


@dataclass(frozen=True)
class Training:
    """How a training stands.

    Attributes:
        name: of its folder.
        state: "running", "stopping", "stopped", "finished", "failed", or "interrupted" where its process was killed.
        stage: what it does, such as "training".
        done: how much of that.
        total: of how much, where that is known.
        unit: of both.
        figures: name -> value, for people: loss, time left …
        message: how it ended, in words.
        code: the same for programs: "non_finite", "disk", "input", "memory", "killed" …
        changed: when that was, in seconds since 1970.
        planned: steps of the run; 0 before it is planned.
        steps: those of which there is a checkpoint.
        own: whether it was started here, and can be stopped and resumed.
        settings: of the network and its training, name -> value.
        notes: choices that were made, with their reasons.
        baseline: loss of the n-gram model, where that is known.
    """

    name: str
    state: str
    stage: str = ""
    done: float = 0
    total: float | None = None
    unit: str = ""
    figures: dict[str, str] = field(default_factory=dict)
    message: str = ""
    code: str = ""
    changed: float = 0.0
    planned: int = 0
    steps: list[int] = field(default_factory=list)
    own: bool = True
    settings: dict[str, str | int | float | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    baseline: float | None = None

    @property
    def running(self) -> bool:
        """Whether it still does something."""
        return self.state in ("running", "stopping")


def told_by(folder: Path) -> dict[str, Any]:
    """What the process of a training tells of itself, by the names of `Training`'s attributes; its state at least."""
    found = _read(folder / TOLD)
    told = {name: found[name] for name, kind in TELLS.items() if isinstance(found.get(name), kind)}
    figures = {str(name): str(value) for name, value in _table(found.get("figures")).items()}
    return {"state": found["state"] if found.get("state") in STATES else "interrupted", **told, "figures": figures}


def run_state(folder: str | Path, name: str) -> Training:
    """How a run stands that the command line made.

    Args:
        folder: the run's.
        name: what to call it.
    """
    folder = Path(folder)
    ended = holds(folder, RESULT)
    return Training(name, "finished" if ended else "elsewhere", changed=changed(folder), own=False, **of_run(folder))


def corpora(folder: str | Path) -> dict[str, Path]:
    """Corpora below a folder, by the way to each, the newest first; links are not followed."""
    found: dict[str, tuple[float, Path]] = {}
    folders, left = deque([(Path(folder), DEPTH)]), LOOKED
    while folders and left > 0:
        place, depth = folders.popleft()
        with suppress(OSError):  # what goes while it is looked at, or may not be read
            if (place / STORE_JSON).is_file():
                found[place.relative_to(folder).as_posix()] = place.stat().st_mtime, place
                continue
            with os.scandir(place) as inside:
                for one in islice(inside, left):
                    left -= 1
                    plain = one.name[0] != "." and one.name != "node_modules" and one.name.isprintable()
                    if depth and plain and one.is_dir(follow_symlinks=False):
                        folders.append((Path(one.path), depth - 1))
    return {name: place for name, (_, place) in sorted(found.items(), key=lambda one: -one[1][0])}


class Tail:
    """What is new in a run's metrics since the last look.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / METRICS
        self._place, self._file = 0, 0

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """(whether what was told before is to be forgotten, records): a resumed run takes back what it makes again."""
        try:
            facts = self.path.stat()
            again = facts.st_ino != self._file or facts.st_size < self._place
            start = 0 if again else self._place
            with self.path.open("rb") as file:
                if facts.st_size - start > LONGEST:
                    start = facts.st_size - LONGEST
                    file.seek(start)
                    start += len(file.readline())
                file.seek(start)
                data = file.read(2 * LONGEST)
        except FileNotFoundError:
            again, self._place, self._file = self._file != 0, 0, 0
            return again, []
        whole = data[: data.rfind(b"\n") + 1]
        self._place, self._file = start + len(whole), facts.st_ino
        records = []
        for line in whole.splitlines():
            with suppress(ValueError):
                records.append(json.loads(line))
        return again, [one for one in records if isinstance(one, dict) and isinstance(one.get("step"), int)]


def of_run(place: Path) -> dict[str, Any]:
    """What a run's own files say."""
    record, counted = _read(place / CONFIG), _read(place / "baseline.json")
    config = _table(record.get("config"))
    network = _table(config.get("network"))
    names = ("optimizer", "lr", "context", "batch", "seed", "schedule", "dtype")
    settings = {name: config.get(name) for name in names if name in config}
    shape = ("kind", "layers", "width", "heads", "hidden", "vocab_size")
    settings = {name: network[name] for name in shape if name in network} | settings
    plain = {k: v for k, v in settings.items() if v is None or isinstance(v, str | int | float)}
    notes, planned, loss = record.get("notes"), config.get("steps"), counted.get("loss")
    return {
        "steps": steps_of(place),
        "planned": planned if isinstance(planned, int) else 0,
        "settings": plain,
        "notes": [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else [],
        "baseline": loss if isinstance(loss, int | float) else None,
    }


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path) if path.is_file() else {}
    except (CutawayError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def changed(place: Path) -> float:
    """When something last happened in a run, in seconds since 1970."""
    for path in (place / TOLD, place / METRICS, place):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0
