"""From plain text to token shards: speed per core, growth of time, and memory at one gigabyte.

The text is eleven English novels (gutenberg_novels/train.txt, 7 MB). Larger corpora repeat it, each time with its
paragraphs in another random order, so that no two pieces of the corpus are equal and de-duplication has to look at all
of them and may drop none. Everything that `cutaway prepare` does by default is on: Unicode repair, white space,
boilerplate, language survey, quality filters, exact de-duplication, splits, the tokenizer's training, encoding, shards,
checksums. Each run is a new process; memory is the sum over all its processes (PSS, sampled).

The peer is the same pipeline, encoding with `tokenizers` instead of `tokie`, both on one core and with the same ids.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import _bench

from cutaway.text.workers import usable_cores

MB, GB = 1_000_000, 1_000_000_000
ONE_CORE = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

PREPARE = """
import json, sys, time
from cutaway.tokenizers.pipeline import prepare
start = time.perf_counter()
made = prepare(sys.argv[1], sys.argv[2])
print(json.dumps([time.perf_counter() - start, sum(split["bytes"] for split in made.report.splits.values())]))
"""

ENCODE = """
import json, sys, time, zlib
import numpy as np
from pathlib import Path
from cutaway.text.readers import find
from cutaway.text.report import Report
from cutaway.tokenizers import load_tokenizer
from cutaway.tokenizers import jobs as job
recipe = job.Recipe(tuple(sys.argv[3].split(",")))
parts = find(sys.argv[1])
tokenizer = load_tokenizer(sys.argv[2])
from tokenizers import Tokenizer
plain = Tokenizer.from_file(str(Path(sys.argv[2]) / "tokenizer.json"))
ways = {
    "tokie": lambda texts: tokenizer.encode_bulk(texts),
    "tokenizers": lambda texts: [
        np.array(e.ids, tokenizer.dtype) for e in plain.encode_batch_fast(texts, add_special_tokens=False)
    ],
}
encode, seconds, ids = ways[sys.argv[4]], 0.0, 0
encode(["warm up"])
start = time.perf_counter()
for chunk in job._chunks(job._pieces(job._cleaned(parts, recipe, Report(), None), recipe)):
    before = time.perf_counter()
    found = encode([text for _, _, text in chunk])
    seconds += time.perf_counter() - before
    ids = zlib.crc32(np.concatenate(found), ids)
print(json.dumps([time.perf_counter() - start, seconds, ids]))
"""


def main() -> None:
    options = _bench.options(__doc__)
    small, large, runs = (2 * MB, 20 * MB, 1) if options.quick else (10 * MB, GB, options.runs)
    cores = usable_cores()
    with tempfile.TemporaryDirectory(prefix="bench-prepare-") as temporary:
        folder = Path(temporary)
        text = _bench.data("gutenberg_novels", "train.txt").read_text("utf-8")
        sizes = {size: write_corpus(text, folder / f"{size // MB}mb.txt", size) for size in (small, large)}
        times: dict[int, list[float]] = {small: [], large: []}
        memory, kept = [], []
        for _ in range(runs):
            for size, path in sizes.items():
                (seconds, stored), peak = measured([sys.executable, "-c", PREPARE, str(path), str(folder / "out")])
                times[size].append(seconds)
                if size == large:
                    memory.append(peak / MB)
                    kept.append(stored)
        steps = "unicode,characters,whitespace,boilerplate,language,quality"
        command = [sys.executable, "-c", ENCODE, str(sizes[small]), str(folder / "out"), steps]
        ways = {way: [measured([*command, way], ONE_CORE)[0] for _ in range(runs)] for way in ("tokie", "tokenizers")}
    if len({run[2] for way in ways.values() for run in way}) != 1:
        sys.exit("tokie and tokenizers gave different ids")
    rates = {way: [small / MB / run[0] for run in found] for way, found in ways.items()}
    encoding = {way: [small / MB / run[1] for run in found] for way, found in ways.items()}
    speeds = [large / MB / seconds / cores for seconds in times[large]]
    figures = {
        "mb_per_s_per_core": _bench.figure(
            speeds,
            ">= 10",
            cutaway=f"{median(speeds) * cores:.1f} on {cores} cores; {median(rates['tokie']):.1f} on one",
            peer=f"{median(rates['tokenizers']):.1f} on one core",
            peer_name="the same cleaning, encoding with tokenizers",
        ),
        "time_growth": _bench.figure(
            [big / (large / small * little) for big, little in zip(times[large], times[small], strict=True)],
            "<= 1.1",
            cutaway=f"{min(times[small]):.2f} s at {small // MB} MB, {min(times[large]):.1f} s at {large // MB} MB",
        ),
        "peak_memory_mb_at_1gb": _bench.figure(memory, "<= 1000", cutaway=f"all processes, {large // MB} MB of text"),
    }
    more = {
        "corpus": "gutenberg_novels/train.txt repeated with its paragraphs in another random order each time",
        "share_kept": min(kept) / large,
        "encode_mb_per_s_on_one_core": {way: round(max(found), 1) for way, found in encoding.items()},
    }
    _bench.report("prepare", figures, ["tokenizers", "tokie", "numpy"], quick=options.quick, **more)
    print(f"Encoding alone on one core, in MB/s: {more['encode_mb_per_s_on_one_core']}")
    print(f"{more['share_kept']:.1%} of the text was kept.")


def write_corpus(text: str, path: Path, size: int) -> Path:
    """A file of `size` bytes: the text again and again, its paragraphs in another order each time."""
    paragraphs = [line.encode() for line in text.split("\n") if line]
    rng, left = random.Random(0), size
    with path.open("wb") as file:
        while left > 0:
            rng.shuffle(paragraphs)
            copy = b"\n\n".join(paragraphs) + b"\n\n"
            if len(copy) > left:  # cut between characters
                copy = copy[:left].decode("utf-8", "ignore").encode()
                left = len(copy)
            left -= file.write(copy)
    return path


def measured(command: list[str], environment: dict[str, str] | None = None) -> tuple[list, float]:
    """Run a command. Returns the JSON list it printed, and the most bytes that it and its children held at a time."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {}))
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        while child.poll() is None:
            peak = max(peak, sum(map(held, family(child.pid))))
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = child.communicate()
    watcher.join()
    if child.returncode:
        sys.exit(f"the run failed with exit code {child.returncode}")
    return json.loads(out.splitlines()[-1]), peak


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        children = [
            int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()
        ]
    except OSError:
        return []
    return [pid, *(p for child in children for p in family(child))]


def held(pid: int) -> int:
    """A process's own share of memory in bytes: pages that several share are divided among them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
