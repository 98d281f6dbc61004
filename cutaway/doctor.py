"""What this machine can do, and which choices follow from it."""

import os
import platform
import re
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from cutaway import __version__

# those of x86, then those of ARM, as Linux spells them
VECTORS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "sve", "i8mm", "bf16", "asimd")
OPTIONAL = re.compile(r"([\w.-]+).*extra == ['\"]([\w-]+)['\"]")


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
        extras: optional libraries, by extra: those that are missing.
    """

    versions: dict[str, str]
    cores: int
    memory_gb: float | None
    disk_free_gb: float
    vectors: list[str]
    rates: dict[str, float]
    choices: list[Choice]
    extras: dict[str, list[str]]

    @property
    def commands(self) -> dict[str, str]:
        """The command that installs each extra of which something is missing."""
        return {extra: f"pip install 'cutaway[{extra}]'" for extra, missing in self.extras.items() if missing}

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"commands": self.commands}


def diagnose() -> Diagnosis:
    """Look at the machine and measure it; takes about two seconds."""
    import torch  # late, as `cutaway doctor --help` should not wait for it

    from cutaway.generation.native.library import available, instruction_set
    from cutaway.models.products import ONEDNN, REASON
    from cutaway.training.config import TrainConfig
    from cutaway.training.plan import DTYPES, choose_dtype, matmul_rate

    native, why = available()  # first, as what was asked for may not exist
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rates = {f"{name}_gflops": round(matmul_rate(dtype) / 1e9, 1) for name, dtype in DTYPES.items()}
    settled, [reason] = choose_dtype(TrainConfig(data="", out=""))
    gpu = f"torch sees {torch.cuda.get_device_name()}, but " if torch.cuda.is_available() else ""
    return Diagnosis(
        versions={"cutaway": __version__, "python": platform.python_version()} | _versions(),
        cores=cores,
        memory_gb=_memory_gb(),
        disk_free_gb=round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        vectors=_vectors(),
        rates=rates | {"read_gb_per_s": _read_rate()},
        choices=[
            Choice("device", "cpu", f"{gpu}this version of Cutaway computes on the CPU"),
            Choice("training dtype", settled.dtype, reason.partition(": ")[2]),
            Choice("float32 products", "oneDNN" if ONEDNN else "torch's own", REASON),
            Choice("kernels", instruction_set() if native else "torch", why),
            Choice("threads", str(torch.get_num_threads()), f"torch's own choice for {cores} usable cores"),
        ],
        extras=_extras(),
    )


def _extras() -> dict[str, list[str]]:
    """The extras that Cutaway's own metadata lists, without the one for developing it, and what each lacks."""
    extras: dict[str, list[str]] = {}
    for line in (requires("cutaway") if _version("cutaway") else None) or ():
        for library, extra in OPTIONAL.findall(line):
            extras.setdefault(extra, []).extend([library] if _version(library) is None else [])
    extras.pop("dev", None)
    return extras


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> dict[str, str]:
    packages = ("torch", "numpy", "tokenizers", "tokie", "safetensors")
    return {package: _version(package) or "not installed" for package in packages}


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


def _read_rate(megabytes: int = 256) -> float:
    """The best of several sums over an array larger than any cache, in GB/s."""
    import torch

    data, times = torch.ones(megabytes * 2**18), []
    for _ in range(10):
        start = time.perf_counter()
        data.sum()
        times.append(time.perf_counter() - start)
    return round(data.numel() * 4 / min(times) / 1e9, 1)
