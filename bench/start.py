"""How fast the command line answers: `cutaway --help` against `python -c pass`, in turns."""

import subprocess
import sys
import time
from pathlib import Path

import _bench


def seconds(*command: str | Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    options = _bench.options(__doc__)
    rounds = 10 if options.quick else 40
    tool = Path(sys.executable).with_name("cutaway")
    ratios, ours, bare = [], [], []
    for _ in range(3):
        pairs = [(seconds(tool, "--help"), seconds(sys.executable, "-c", "pass")) for _ in range(rounds)]
        help_time, pass_time = (sorted(times)[rounds // 2] for times in zip(*pairs, strict=True))
        ratios.append(help_time / pass_time)
        ours.append(help_time)
        bare.append(pass_time)
    figure = _bench.figure(
        ratios,
        "<= 6",
        cutaway=f"{1000 * sorted(ours)[1]:.0f} ms",
        peer=f"{1000 * sorted(bare)[1]:.0f} ms",
        peer_name="python -c pass",
    )
    _bench.report("start", {"help_ratio": figure}, quick=options.quick)


if __name__ == "__main__":
    main()
