"""The servers of `bench/serve.py`, each a process that starts with the block and is gone with it, and the client.

llama.cpp's own server is the `llama-server` that `bench/generate.py` builds, with the settings that are the fastest
there (`_generate_peers.py`), sixteen slots with a cache each (not unified), no copies of prompts kept in memory, no
page, no pages about its slots, no log. It writes as many tokens per second then as its engine alone
(`llama-batched-bench`).
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import _bench
from _generate_peers import FLASH, THREADS, llamacpp, plain, smollm2

CUTAWAY = Path(sys.executable).with_name("cutaway")
MODEL = "smollm2"


@dataclass
class Served:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    @property
    def statement(self) -> dict[str, Any]:
        """What Cutaway said at its start, or says in a moment: it answers already while it says it."""
        until = time.monotonic() + 10
        while True:
            self.output.seek(0)
            for line in self.output.read().splitlines(keepends=True):
                if line.startswith(b"{") and line.endswith(b"\n"):
                    return json.loads(line)
            assert time.monotonic() < until, "the server said nothing at its start"
            time.sleep(0.01)

    @property
    def seconds(self) -> float:
        """Of the processor that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> int:
        """Bytes that it holds."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


class Client:
    """`_serve_client.py` in its process; a context."""

    def __init__(self) -> None:
        command = [sys.executable, "-S", str(_bench.BENCH / "_serve_client.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=plain())

    def ask(self, port: int, requests: Sequence[tuple[str, Any]], *, together: bool = True) -> list[dict[str, Any]]:
        """Send requests; what came of each. A request that fails ends the benchmark."""
        pipe, answers = self._process.stdin, self._process.stdout
        assert pipe is not None
        assert answers is not None
        pipe.write(json.dumps({"port": port, "requests": requests, "together": together}).encode() + b"\n")
        pipe.flush()
        made = json.loads(answers.readline())
        for one in made:
            assert one["status"] == 200, one["last"]
        return made

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def cutaway_command(port: int, *options: object, model: str = "") -> list[str]:
    """Of `cutaway serve`, on two threads."""
    model = model or f"{MODEL}={smollm2()}"
    return [str(CUTAWAY), "serve", model, *map(str, ("--port", port, "--threads", THREADS, "--json", *options))]


def llamacpp_command(port: int, slots: int, context: int) -> list[str]:
    """Of `llama-server`; `context` is what each slot may hold."""
    command = [llamacpp("llama-server"), "--model", smollm2(), *FLASH, "--port", port, "--host", "127.0.0.1"]
    command += ["--parallel", slots, "--ctx-size", slots * context, "--no-kv-unified", "--cache-ram", 0]
    command += ["--no-webui", "--no-slots", "--log-disable"]
    return [*map(str, command)]


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[Served]:
    """A server while the block lasts, once it is ready to answer; what it prints is kept."""
    with TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=plain())
        try:
            page = "ready" if "serve" in command else "health"
            wait_for(f"http://127.0.0.1:{port}/{page}", process, said)
            yield Served(port, process, said)
        finally:
            process.terminate()
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    """Until a page answers with 200."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=60):
                return
        except OSError:  # 503 too
            time.sleep(0.01)
    said.seek(0)
    sys.exit(f"{process.args} ended: {said.read().decode()}")
