"""Trainings that a studio starts: each a process of its own, one at a time, in a folder by its name.

    trainings/
      NAME/                 a run folder as every other, and in it
        order.json            what was asked for
        texts/                what it reads, where no corpus was given
        corpus/               what was prepared of that
        training.json         how far it is, and how it ended
        training.log          what it said

Whoever started them may go away: a training ends with its owner, after saving, and goes on when it is told to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cutaway.errors import CutawayError, InputError
from cutaway.files import disk_errors, holds, read_json, write_json
from cutaway.models.model import checkpoints
from cutaway.tokenizers.writer import STORE_JSON
from cutaway.training.checkpoint import CONFIG, RESULT
from cutaway.training.launched import NO_ROOM, ORDER, TEXTS, TOLD, write_told
from cutaway.training.metrics import METRICS
from cutaway.training.order import Order

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,47}")
ALIVE = 15.0  # seconds without a sign after which another owner's training counts as ended
GRACE = 60.0  # seconds in which a training saves when it is told to stop
CALMER = 1 / 3  # of the learning rate, after numbers that were none
START = "import sys; from cutaway.training.launched import main; sys.exit(main())"
DEPTH = 4  # folders below in which corpora are found


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


class Trainings:
    """The trainings of a folder.

    Args:
        folder: in which there is, or will be, one for each.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping: set[str] = set()
        self._lock = threading.RLock()

    def place(self, name: str) -> Path:
        """The folder of a training.

        Raises:
            InputError: no such name.
        """
        place = self._checked(name)
        if not (place / ORDER).is_file():
            raise InputError(f"there is no training called {name!r:.60}")
        return place

    def _checked(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise InputError(
                f"{name!r:.60} cannot name a training: letters, digits, '.', '_' and '-', at most 48, and no dot first"
            )
        place = self.folder / name
        if place.is_symlink() or self.folder.is_symlink():
            raise InputError(f"the folder of {name} is a link, which is not followed; choose another name")
        return place

    def names(self) -> list[str]:
        """Of all, the newest first."""
        found = [path.parent for path in self.folder.glob(f"*/{ORDER}") if NAME.fullmatch(path.parent.name)]
        return [path.name for path in sorted(found, key=_changed, reverse=True) if not path.is_symlink()]

    def all(self) -> list[Training]:
        """How all stand, the newest first."""
        return [self.state(name) for name in self.names()]

    def state(self, name: str) -> Training:
        """How one stands.

        Raises:
            InputError: there is none of this name.
        """
        place = self.place(name)
        with self._lock:
            process = self._processes.get(name)
            code = None if process is None else process.poll()  # before its file is read: its last word is in it
            if process is not None and process.stdin is not None and code is not None:
                process.stdin.close()
            told = _read(place / TOLD)
            state = told.pop("state", "interrupted")
            if state == "running":
                lives = code is None if process is not None else time.time() - _changed(place) < ALIVE
                if not lives:
                    state = "interrupted"
                    told |= {"message": _last_words(code), "code": "killed"}
                elif name in self._stopping:
                    state = "stopping"
        shown = {
            key: told[key] for key in ("stage", "done", "total", "unit", "figures", "message", "code") if key in told
        }
        return Training(name, state, **shown, changed=_changed(place), **_of_run(place))

    def running(self) -> Training | None:
        """The one that runs, whoever started it."""
        return next((one for one in self.all() if one.running), None)

    def start(
        self, name: str, order: Order, *, texts: Mapping[str, str] | None = None, corpus: Path | None = None
    ) -> None:
        """Begin a training.

        Args:
            name: for its folder.
            order: what to train.
            texts: file name -> text; or
            corpus: a folder that `prepare` made.

        Raises:
            InputError: a name that is taken or none, empty texts, another training that runs, or the disk is full.
        """
        with self._lock:
            place = self._free(name)
            if (texts is None) == (corpus is None):
                raise InputError("give texts or a corpus, one of them")
            if texts is not None and not any(text.strip() for text in texts.values()):
                raise InputError("the text is empty; choose a file with some words in it")
            if corpus is not None and not (corpus / STORE_JSON).is_file():
                raise InputError(f"{corpus.name} is no corpus that cutaway prepare made")
            with disk_errors(place):
                if place.exists():
                    shutil.rmtree(place)
                (place / TEXTS).mkdir(parents=True)
                for number, text in enumerate((texts or {}).values(), 1):
                    (place / TEXTS / f"{number:03}.txt").write_text(text, "utf-8")
            given = None if corpus is None else str(corpus.resolve())
            write_json(place / ORDER, {**asdict(order), "corpus": given})
            self._launch(name, place, {})

    def resume(
        self, name: str, *, minutes: float | None = None, steps: int | None = None, calmer: bool = False
    ) -> None:
        """Go on with a training that was stopped or killed, or has failed or ended; bit for bit unless told otherwise.

        Args:
            name: its.
            minutes: so much longer than planned, of one that has ended; or
            steps: so many in all.
            calmer: with a third of the learning rate, after a loss that was no number.

        Raises:
            InputError: there is none of this name, it ended and nothing more is asked for, or another one runs.
        """
        with self._lock:
            place, state = self.place(name), self.state(name)
            self._only()
            changes: dict[str, Any] = {k: v for k, v in {"minutes": minutes, "steps": steps}.items() if v is not None}
            if len(changes) == 2:
                raise InputError("give minutes or steps, one of them")
            if state.state == "finished" and not changes:
                raise InputError(
                    f"{name} has taken all its {state.planned:,} steps; say how much longer it shall go on"
                )
            if calmer and holds(place, CONFIG):
                changes["lr"] = _rate(place) * CALMER
            self._launch(name, place, changes if holds(place, CONFIG) else {})

    def stop(self, name: str) -> None:
        """Ask a training to end after its current step and to save; `state` tells when it has.

        Raises:
            InputError: it does not run, or was started by another program.
        """
        with self._lock:
            process = self._processes.get(name)
            if not self.state(name).running:
                raise InputError(f"{name} does not run")
            if process is None or process.stdin is None:
                raise InputError(f"{name} was started by another program; stop it there")
            self._stopping.add(name)
            with suppress(OSError):
                process.stdin.close()

    def close(self) -> None:
        """Stop what runs, and wait until it has saved; what has not after a minute is killed. Checkpoints are whole."""
        for process in self._processes.values():
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
        for process in self._processes.values():
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _only(self) -> None:
        if (other := self.running()) is not None:
            raise InputError(f"{other.name} is being trained, and one runs at a time; stop it or wait for its end")

    def _free(self, name: str) -> Path:
        """The folder of a new training; what never came to its first step makes room for it."""
        place = self._checked(name)
        self._only()
        if (place / CONFIG).exists() or (place.exists() and not (place / ORDER).is_file()):
            raise InputError(f"there is something called {name} already; choose another name")
        return place

    def _launch(self, name: str, place: Path, changes: dict[str, Any]) -> None:
        write_told(place / TOLD, {"state": "running", "stage": "starting", "began": time.time()})
        command = [sys.executable, "-P", "-c", START, str(place.resolve()), json.dumps(changes)]
        if (old := self._processes.pop(name, None)) is not None and old.stdin is not None:
            old.stdin.close()
            old.wait()
        self._stopping.discard(name)
        with (place / "training.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )


def run_state(folder: str | Path, name: str) -> Training:
    """How a run stands that the command line made.

    Args:
        folder: the run's.
        name: what to call it.
    """
    folder = Path(folder)
    ended = holds(folder, RESULT)
    return Training(name, "finished" if ended else "elsewhere", changed=_changed(folder), own=False, **_of_run(folder))


def corpora(folder: str | Path) -> dict[str, Path]:
    """Corpora below a folder, by the way to each, the newest first; links are not followed."""
    found: dict[str, Path] = {}

    def look(place: Path, depth: int) -> None:
        if (place / STORE_JSON).is_file():
            found[place.relative_to(folder).as_posix()] = place
            return
        with suppress(OSError):
            for one in sorted(os.scandir(place), key=lambda one: one.name):
                if depth and one.is_dir(follow_symlinks=False) and one.name[0] != "." and one.name != "node_modules":
                    look(Path(one.path), depth - 1)

    look(Path(folder), DEPTH)
    return dict(sorted(found.items(), key=lambda one: -one[1].stat().st_mtime))


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
            with self.path.open("rb") as file:
                file.seek(0 if again else self._place)
                data = file.read()
        except FileNotFoundError:
            again, self._place, self._file = self._file != 0, 0, 0
            return again, []
        whole = data[: data.rfind(b"\n") + 1]
        self._place, self._file = (0 if again else self._place) + len(whole), facts.st_ino
        records = []
        for line in whole.splitlines():
            with suppress(ValueError):
                records.append(json.loads(line))
        return again, [one for one in records if isinstance(one, dict) and isinstance(one.get("step"), int)]


def _of_run(place: Path) -> dict[str, Any]:
    """What a run's own files say."""
    steps = sorted(int(path.name.removeprefix("step-")) for path in checkpoints(place))
    record, counted = _read(place / CONFIG), _read(place / "baseline.json")
    config = _table(record.get("config"))
    network = _table(config.get("network"))
    names = ("optimizer", "lr", "context", "batch", "seed", "schedule", "dtype")
    settings = {name: config.get(name) for name in names if name in config}
    shape = ("kind", "layers", "width", "heads", "hidden", "vocab_size")
    settings = {name: network[name] for name in shape if name in network} | settings
    plain = {k: v for k, v in settings.items() if v is None or isinstance(v, str | int | float)}
    notes = [note for note in record.get("notes", []) if isinstance(note, str)]
    loss = counted.get("loss")
    return {
        "steps": steps,
        "planned": config.get("steps") or 0,
        "settings": plain,
        "notes": notes,
        "baseline": loss if isinstance(loss, int | float) else None,
    }


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rate(place: Path) -> float:
    from cutaway.training.checkpoint import read_config

    return read_config(place)[0].rules.lr


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path) if path.is_file() else {}
    except (CutawayError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _changed(place: Path) -> float:
    for path in (place / TOLD, place / METRICS, place):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _last_words(code: int | None) -> str:
    if code == NO_ROOM:
        return "the disk is full, so that it could not even tell how it ended; free some space, then go on with it"
    said = "" if code is None else f" (exit code {code})"
    lost = "nothing is lost but the steps after the last checkpoint: go on with it"
    return f"its process ended without a word{said}; {lost}"
