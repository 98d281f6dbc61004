"""100,000 damaged files: each becomes a model or one of Cutaway's errors, at once, within the memory that it is worth.

    python tests/hostile/fuzz.py                    the full number, on every core
    python tests/hostile/fuzz.py --inputs 5000      fewer
    python tests/hostile/fuzz.py --replay gguf 1234 one of them, with its traceback
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SLOW = 1.0  # seconds of processor time
QUIET = {
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # so that each allocation of some size is one of the system's, and is given back
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "1048576",
    "PYTHONDONTWRITEBYTECODE": "1",
    "RUST_BACKTRACE": "0",
}


@dataclass
class Tally:
    """What became of one target's inputs.

    Attributes:
        ends: "model", or the class of the error -> how many.
        slowest: seconds of processor time, and the number.
        largest: bytes beyond those held before, and the number.
        faults: number -> what is wrong.
    """

    ends: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)
    faults: dict[int, str] = field(default_factory=dict)

    def add(self, line: dict[str, Any]) -> None:
        """Count one input."""
        number = line["number"]
        self.ends[line["ended"]] += 1
        self.slowest = max(self.slowest, (line["seconds"], number))
        self.largest = max(self.largest, (line["grown"], number))
        if line["fault"]:
            self.faults[number] = line["fault"]


def make_specimens(root: Path) -> Path:
    """Whole files, made in a process of its own."""
    code = "import sys; sys.path[:0] = sys.argv[2:4]; import specimens; from pathlib import Path; specimens.make_all(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(root), str(HERE), str(HERE.parents[1])], check=True, env=os.environ | QUIET)
    return root


def attack(
    specimens: Path, target: str, numbers: range, *, told: Callable[[int], None] = lambda count: None, slow: float | None = None
) -> Tally:
    """Carry out inputs of one target in a process that may die.

    Args:
        specimens: from `make_specimens`.
        target: a key of `targets.TARGETS`.
        numbers: which inputs.
        told: called with how many were carried out since the last call.
        slow: seconds of processor time from which on an input counts as a fault; None: none does.
    """
    tally, at = Tally(), numbers.start
    environment = os.environ | QUIET | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}
    with tempfile.TemporaryDirectory(dir=specimens.parent) as room:
        while at < numbers.stop:
            with tempfile.TemporaryFile("w+") as errors:
                command = [sys.executable, str(HERE / "fuzz_worker.py"), str(specimens), f"{room}/w", target]
                command += [str(at), str(numbers.stop), str(numbers.step)]
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
                current = -1
                assert process.stdout is not None
                for line in map(json.loads, process.stdout):
                    current = line["number"]
                    if "ended" not in line:
                        continue
                    if slow is not None and line["seconds"] > slow and not line["fault"]:
                        line["fault"] = f"{line['seconds']:.2f} s"
                    tally.add(line)
                    told(1)
                    at, current = current + numbers.step, -1
                code = process.wait()
                if code == 0:
                    break
                errors.seek(0)
                said = errors.read()[-2500:]
                if current < 0:
                    raise RuntimeError(f"the worker for {target} ended with {code}: {said}")
                tally.add({"number": current, "ended": "died", "seconds": 0.0, "grown": 0, "fault": f"died with {code}\n{said}"})
                told(1)
                at = current + numbers.step
            shutil.rmtree(f"{room}/w", ignore_errors=True)
    return tally


def shares(inputs: int) -> dict[str, int]:
    """How many inputs each target gets."""
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]
    from targets import TARGETS

    whole = sum(target.share for target in TARGETS.values())
    found = {name: inputs * target.share // whole for name, target in TARGETS.items()}
    found[next(iter(found))] += inputs - sum(found.values())
    return found


def table(tallies: dict[str, Tally]) -> Iterator[str]:
    """The closing table, a line each."""
    names = sorted({name for tally in tallies.values() for name in tally.ends} - {"model"})
    yield f"{'':12}{'inputs':>8}{'models':>8}" + "".join(f"{name:>13}" for name in names) + f"{'slowest':>10}{'memory':>10}"
    for target, tally in tallies.items():
        ends = "".join(f"{tally.ends[name]:>13,}" for name in names)
        grown = f"{tally.largest[0] / 2**20:.1f} MB"
        yield f"{target:12}{tally.ends.total():>8,}{tally.ends['model']:>8,}{ends}{tally.slowest[0]:>8.2f} s{grown:>10}"
    total = Counter[str]()
    for tally in tallies.values():
        total.update(tally.ends)
    yield f"{'all':12}{total.total():>8,}{total['model']:>8,}" + "".join(f"{total[name]:>13,}" for name in names)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "NUMBER"))
    parser.add_argument("--keep", type=Path, help="where to keep the specimens and the replayed file")
    options = parser.parse_args()
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None, prefix="cutaway-fuzz-") as room:
        specimens = make_specimens(Path(room) / "specimens")
        if options.replay:
            target, number = options.replay[0], int(options.replay[1])
            tally = attack(specimens, target, range(number, number + 1), slow=SLOW)
            print(*table({target: tally}), *tally.faults.values(), sep="\n")
            return bool(tally.faults)
        wanted = {options.target: options.inputs} if options.target else shares(options.inputs)
        done, begun, step = 0, time.monotonic(), options.workers
        jobs = [(name, range(options.start + k, options.start + count, step)) for name, count in wanted.items() for k in range(step)]
        tallies = {name: Tally() for name in wanted}

        def told(count: int) -> None:
            nonlocal done
            done += count
            if done % 2000 < count:
                print(f"{done:,} of {sum(wanted.values()):,} in {time.monotonic() - begun:.0f} s", flush=True)

        with ThreadPoolExecutor(options.workers) as pool:
            for (name, _), tally in zip(jobs, pool.map(lambda job: attack(specimens, *job, told=told, slow=SLOW), jobs), strict=True):
                whole = tallies[name]
                whole.ends.update(tally.ends)
                whole.slowest, whole.largest = max(whole.slowest, tally.slowest), max(whole.largest, tally.largest)
                whole.faults.update(tally.faults)
        print(*table(tallies), sep="\n")
        faults = [(name, number, text) for name, tally in tallies.items() for number, text in sorted(tally.faults.items())]
        kinds = Counter((name, _kind(text)) for name, _, text in faults)
        for (name, kind), count in kinds.most_common():
            number, text = next((n, t) for m, n, t in faults if m == name and _kind(t) == kind)
            print(f"\n{count} × {name}: {kind}\n  the first: --replay {name} {number}\n  " + text.replace("\n", "\n  "))
        print(f"{len(faults)} faults in {time.monotonic() - begun:.0f} s")
        return bool(faults)


def _kind(text: str) -> str:
    """What alike faults share: their first line without what differs from input to input, and where they arose."""
    first = text.splitlines()[0][:70]
    places = [line.strip() for line in text.splitlines() if line.strip().startswith("File ")]
    return f"{first} {places[-1][-60:] if places else ''}"


if __name__ == "__main__":
    sys.exit(main())
