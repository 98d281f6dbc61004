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
from collections.abc import Callable, Iterator, Mapping
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

    def join(self, other: "Tally") -> None:
        """Count what another has counted."""
        self.ends.update(other.ends)
        self.slowest, self.largest = max(self.slowest, other.slowest), max(self.largest, other.largest)
        self.faults.update(other.faults)

    def add(self, line: dict[str, Any]) -> None:
        """Count one input."""
        number = line["number"]
        self.ends[line["ended"]] += 1
        self.slowest = max(self.slowest, (line["seconds"], number))
        self.largest = max(self.largest, (line["grown"], number))
        if line["fault"]:
            self.faults[number] = line["fault"]


def environment() -> dict[str, str]:
    """Of the processes that make and open files: this package, one thread, no caches in the allocator."""
    return os.environ | QUIET | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}


def make_specimens(root: Path) -> Path:
    """Whole files, made in a process of its own."""
    code = "import sys, specimens; from pathlib import Path; specimens.make_all(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(root)], check=True, env=environment())
    return root


def attack(
    specimens: Path,
    jobs: Mapping[str, range],
    *,
    told: Callable[[], None] = lambda: None,
    slow: float | None = None,
    ends: float | None = None,
) -> dict[str, Tally]:
    """Carry out inputs in a process that may die, and is then started again behind what killed it.

    Args:
        specimens: from `make_specimens`.
        jobs: a key of `targets.TARGETS` -> which of its inputs.
        told: called after every input.
        slow: seconds of processor time from which on an input counts as a fault; None: none does.
        ends: when to stop, by time.monotonic(); None: never.
    """
    tallies, left = {name: Tally() for name in jobs}, dict(jobs)
    with tempfile.TemporaryDirectory(dir=specimens.parent) as room:
        while left := {
            name: numbers for name, numbers in left.items() if numbers and not (ends and time.monotonic() > ends)
        }:
            with tempfile.TemporaryFile("w+") as errors:
                command = [sys.executable, str(HERE / "fuzz_worker.py"), str(specimens), f"{room}/w"]
                command += [f"{name}:{numbers.start}:{numbers.stop}:{numbers.step}" for name, numbers in left.items()]
                current: dict[str, Any] = {}
                with subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment()
                ) as process:
                    for current in map(json.loads, process.stdout or ()):
                        if "ended" in current:
                            if slow is not None and current["seconds"] > slow and not current["fault"]:
                                current["fault"] = f"{current['seconds']:.2f} s"
                            tallies[current["target"]].add(current)
                            left[current["target"]] = left[current["target"]][1:]
                            told()
                        if ends is not None and time.monotonic() > ends:
                            process.kill()
                            return tallies
                if (code := process.returncode) == 0:
                    break
                errors.seek(0)
                said = errors.read()[-2500:]
                if not current or "ended" in current:
                    raise RuntimeError(f"a worker ended with {code} between two inputs: {said}")
                died = {"ended": "died", "seconds": 0.0, "grown": 0, "fault": f"died with {code}\n{said}"}
                tallies[current["target"]].add(current | died)
                left[current["target"]] = left[current["target"]][1:]
                told()
            shutil.rmtree(f"{room}/w", ignore_errors=True)
    return tallies


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
    yield (
        f"{'':12}{'inputs':>8}{'models':>8}"
        + "".join(f"{name:>13}" for name in names)
        + f"{'slowest':>10}{'memory':>10}"
    )
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
    parser.add_argument("--minutes", type=float, help="stop after so many, and tell what was done")
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "NUMBER"))
    options = parser.parse_args()
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None, prefix="cutaway-fuzz-") as room:
        specimens = make_specimens(Path(room) / "specimens")
        if options.replay:
            target, number = options.replay[0], int(options.replay[1])
            tallies = attack(specimens, {target: range(number, number + 1)}, slow=SLOW)
            print(*table(tallies), *tallies[target].faults.values(), sep="\n")
            return bool(tallies[target].faults)
        wanted = {options.target: options.inputs} if options.target else shares(options.inputs)
        done, begun, workers = 0, time.monotonic(), options.workers
        whole = {name: range(options.start, options.start + count) for name, count in wanted.items()}
        rounds = max(1, options.inputs // 10_000)  # so that what is stopped early has met every target
        mine = [{name: numbers[k::workers] for name, numbers in whole.items()} for k in range(workers)]
        jobs = [
            {name: n[r * len(n) // rounds : (r + 1) * len(n) // rounds] for name, n in numbers.items()}
            for r in range(rounds)
            for numbers in mine
        ]
        ends = begun + 60 * options.minutes if options.minutes else None
        tallies = {name: Tally() for name in wanted}

        def told() -> None:
            nonlocal done
            done += 1
            if done % 2000 == 0:
                print(f"{done:,} of {sum(wanted.values()):,} in {time.monotonic() - begun:.0f} s", flush=True)

        with ThreadPoolExecutor(workers) as pool:
            for part in pool.map(lambda job: attack(specimens, job, told=told, slow=SLOW, ends=ends), jobs):
                for name, tally in part.items():
                    tallies[name].join(tally)
        print(*table(tallies), sep="\n")
        faults = [
            (name, number, text) for name, tally in tallies.items() for number, text in sorted(tally.faults.items())
        ]
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
