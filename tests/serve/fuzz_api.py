"""Requests that schemathesis generates from the OpenAPI schema, right and wrong ones, against a running server.

No answer may be a 5xx, and each must be as the schema says: its status, its content type, its body. Requests that break
the schema must be refused. `make fuzz` sends ten thousand; the tests some hundreds.

    python tests/serve/fuzz_api.py [--requests 10000] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from readers import bert
from serving import Served, serving, tiny_talker

from cutaway.models import load_model
from cutaway.serve import Settings
from cutaway.tasks import TaskModel
from cutaway.tasks.classify import Classify
from cutaway.tasks.trained import write_task

# what a valid request says may still be refused for what it means: too long a prompt, a token that the model lacks
EXCLUDED = "positive_data_acceptance"
MODELS = {"classify": "labels", "rerank": "labels", "tag": "tags", "embeddings": "vectors"}
MODELS |= {"predict": "intents"}  # others: a decoder
# what refuses a request: a body that is wrong for being too large is refused before it is read
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 413, 415, 429]
"""
LABELS = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}


@dataclass(frozen=True)
class Found:
    """What came of it.

    Attributes:
        requests: how many were sent.
        faults: how many different ones schemathesis found.
        text: its report.
        stopped: an error of its own.
    """

    requests: int
    faults: int
    text: str
    stopped: bool


def models(folder: Path) -> dict[str, str]:
    """A small model for every kind of route."""
    return {
        "tiny": tiny_talker(folder / "tiny", context=64),
        "labels": bert(folder / "labels", **LABELS),
        "tags": bert(folder / "tags", "BertForTokenClassification", **LABELS),
        "vectors": bert(folder / "vectors", "BertModel"),
        "intents": intents(folder / "intents"),
    }


def intents(folder: Path) -> str:
    """A folder as `cutaway task train classify` leaves it."""
    model = load_model(bert(folder.with_name("body"), **LABELS))
    folder.mkdir()
    write_task(TaskModel(Classify(several="no"), model, ("bad", "good"), {"temperature": 2.0}), folder)
    return str(folder)


def named(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the names of models that there are: others would all be answered with 404."""
    parts = schema["components"]["schemas"]

    def visit(part: Any, name: str) -> None:
        if isinstance(part, dict):
            if "$ref" in part:
                visit(parts[part["$ref"].rpartition("/")[2]], name)
            if "model" in part.get("properties", {}):
                null = "null" in str(part["properties"]["model"])  # a page that a single model needs not be named for
                part["properties"]["model"] = {"enum": [name, None]} if null else {"type": "string", "enum": [name]}
            for key in ("schema", "anyOf", "oneOf", "allOf"):
                visit(part.get(key), name)
        elif isinstance(part, list):
            for one in part:
                visit(one, name)

    for path, methods in schema["paths"].items():
        body = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        visit(body, MODELS.get(path.rpartition("/")[2], "tiny"))
    return schema


def fuzz(served: Served, *, each: int, seed: int, phases: str = "examples,coverage,fuzzing") -> Found:
    """Send generated requests to a server.

    Args:
        served: it runs, with the models of `models`.
        each: most requests of the fuzzing phase for each page.
        seed: of the generator.
        phases: of schemathesis.
    """
    schema = named(httpx.get(f"{served.url}/openapi.json").json())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "openapi.json"
        file.write_text(json.dumps(schema))
        (Path(folder) / "schemathesis.toml").write_text(CONFIG)
        command = [str(Path(sys.prefix) / "bin" / "schemathesis")]
        if not Path(command[0]).exists():
            command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
        command += ["--no-color", "run", str(file), "--url", served.url, "--phases", phases, "--checks", "all"]
        command += ["--exclude-checks", EXCLUDED, "--seed", str(seed), "--max-examples", str(each), "--warnings", "off"]
        command += [
            "--request-timeout",
            "120",
            "--max-response-time",
            "120",
            "--continue-on-failure",
            "--suppress-health-check",
            "all",
        ]
        command += ["--no-shrink"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    text = done.stdout + done.stderr
    sent = re.search(r"(\d+) generated", text)
    unique = re.search(r"found (\d+) unique failures?", text)
    return Found(
        requests=int(sent[1]) if sent else 0,
        faults=int(unique[1]) if unique else (0 if done.returncode == 0 else 1),
        text=text,
        stopped=done.returncode not in (0, 1),
    )


def main() -> int:
    """Send requests until there are so many."""
    parser = argparse.ArgumentParser(description="Generated requests against a running server.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Settings(models=models(Path(folder)))) as served:
        sent, seed = 0, asked.seed
        while sent < asked.requests:
            found = fuzz(served, each=100, seed=seed)
            sent, seed = sent + found.requests, seed + 1
            print(f"{sent:,} requests, {found.faults} faults", flush=True)
            if found.faults or found.stopped or not found.requests:
                print(found.text)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
