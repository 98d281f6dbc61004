"""lm-eval asks a running server, and counts what `cutaway evaluate` counts.

It is the stranger's own program, unchanged, at a pinned version in a virtual environment of its own. It is given local
files and the address of the server, whose tokenizer it uses over HTTP (tokenizer_backend=remote).

    python tests/outsiders/lm_eval_against_server.py MODEL --pairs FILE --words FILE --limit 100
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("lm_eval_requirements.txt")
TASKS = Path(__file__).with_name("lm_eval_tasks")
COLUMNS = {"good": "sentence_good", "bad": "sentence_bad"}  # other names of BLiMP's columns


@dataclass(frozen=True)
class Counted:
    """What lm-eval found on one file.

    Attributes:
        items: how many.
        right: how many it counted as right.
        logprob: the sum of the log-likelihoods of all right choices.
        figures: its own.
        likelihoods: of each item those of all choices, in the file's order.
    """

    items: int
    right: int
    logprob: float
    figures: dict[str, float]
    likelihoods: list[list[float]]


def environment() -> Path:
    """A virtual environment with lm-eval, made where there is none for these requirements; its Python."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = ROOT / "build" / "outsiders" / f"lm-eval-{digest}"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = folder / "installed"
    if not done.exists():
        venv.create(folder, with_pip=False, clear=True)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile", "--no-deps"]
        made = subprocess.run([*pip, "-r", str(REQUIREMENTS)], capture_output=True, text=True, timeout=600)
        assert made.returncode == 0, f"lm-eval could not be installed:\n{made.stderr[-2000:]}"
        done.touch()
    return python


def ask(
    url: str, model: str, files: Mapping[str, Path], *, batch: int = 16, python: Path | None = None
) -> dict[str, Counted]:
    """What lm-eval finds of a server's model.

    Args:
        url: of the server, without /v1.
        model: its name there.
        files: kind ("pairs", "choices", "words") -> a .jsonl file with the columns of the task of that name.
        batch: prompts in a request.
        python: of an environment with lm-eval.
    """
    python = python or environment()
    with TemporaryDirectory() as name:
        room = Path(name)
        for kind, file in files.items():
            task = (TASKS / f"{kind}.yaml").read_text("utf-8").replace("DATA", json.dumps(str(file)))
            (room / f"{kind}.yaml").write_text(task, "utf-8")
        served = f"base_url={url}/v1/completions,model={model},tokenizer_backend=remote,max_retries=1"
        words = ["-m", "lm_eval", "run", "--model", "local-completions", "--model_args", served]
        words += ["--tasks", ",".join(f"cutaway_{kind}" for kind in files), "--include_path", str(room)]
        words += ["--batch_size", str(batch), "--log_samples", "--output_path", str(room / "out")]
        home = {"HF_HOME": str(room / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        env = {**os.environ, **home, "TOKENIZERS_PARALLELISM": "false"}
        ran = subprocess.run([str(python), *words], capture_output=True, text=True, env=env, cwd=room)
        assert ran.returncode == 0, f"lm-eval failed:\n{ran.stdout[-1000:]}\n{ran.stderr[-4000:]}"
        return {kind: _counted(room / "out", f"cutaway_{kind}") for kind in files}


def _counted(out: Path, task: str) -> Counted:
    """What lm-eval wrote down of a task."""
    (summary,) = out.rglob("results_*.json")
    (log,) = out.rglob(f"samples_{task}_*.jsonl")
    found = json.loads(summary.read_text("utf-8"))["results"][task]
    told = {key.partition(",")[0]: value for key, value in found.items()}  # such as "acc,none" and "acc_stderr,none"
    figures = {name: float(told[name]) for name in ("acc", "acc_norm", "perplexity") if name in told}
    samples = sorted(map(json.loads, log.read_text("utf-8").splitlines()), key=lambda one: one["doc_id"])
    likelihoods = [[float(response[0][0]) for response in one["resps"]] for one in samples]
    targets = [int(one["target"]) if len(one["resps"]) > 1 else 0 for one in samples]
    logprob = sum(choices[target] for choices, target in zip(likelihoods, targets, strict=True))
    return Counted(len(samples), round(sum(one["acc"] for one in samples)), logprob, figures, likelihoods)


def differences(theirs: Counted, ours: Mapping[str, Any]) -> list[str]:
    """Where lm-eval and `cutaway evaluate --json` disagree: on the count, on who is right, or by more than 1e-3."""
    found = []
    if (theirs.items, theirs.right) != (ours["items"], ours["right"]):
        found.append(f"{theirs.right} of {theirs.items} right, but {ours['right']} of {ours['items']}")
    if abs(theirs.logprob - ours["logprob"]) > 1e-3:
        found.append(f"log-likelihoods sum to {theirs.logprob}, but to {ours['logprob']}")
    for name, figure in ours["figures"].items():
        if not math.isclose(theirs.figures[name], figure["value"], rel_tol=1e-6):
            found.append(f"{name} is {theirs.figures[name]}, but {figure['value']}")
    return found


def prepared(file: Path, out: Path, limit: int | None) -> Path:
    """A file of questions as lm-eval's tasks read them: unpacked, BLiMP's names of columns, the first of each group."""
    lines = (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8")
    seen: dict[str, int] = {}
    with lines, open(out, "w", encoding="utf-8") as made:
        for line in lines:
            row = {COLUMNS.get(key, key): value for key, value in json.loads(line).items()}
            group = str(row.get("uid", ""))
            seen[group] = seen.get(group, 0) + 1
            if limit is None or seen[group] <= limit:
                made.write(json.dumps(row) + "\n")
    return out


def main() -> int:
    """Serve a model, let lm-eval ask it, evaluate it, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--words", type=Path)
    parser.add_argument("--choices", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch", type=int, default=64)
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "serve"))
    from serving import serving  # pyright: ignore[reportMissingImports]  # tests/serve

    from cutaway.serve import Settings

    with TemporaryDirectory() as name:
        files = {
            kind: prepared(file, Path(name) / f"{kind}.jsonl", asked.limit)
            for kind in ("pairs", "words", "choices")
            if (file := getattr(asked, kind)) is not None
        }
        with serving(Settings(models={"model": asked.model})) as served:
            theirs = ask(served.url, "model", files, batch=asked.batch)
        suites = [word for kind, file in files.items() for word in ("--suite", f"{kind}={file}")]
        command = [sys.executable, "-m", "cutaway", "evaluate", asked.model, *suites, "--json"]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    wrong = 0
    for (ours,) in json.loads(ran.stdout)["suites"]:
        their = theirs[ours["name"]]
        found = differences(their, ours)
        wrong += len(found)
        print(f"{ours['name']}: {their.right} of {their.items} right, sum {their.logprob:.4f}, {their.figures}")
        print(f"  cutaway evaluate: {ours['right']} of {ours['items']}, sum {ours['logprob']:.4f}")
        print("\n".join(f"  DIFFERENT: {one}" for one in found) or "  the same")
    return min(1, wrong)


if __name__ == "__main__":
    sys.exit(main())
