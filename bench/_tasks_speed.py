"""Speed of fine-tuning and of answering, beside transformers: MiniLM on banking77, float32, two threads each.

Both train the same epochs with the same batch, peak rate, warm-up, linear decay and weight decay; the time is from
texts to a trained network. Both answer all test texts: transformers by its pipeline with batches of 32, Cutaway by
`TaskModel.predict`.
"""

import json
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import _bench
from _minilm import MINILM

from cutaway.tasks import TaskConfig, read_data
from cutaway.tasks.fresh import suited
from cutaway.tasks.train import learn

SETTINGS: dict[str, Any] = {"epochs": 4, "batch": 32, "lr": 2e-4, "weight_decay": 0.01, "context": 256, "threads": 2}


def speed(quick: bool, runs: int = 3) -> dict[str, Any]:
    ratios, rates, told = [], [], []
    for seed in range(1 if quick else runs):
        with tempfile.TemporaryDirectory() as room:
            told.append(_both(Path(room), quick, seed))
        ratios.append(told[-1][0]["train_seconds"] / told[-1][1]["train_seconds"])
        rates.append(told[-1][0]["predict_seconds"] / told[-1][1]["predict_seconds"])
    peer, mine = told[sorted(range(len(ratios)), key=ratios.__getitem__)[len(ratios) // 2]]
    texts = peer["texts"]

    def trained(one: dict[str, Any]) -> str:
        return f"{one['train_seconds']:.0f} s, accuracy {one['accuracy']:.4f}"

    def answered(one: dict[str, Any]) -> str:
        return f"{texts / one['predict_seconds']:,.0f} texts/s"

    trainer, pipe = {"peer_name": "transformers' Trainer"}, {"peer_name": "transformers' pipeline"}
    accuracies = {"accuracies": [[round(one["accuracy"], 4) for one in pair] for pair in told]}
    return {
        "finetune_time_vs_trainer": _bench.figure(
            ratios, ">= 2", cutaway=trained(mine), peer=trained(peer), **trainer, **accuracies
        ),
        "predict_vs_pipeline": _bench.figure(rates, ">= 3", cutaway=answered(mine), peer=answered(peer), **pipe),
    }


def _both(room: Path, quick: bool, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What transformers and Cutaway took, one after the other."""
    config = TaskConfig(
        "classify",
        str(_bench.data("banking77", "train.tsv.gz")),
        str(room / "model"),
        valid=0.0,
        test=str(_bench.data("banking77", "test.tsv.gz")),
        start=MINILM,
        dtype="fp32",
        seed=seed,
        evaluations=1,
        **SETTINGS,
    )
    data = read_data(config.task, config.data, valid=0.0, test=config.test)
    config, _ = suited(replace(config, task=data.task), data.splits["train"])
    place = {label: number for number, label in enumerate(data.labels)}
    if quick:
        data.splits = {name: examples[:256] for name, examples in data.splits.items()}
    plain = {
        name: [[example.given["text"], place[example.truth[0]]] for example in examples]
        for name, examples in data.splits.items()
    }
    (room / "data.json").write_text(json.dumps(plain), "utf-8")
    steps = round(SETTINGS["epochs"] * len(plain["train"]) / SETTINGS["batch"])
    command = [_bench.peer_python("transformers_trainer"), str(_bench.BENCH / "peers" / "transformers_finetune.py")]
    settings = {**SETTINGS, "seed": seed, "warmup": steps // 10, "steps": steps}
    done = subprocess.run(
        [*command, MINILM, str(room / "data.json"), json.dumps(settings)], check=True, stdout=subprocess.PIPE, text=True
    )
    peer = json.loads(done.stdout.splitlines()[-1])
    start = time.perf_counter()
    made = learn(config, data, room / "run")
    trained = time.perf_counter() - start
    made.predict(data.splits["test"][:64])
    start = time.perf_counter()
    answers = made.predict(data.splits["test"])
    took = time.perf_counter() - start
    right = sum(answer.answer == example.truth[0] for answer, example in zip(answers, data.splits["test"], strict=True))
    mine = {"train_seconds": trained, "accuracy": right / len(answers), "predict_seconds": took}
    return {**peer, "texts": len(answers)}, mine


PARTS = [speed]
