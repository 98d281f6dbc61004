"""A training in a process of its own, which tells how far it is in a file and ends in order when its owner does.

The owner (`cutaway.training.trainings`) gives it a folder and what to change in the run, and holds the other end of
standard input. When that is closed, on purpose or because the owner was killed, the current step ends, a checkpoint is
saved, and so is the state: no training is left without an owner.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from cutaway.errors import CutawayError, DamagedFile, InputError, Interrupted, NonFinite
from cutaway.progress import Progress
from cutaway.settings import build
from cutaway.training.checkpoint import CONFIG
from cutaway.training.order import Order

ORDER, TOLD = "order.json", "training.json"
TEXTS, CORPUS = "texts", "corpus"
BEAT = 1.0  # seconds after which an owner sees that a training is alive
EVERY = 0.25  # seconds between two reports
NICE = 3  # pages are answered before a step is taken
NO_ROOM = 74  # exit code where the disk is too full to tell how it ended
ONE_WORKER = 32 << 20  # bytes of text that are prepared in one process


class Teller:
    """Writes down how far a training is.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.lock = folder / TOLD, threading.Lock()
        self.now: dict[str, Any] = {"state": "running", "stage": "starting", "began": time.time(), "pid": os.getpid()}
        self._next = 0.0

    def report(self, progress: Progress) -> None:
        """Tell how far it is, if that was not told just now."""
        if progress.stage == self.now["stage"] and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY
        with suppress(OSError):  # a full disk is told of by whoever writes what matters
            self.tell(**asdict(progress))

    def tell(self, **what: Any) -> None:
        """Tell something."""
        with self.lock:
            self.now |= what
            write_told(self.path, self.now)

    def beat(self) -> None:
        """Show that this process lives."""
        while True:
            time.sleep(BEAT)
            with self.lock, suppress(OSError):
                os.utime(self.path)


def write_told(path: Path, told: dict[str, Any]) -> None:
    """Write the state, whole or not at all; it may be lost with the machine's power, as what it tells is in the run."""
    beside = path.with_name(f"{TOLD}.new")
    beside.write_text(json.dumps(told, ensure_ascii=False, default=str), "utf-8")
    os.replace(beside, path)


def carry_out(folder: Path, changes: dict[str, Any], teller: Teller) -> None:
    """Prepare, train or resume.

    Raises:
        CutawayError: what is wrong with the text, the disk or the numbers.
    """
    from cutaway.tokenizers.pipeline import prepare
    from cutaway.training.loop import resume, train

    asked = json.loads((folder / ORDER).read_text("utf-8"))
    corpus = Path(asked.pop("corpus") or folder / CORPUS)
    order = build(Order, asked, where=ORDER)
    if (folder / CONFIG).is_file():
        resume(folder, progress=teller.report, **changes)
        return
    if corpus.parent == folder:
        texts = folder / TEXTS
        few = sum(one.stat().st_size for one in texts.iterdir()) < ONE_WORKER
        how: dict[str, Any] = {"vocab_size": order.vocab_size, "workers": 1 if few else None}
        prepare([str(texts)], corpus, **how, steps=None if order.clean else (), progress=teller.report)
    teller.report(Progress("planning", 0))
    train(order.config(corpus, folder), progress=teller.report)


def ended(error: BaseException | None) -> dict[str, Any]:
    """What is told at the end: the state, and what went wrong in words."""
    match error:
        case None:
            return {"state": "finished", "message": "", "code": ""}
        case Interrupted():
            return {"state": "stopped", "message": str(error), "code": "stopped"}
        case NonFinite():
            return {"state": "failed", "message": str(error), "code": "non_finite"}
        case InputError() | OSError():
            full = "disk" in str(error) or isinstance(error, OSError)
            return {"state": "failed", "message": str(error), "code": "disk" if full else "input"}
        case DamagedFile():
            return {"state": "failed", "message": str(error), "code": "damaged"}
        case CutawayError():
            return {"state": "failed", "message": str(error), "code": "input"}
        case MemoryError():
            message = "there was not enough memory; choose a smaller size or context"
            return {"state": "failed", "message": message, "code": "memory"}
    message = "something went wrong inside; the file training.log in its folder says what"
    return {"state": "failed", "message": message, "code": "internal"}


def main() -> int:
    """Carry out the order in a folder; the exit code is 0, unless there was no room to tell how it ended."""
    folder = Path(sys.argv[1])
    changes = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}

    def interrupted(number: int, frame: FrameType | None) -> None:
        raise Interrupted("stopped before its first step; start it again")

    def until_owner_leaves() -> None:
        while os.read(0, 1):
            pass
        _thread.interrupt_main(signal.SIGTERM)  # what the loop hears too

    signal.signal(signal.SIGTERM, interrupted)
    if hasattr(os, "nice"):
        os.nice(NICE)
    teller = Teller(folder)
    failure: BaseException | None = None
    try:
        for work in (teller.beat, until_owner_leaves):  # who may have left already
            threading.Thread(target=work, daemon=True).start()
        teller.tell()
        carry_out(folder, changes, teller)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except BaseException as error:
        failure = error
        if not isinstance(error, CutawayError):
            traceback.print_exc()
    try:
        told = ended(failure)
        told["message"] = told["message"].replace(f"{folder.parent}{os.sep}", "")  # who reads it knows the folder
        teller.tell(**told)
    except OSError:
        return NO_ROOM
    return 0
