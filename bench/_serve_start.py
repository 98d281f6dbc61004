"""From the start of the process to the first answer, and what a server takes while nobody asks.

- `ready_vs_torch_import`: from starting `cutaway serve FILE` to the whole answer to a first completion of one token,
  over `python -c "import torch"` in the same environment; the two take turns, their files in the system's cache.
- `idle_cpu_pct`: seconds of the processor per second, of a server that has answered, while nobody asks it.
- `idle_memory_over_stated`: what that server holds then, over the most that it said at its start it would hold. It is
  started with a budget of 1 GB, so that this says something.
"""

import json
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException
from statistics import median
from typing import Any

import _bench
import _serve_peers as peers
from _generate_peers import plain, wall

ASKED = {"model": peers.MODEL, "prompt": "The capital of France is", "max_tokens": 1, "temperature": 0}
CROWD = 32  # requests before it is left alone


def ready(quick: bool, runs: int) -> dict[str, Any]:
    torch = [sys.executable, "-c", "import torch"]
    _first_answer()
    wall(*torch)
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(_first_answer())
        theirs.append(wall(*torch))
    return {
        "ready_vs_torch_import": _bench.figure(
            [our / their for our, their in zip(ours, theirs, strict=True)],
            "<= 2",
            cutaway=f"{median(ours):.2f} s",
            peer=f"{median(theirs):.2f} s",
            peer_name='python -c "import torch"',
        )
    }


def _first_answer() -> float:
    """Seconds from starting a server to its first answer, with a client that asks again until there is one."""
    port, start = peers.free_port(), time.perf_counter()
    process = subprocess.Popen(
        peers.cutaway_command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=plain()
    )
    try:
        while not _answers(port):
            assert process.poll() is None, "the server ended"
            time.sleep(0.01)
        return time.perf_counter() - start
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/completions", json.dumps(ASKED), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status == 200 and bool(json.load(answer)["choices"])
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def idle(quick: bool, runs: int) -> dict[str, Any]:
    port, watched = peers.free_port(), 5 if quick else 20
    shares, sizes = [], []
    with peers.Client() as client, peers.running(peers.cutaway_command(port, "--memory", "1GB"), port) as served:
        stated = served.statement["memory_bytes"]["most"]
        for _ in range(runs):
            client.ask(port, [("/v1/completions", {**ASKED, "max_tokens": 32, "seed": seed}) for seed in range(CROWD)])
            time.sleep(1)
            before, start = served.seconds, time.perf_counter()
            time.sleep(watched)
            shares.append(100 * (served.seconds - before) / (time.perf_counter() - start))
            sizes.append(served.memory)
    return {
        "idle_cpu_pct": _bench.figure(shares, "< 1", cutaway=f"{median(shares):.2f} % of a core, {watched} s"),
        "idle_memory_over_stated": _bench.figure(
            [size / stated for size in sizes],
            "<= 1",
            cutaway=f"{median(sizes) / 1e6:.0f} MB of {stated / 1e6:.0f} MB",
        ),
    }
