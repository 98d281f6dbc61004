"""What this machine can do, and which choices follow from it."""

import os
import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cutaway import __version__

# extra -> the modules that show it is installed
EXTRAS = {
    "documents": ("ftfy", "jieba", "pyarrow", "pypdf", "rensa", "snowballstemmer", "trafilatura", "zstandard"),
    "pictures": ("matplotlib",),
    "tensorboard": ("tensorboard",),
}
VECTORS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "asimd")


@dataclass(frozen=True)
class Choice:
    """What Cutaway chooses by itself, and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Diagnosis:
    """A machine as Cutaway sees it.

    Attributes:
        versions: of Cutaway, Python and the libraries it stands on.
        cores: that this process may use.
        memory_gb: in all; None where it cannot be told.
        disk_free_gb: in the current folder.
        vectors: instruction sets of the processor that matter here.
        rates: measured: bfloat16 and float32 matrix products in GFLOP/s, reading memory in GB/s.
        choices: what follows.
        missing: extra -> the command that installs it.
    """

    versions: dict[str, str]
    cores: int
    memory_gb: float | None
    disk_free_gb: float
    vectors: list[str]
    rates: dict[str, float]
    choices: list[Choice]
    missing: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def diagnose() -> Diagnosis:
    """Look at the machine and measure it; takes about two seconds."""
    import torch

    vectors = _vectors()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rates = {
        "bf16_gflops": _matmul_rate(torch.bfloat16),
        "fp32_gflops": _matmul_rate(torch.float32),
        "read_gb_per_s": _read_rate(),
    }
    faster = rates["bf16_gflops"] / rates["fp32_gflops"]
    dtype = Choice(
        "training dtype",
        "bf16" if faster > 1.2 else "fp32",
        f"bfloat16 matrix products run {faster:.1f} x as fast as float32 here",
    )
    if torch.cuda.is_available():
        device = Choice("device", "cuda", f"torch sees {torch.cuda.get_device_name()}")
    else:
        device = Choice("device", "cpu", "torch sees no GPU")
    threads = Choice("threads", str(torch.get_num_threads()), f"torch's own choice for {cores} usable cores")
    missing = {
        extra: f"pip install 'cutaway[{extra}]'"
        for extra, modules in EXTRAS.items()
        if any(find_spec(module) is None for module in modules)
    }
    return Diagnosis(
        versions={"cutaway": __version__, "python": platform.python_version()} | _versions(),
        cores=cores,
        memory_gb=_memory_gb(),
        disk_free_gb=round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        vectors=vectors,
        rates=rates,
        choices=[device, dtype, threads],
        missing=missing,
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in ("torch", "numpy", "tokenizers", "tokie", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _vectors() -> list[str]:
    """The processor's instruction sets, from the flags that Linux gives; torch's own word elsewhere."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        import torch

        return [torch.backends.cpu.get_cpu_capability()]
    return [name for name in VECTORS if name in flags]


def _memory_gb() -> float | None:
    if sys.platform == "win32":
        return None
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, ValueError):
        return None


def _matmul_rate(dtype: Any, size: int = 1024) -> float:
    """The best of several square products, in GFLOP/s."""
    import torch

    a, b = torch.ones(2, size, size, dtype=dtype)
    return round(2 * size**3 / _best(lambda: a @ b) / 1e9, 1)


def _read_rate(megabytes: int = 256) -> float:
    """The best of several sums over an array larger than any cache, in GB/s."""
    import torch

    data = torch.ones(megabytes * 2**18)
    return round(data.numel() * 4 / _best(data.sum, seconds=0.5) / 1e9, 1)


def _best(work: Any, seconds: float = 0.3) -> float:
    work()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
