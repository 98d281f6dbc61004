"""`cutaway serve` as a process of its own, for what happens to processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Process:
    """A server that runs.

    Attributes:
        said: its statement (`--json`).
        port: where it listens.
        pid: of the process.
    """

    def __init__(self, words: list[str], folder: Path, environment: dict[str, str], runner: str | None) -> None:
        self.log = folder / "log"
        program = ["-m", "cutaway"] if runner is None else [runner]
        command = [sys.executable, *program, "serve", *words, "--port", "0", "--json"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}
            )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        line = self._process.stdout.readline()  # nothing but the statement; empty where it could not start
        self.said: dict[str, Any] = json.loads(line) if line else {}
        self.port = int(self.said["address"].rpartition(":")[2]) if line else 0

    def ask(self, path: str, body: Any = None, timeout: float = 60) -> tuple[int, bytes, dict[str, str]]:
        """The status, body and headers of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, data, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Tell it to stop."""
        self._process.send_signal(number)

    def end(self, timeout: float = 30) -> int:
        """Wait for its end; its exit code."""
        return self._process.wait(timeout)

    def kill(self) -> None:
        """End it, however."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def errors(self) -> str:
        """What it wrote to standard error."""
        return self.log.read_text("utf-8")

    @property
    def children(self) -> list[int]:
        """Its child processes."""
        return [int(pid) for task in Path(f"/proc/{self.pid}/task").iterdir() for pid in _children(task)]

    def memory(self, kind: str = "VmRSS") -> int:
        """Bytes that it takes up now; VmHWM: at the most until now."""
        lines = Path(f"/proc/{self.pid}/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))

    def computed(self) -> float:
        """Seconds that it has computed."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text("utf-8").split()
    except OSError:
        return []


@contextmanager
def process(*words: str, folder: Path, runner: str | None = None, **environment: str) -> Iterator[Process]:
    """Serve until the block ends.

    Args:
        words: of the command line.
        folder: for the log.
        runner: a script instead of Cutaway's own.
        environment: variables.
    """
    made = Process(list(words), folder, environment, runner)
    try:
        yield made
    finally:
        made.kill()


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process has ended, or does so soon."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False
