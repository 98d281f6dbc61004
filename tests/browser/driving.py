"""Starting a studio, and what is seen of a browser. Not a test file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode


@dataclass
class Studio:
    """A running studio.

    Attributes:
        url: of its pages, without a slash at the end.
        folder: where its models lie: one of each kind in `toys.CONFIGS`, and "run", with steps 10 and 20.
        process: what answers.
    """

    url: str
    folder: Path
    process: subprocess.Popen[str]

    def page(self, page: str, model: str, text: str = "the cat sat", **more: str) -> str:
        """The address of a page about a text before a model."""
        return f"{self.url}/?{urlencode({'page': page, 'model': model, 'text': text, 'lang': 'en', **more})}"


@dataclass
class Watched:
    """What a browser did: addresses it asked, errors of its console and of the server's answers."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def start_studio(folder: Path, *arguments: str) -> Studio:
    """Start one and wait until it is ready."""
    command = [sys.executable, "-c", "from cutaway.cli import main; main()", "studio", "--folder", str(folder)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--no-browser", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    patience = threading.Timer(600, process.kill)
    patience.start()
    line = process.stdout.readline()
    patience.cancel()
    assert line, f"the studio did not start: exit code {process.wait()}"
    return Studio(json.loads(line)["studio"].rstrip("/"), folder, process)


def stop_studio(studio: Studio) -> None:
    """Stop it as Ctrl-C does."""
    assert studio.process.stdout is not None
    studio.process.stdout.close()
    studio.process.send_signal(signal.SIGINT)
    try:
        studio.process.wait(20)
    except subprocess.TimeoutExpired:
        studio.process.kill()
        raise
    finally:
        if studio.process.stdout is not None:
            studio.process.stdout.close()
