"""What every benchmark shares: its options, the machine it ran on, medians, the table, and `bench/results/<name>.json`.

options = _bench.options(__doc__)
figures = {"speed": _bench.figure([5.1, 5.3, 5.6], ">= 5", cutaway="19.8 s", peer="105 s", peer_name="transformers")}
_bench.report("train_speed", figures, packages=["torch"], quick=options.quick)
"""

import argparse
import datetime
import json
import math
import os
import re
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

BENCH = Path(__file__).resolve().parent


def options(description: str | None, runs: int = 3) -> argparse.Namespace:
    """The command line of a benchmark: `--quick` tries it out in under a minute and writes no result."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller and once only; writes no result")
    parser.add_argument("--only", default="", help="measure the parts with this in their names; keeps other figures")
    parser.add_argument("--runs", type=int, default=runs, help=f"how often; the median is the figure ({runs})")
    return parser.parse_args()


def data(*parts: str) -> Path:
    """A path in the benchmark data (the folder named by CUTAWAY_DATA), or a one-line exit saying what is missing."""
    folder = os.environ.get("CUTAWAY_DATA")
    if not folder:
        sys.exit("Set CUTAWAY_DATA to the folder with the benchmark data sets, then run this again.")
    path = Path(folder, *parts)
    if not path.exists():
        sys.exit(f"{path} does not exist; CUTAWAY_DATA must name the folder with the benchmark data sets.")
    return path


def figure(values: Sequence[float], goal: str, **words: Any) -> dict[str, Any]:
    """One figure: the median of its runs, the goal (">= 5"), and in words what was compared (`cutaway`, `peer`, …)."""
    return {
        "value": _short(statistics.median(values)),
        "goal": goal,
        **words,
        "runs": len(values),
        "spread": [_short(min(values)), _short(max(values))],
    }


def report(
    name: str,
    figures: Mapping[str, Mapping[str, Any]],
    packages: Iterable[str] = (),
    *,
    quick: bool = False,
    keep: bool = False,
    **more: Any,
) -> None:
    """Print the table, and write `bench/results/<name>.json` unless `quick`. `more` goes into the file as it is.

    `keep` leaves figures that were not measured now as they are, each with the commit that it was measured at.
    """
    result = {
        "name": name,
        "date": datetime.date.today().isoformat(),
        "commit": _output("git", "rev-parse", "--short", "HEAD") or "unknown",
        "hardware": hardware(),
        "versions": {"python": sys.version.split()[0], **{p: version(p) for p in packages}},
        **more,
        "figures": figures,
    }
    table = Table(title=f"{name}: {result['hardware']}")
    for column in ("figure", "value", "goal", "reached", "cutaway", "peer", "spread"):
        table.add_column(column)
    for key, row in figures.items():
        peer = f"{row.get('peer', '')} ({row['peer_name']})" if "peer_name" in row else str(row.get("peer", ""))
        reached = "yes" if _reached(row["value"], row["goal"]) else "no"
        spread = " to ".join(map(str, row["spread"]))
        table.add_row(key, str(row["value"]), row["goal"], reached, str(row.get("cutaway", "")), peer, spread)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if quick:
        print("Quick mode: nothing written.")
        return
    path = BENCH / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    if keep and path.exists():  # of figures that were not measured now, what was
        old = json.loads(path.read_text("utf-8"))
        before = {key: {"commit": old["commit"], **row} for key, row in old["figures"].items()}
        result["figures"] = {**before, **figures}
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"Wrote {path.relative_to(BENCH.parent)}")
    for page in quote(name, figures):
        print(f"Its figures stand in {page.relative_to(BENCH.parent)} now")


def quote(name: str, figures: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Put measured values where the documentation shows them, with as many digits; the pages that changed."""
    changed = []
    for page in [*BENCH.parent.glob("*.md"), *BENCH.parent.glob("docs/**/*.md")]:
        text = page.read_text("utf-8")

        def put(found: re.Match[str]) -> str:
            if found[2] not in figures:
                return found[0]
            value, shown = figures[found[2]]["value"], found[3]
            if re.fullmatch(r"-?[\d,]*\.?\d+", shown):
                digits = len(shown.partition(".")[2])
            elif re.fullmatch(r"\S*e\S*", shown):
                return f"{found[1]}{value}{found[4]}"
            else:
                digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
            return f"{found[1]}{value:,.{digits}f}{found[4]}"

        new = re.sub(rf"(<!--figure:{name}/(\w+)-->)([^<|]*)(<!--/figure-->)", put, text)
        if new != text:
            page.write_text(new, "utf-8")
            changed.append(page)
    return changed


def hardware() -> str:
    """The class of machine: cores this process may use, widest vectors, memory. Never its name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        flags = Path("/proc/cpuinfo").read_text()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return f"{cores} cores"
    vectors = next((label for flag, label in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "no AVX2")
    return f"{cores} cores, {vectors}, {math.ceil(memory / 2**30)} GB"


def peer_python(peer: str) -> Path:
    """The Python of the environment that `bench/peers/<peer>.txt` describes, made at first use."""
    requirements = BENCH / "peers" / f"{peer}.txt"
    home = BENCH / ".peers" / peer
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (home / ".ready").exists():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        (home / ".ready").touch()
    return python


def _reached(value: float, goal: str) -> bool:
    """Whether a value meets a goal such as ">= 5"."""
    sign, bound = goal.split()[:2]
    return {
        ">=": value >= float(bound),
        "<=": value <= float(bound),
        ">": value > float(bound),
        "<": value < float(bound),
    }[sign]


def _short(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def _output(*command: str) -> str:
    """What a command prints, or nothing when it fails or does not exist."""
    try:
        return subprocess.run(command, cwd=BENCH, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
