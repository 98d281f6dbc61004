"""The first token from a cold start: processes from their start to their end, the files in the system's cache.

`cutaway generate FILE --prompt … --max-new-tokens 1`, against `python -c "import torch"` in the same environment, and
against a script that does the same with transformers in its own.
"""

import sys
from pathlib import Path
from statistics import median
from typing import Any

import _bench
import _generate_peers as peers

PROMPT = "The capital of France is"


def start(quick: bool, runs: int) -> dict[str, Any]:
    file, tool = peers.smollm2(), Path(sys.executable).with_name("cutaway")
    script = _bench.BENCH / "peers" / "transformers_generate.py"
    peer = [_bench.peer_python("transformers_gguf"), script, "first", file, peers.THREADS, PROMPT]
    ours = [tool, "generate", file, "--prompt", PROMPT, "--max-new-tokens", 1, "--temperature", 0]
    torch = [sys.executable, "-c", "import torch"]
    for command in (ours, torch):
        peers.wall(*command)  # into the system's cache
    seconds: dict[str, list[float]] = {"cutaway": [], "torch": [], "transformers": []}
    for _ in range(runs):
        for name, command in (("cutaway", ours), ("torch", torch), ("transformers", peer)):
            seconds[name].append(peers.wall(*command))

    def against(name: str, goal: str, words: str) -> dict[str, Any]:
        return _bench.figure(
            [our / their for our, their in zip(seconds["cutaway"], seconds[name], strict=True)],
            goal,
            cutaway=f"{median(seconds['cutaway']):.2f} s",
            peer=f"{median(seconds[name]):.2f} s",
            peer_name=words,
        )

    return {
        "cold_start_vs_torch_import": against("torch", "<= 1.5", 'python -c "import torch"'),
        "cold_start_vs_transformers": against("transformers", "<= 0.5", "transformers, its first token"),
    }
