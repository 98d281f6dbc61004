"""Opens damaged files one after the other, in a process with a limit on memory and an ear on every file it opens.

    python fuzz_worker.py SPECIMENS ROOM TARGET:START:STOP:STEP …

A line of JSON is printed for each input. What kills the process (a signal, an abort) is for `fuzz` to see, which starts
it again behind the input; the last line says which that was.
"""

import faulthandler
import json
import os
import re
import resource
import shutil
import signal
import sys
import sysconfig
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

SLACK = 64 * 2**20  # bytes that opening may take beside the file's fourfold: libraries, tables, the objects of a JSON
FACTOR = 4
GUARD = 10.0  # seconds after which an input is given up
PARTS = re.compile(r"^(VmSize|VmRSS|VmHWM):\s+(\d+)", re.MULTILINE)
REFUSED_EVENTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
)
CHANGING = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "shutil.rmtree",
)


def memory() -> dict[str, int]:
    """What the system says about this process, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return {name: int(value) * 1024 for name, value in PARTS.findall(file.read())}


class Ear:
    """Notes what is opened, written or started outside of what an input may touch."""

    def __init__(self, allowed: list[str], room: str) -> None:
        self.allowed, self.room = tuple(allowed), room
        self.on, self.writes, self.heard = False, False, list[str]()
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by the interpreter."""
        if not self.on:
            return
        if event in REFUSED_EVENTS:
            self.heard.append(f"{event} {arguments!r}"[:300])
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            self._opened(os.fsdecode(arguments[0]), arguments[1], arguments[2])
        elif event in CHANGING and isinstance(arguments[0], str | os.PathLike):
            if arguments[-1] not in (-1, None):
                return  # a name within an open folder, of which `shutil.rmtree` has said which it is
            self._opened(os.fsdecode(arguments[0]), "w", 0)

    def _opened(self, name: str, mode: Any, flags: Any) -> None:
        real = os.path.realpath(name) if "\0" not in name else name
        writing = any(letter in str(mode or "") for letter in "wax+") or (
            isinstance(flags, int) and mode is None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        inside = real == self.room or real.startswith(self.room + os.sep)
        temporary = real.startswith(os.path.realpath("/tmp") + os.sep + "tmp")  # what tokie reads its file from
        if writing and not (inside and self.writes) and not temporary:
            self.heard.append(f"written: {name!r}"[:300])
        elif not inside and not temporary and not real.startswith(self.allowed):
            self.heard.append(f"opened: {name!r} ({real[:100]!r})"[:300])


def main(specimens: str, room: str, jobs: list[str]) -> None:
    """Carry out the inputs START, START + STEP … below STOP of each target."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    here = Path(__file__).resolve().parents[2]
    libraries = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()}
    allowed = [
        str(here / "cutaway"),
        str(here / "tests"),
        "/proc/",
        "/sys/",
        "/dev/null",
        "/dev/urandom",
        str(Path(specimens) / "store"),
    ]
    ear = Ear([*allowed, *(os.path.realpath(path) + os.sep for path in libraries)], os.path.realpath(room))
    faulthandler.register(signal.SIGALRM, chain=True)  # says where it hangs, then the default: the process ends
    for job in jobs:
        name, *numbers = job.split(":")
        work_on(name, range(*map(int, numbers)), Path(specimens), Path(room), ear)


def work_on(name: str, numbers: range, specimens: Path, work: Path, ear: Ear) -> None:
    """Carry out inputs of one target."""
    from targets import TARGETS, seed

    from cutaway.errors import CutawayError

    target, file, peak = TARGETS[name], work / "m", Path("/proc/self/clear_refs")
    found = sorted(path for kind in target.specimens for path in (specimens / kind).iterdir())
    for whole in found[:: max(1, len(found) // 8)]:  # what was never damaged opens; libraries are loaded by the way
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(whole, file)
        target.use(file)
    for number in numbers:
        rng = seed(name, number)
        shutil.rmtree(work)
        shutil.copytree(rng.choice(found), file)
        target.damage(rng, file)
        size = sum(path.stat().st_size for path in file.rglob("*") if path.is_file() and not path.is_symlink())
        print(json.dumps({"target": name, "number": number}), flush=True)
        ear.heard, ear.writes = [], target.writes
        peak.write_text("5")
        before = memory()
        # the file itself is mapped; what is beyond that and the allowance fails to be allocated
        limit = before["VmSize"] + (FACTOR + 1) * size + SLACK
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        signal.setitimer(signal.ITIMER_REAL, GUARD)
        begun, fault, ended = time.process_time(), "", "model"
        ear.on = True
        try:
            target.use(file)
            if target.refused:
                fault = "it opened"
        except CutawayError as error:
            ended = type(error).__name__
            fault = unclear(str(error))
        except BaseException as error:
            ended, fault = "failure", f"{type(error).__name__}: {str(error)[:300]}\n{traceback.format_exc()[-1500:]}"
        ear.on = False
        seconds = time.process_time() - begun
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        grown = memory()["VmHWM"] - before["VmRSS"]
        fault = fault or "; ".join(ear.heard)
        line = {"ended": ended, "seconds": round(seconds, 4), "grown": grown, "fault": fault}
        print(json.dumps({"target": name, "number": number, **line}), flush=True)


def unclear(message: str) -> str:
    """What is wrong with an error's sentence, or nothing."""
    if len(message) > 4000:
        return f"a message of {len(message):,} characters: {message[:200]!r}"
    if odd := [letter for letter in message if not letter.isprintable() and letter != "\n"]:
        return f"a message with {odd[0]!r} in it: {message[:300]!r}"
    return "" if message.strip() else "an empty message"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
