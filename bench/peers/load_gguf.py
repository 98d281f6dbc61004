"""Open a GGUF file, model and tokenizer, in float32; print seconds and memory as JSON. Run by `bench/load.py`.

    python load_gguf.py cutaway|transformers FILE

The clock starts after the library has been imported. Memory is what the process holds above what it held then, at its
peak and at the end, everything counted: numbers, tokenizer, pages of the mapped file, code that loading brings in.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def held(what: str) -> int:
    """Bytes: VmRSS now, or VmHWM at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def cutaway() -> Callable[[Path], Any]:
    from cutaway.models import load_model

    return load_model


def transformers() -> Callable[[Path], Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def load(path: Path) -> Any:
        options: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
        return AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options), tokenizer

    return load


def main() -> None:
    load, path = {"cutaway": cutaway, "transformers": transformers}[sys.argv[1]](), Path(sys.argv[2])
    path.read_bytes()  # the file is in the system's cache for both
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, started = held("VmRSS"), time.perf_counter()
    loaded = load(path)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak": held("VmHWM") - before, "after": held("VmRSS") - before}))
    del loaded


main()
