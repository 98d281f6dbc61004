"""A top-k autoencoder on planted features, against sae-lens's: the same rows, width, k, batch and threads.

256 unit directions in 64 dimensions, each on in 2 % of the rows. `sae_mcc` is the mean cosine between Cutaway's learned
directions and the planted ones, matched one to one (Hungarian). `sae_time_vs_saelens` is Cutaway's time over that of
sae-lens's own trainer. Each has the learning rate that served it best of 3e-4 … 3.2e-2 (in units of its own), warmed up
and let down alike. Cutaway sees half as many samples again, which all seeds need to match. Imports and reading the rows
do not count. sae-lens's matching stands beside Cutaway's.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import _bench
import torch
from safetensors.torch import load_file, save_file

from cutaway.interp.features import match_directions, train_features

FEATURES, CHANNELS, SHARE, K, BATCH = 256, 64, 0.02, 5, 1024
OUR_SAMPLES, THEIR_SAMPLES, ROWS = 3_000_000, 2_000_000, 500_000
OUR_RATE, THEIR_RATE = 2e-3, 1.6e-2


def planted(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The directions (256, 64), and rows (N, 64) that are sums of few of them with lengths of 0.5 … 1.5."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(FEATURES, CHANNELS, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    parts = []
    for start in range(0, rows, 50_000):
        shape = (min(50_000, rows - start), FEATURES)
        on = torch.rand(shape, generator=generator) < SHARE
        parts.append((on * (torch.rand(shape, generator=generator) + 0.5)) @ directions)
    return directions, torch.cat(parts)


def sparse_autoencoder(quick: bool, runs: int) -> dict[str, dict[str, Any]]:
    """The figures by name.

    Args:
        quick: a few samples, once, to see that all works.
        runs: how often each is trained, with another seed each time.
    """
    runs, rows = (1, 50_000) if quick else (runs, ROWS)
    our_samples, their_samples = (100_000, 100_000) if quick else (OUR_SAMPLES, THEIR_SAMPLES)
    directions, data = planted(rows)
    threads = torch.get_num_threads()
    script = [str(_bench.peer_python("saelens")), str(_bench.BENCH / "peers" / "sae_lens_topk.py")]
    quiet = {**os.environ, "TQDM_DISABLE": "1"}
    ours: list[tuple[float, float]] = []  # seconds and matching
    theirs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as room:
        file, out = Path(room, "rows.safetensors"), Path(room, "decoder.safetensors")
        save_file({"rows": data}, file)
        for seed in range(runs):
            options = [file, out, FEATURES, K, their_samples, BATCH, THEIR_RATE, seed, threads]
            done = subprocess.run(
                [*script, *map(str, options)], stdout=subprocess.PIPE, text=True, check=True, env=quiet
            )
            seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
            theirs.append((seconds, match_directions(load_file(out)["decoder"], directions).mcc))
            started = time.perf_counter()
            learned = train_features(
                data, width=FEATURES, k=K, samples=our_samples, batch=BATCH, lr=OUR_RATE, seed=seed
            )
            ours.append((time.perf_counter() - started, match_directions(learned.decoder, directions).mcc))
    return {
        "sae_mcc": _bench.figure(
            [match for _, match in ours],
            ">= 0.95",
            cutaway=f"{ours[0][1]:.3f} after {our_samples:,} samples",
            peer=f"{theirs[0][1]:.3f} after {their_samples:,}",
            peer_name="sae-lens, top-k",
        ),
        "sae_time_vs_saelens": _bench.figure(
            [our / their for (our, _), (their, _) in zip(ours, theirs, strict=True)],
            "<= 1",
            cutaway=f"{ours[0][0]:.1f} s for {our_samples:,} samples",
            peer=f"{theirs[0][0]:.1f} s for {their_samples:,}",
            peer_name="sae-lens, top-k",
        ),
    }
