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
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cutaway.errors import InputError
from cutaway.files import disk_errors, holds, write_json
from cutaway.tokenizers.writer import STORE_JSON
from cutaway.training.checkpoint import CONFIG
from cutaway.training.launched import NO_ROOM, ORDER, TEXTS, TOLD, write_told
from cutaway.training.order import Order
from cutaway.training.watching import Training, changed, of_run, told_by

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,47}")
ALIVE = 15.0  # seconds without a sign after which another owner's training counts as ended
GRACE = 60.0  # seconds in which a training saves when it is told to stop
CALMER = 1 / 3  # of the learning rate, after numbers that were none
START = "import sys; from cutaway.training.launched import main; sys.exit(main())"


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
        return [path.name for path in sorted(found, key=changed, reverse=True) if not path.is_symlink()]

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
            told = told_by(place)
            state = told.pop("state")
            if state == "running":
                lives = code is None if process is not None else time.time() - changed(place) < ALIVE
                if not lives:
                    state = "interrupted"
                    told |= {"message": _last_words(code), "code": "killed"}
                elif name in self._stopping:
                    state = "stopping"
        return Training(name, state, **told, changed=changed(place), **of_run(place))

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


def _rate(place: Path) -> float:
    from cutaway.training.checkpoint import read_config

    return read_config(place)[0].rules.lr


def _last_words(code: int | None) -> str:
    if code == NO_ROOM:
        return "the disk is full, so that it could not even tell how it ended; free some space, then go on with it"
    said = "" if code is None else f" (exit code {code})"
    lost = "nothing is lost but the steps after the last checkpoint: go on with it"
    return f"its process ended without a word{said}; {lost}"
