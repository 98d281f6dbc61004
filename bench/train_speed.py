"""Training on a CPU: time to a loss against transformers' GPT-2, and the share of the machine's multiplying rate used.

The peer trains nanoGPT's published CPU recipe (peers/gpt2_recipe.py) in an environment of its own. Cutaway trains its
default architecture with Muon on the same characters, context and split, at most 1 M parameters. Both are scored on the
same windows of the whole validation text. The peer's clock counts its training steps alone; Cutaway's counts the whole
call of `train`, evaluation and checkpoint included.
"""

import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import _bench
import torch
from torch.nn.functional import cross_entropy

from cutaway.models import DecoderConfig, Model, build_network
from cutaway.tokenizers import StoreWriter, Tokenizer, train_tokenizer
from cutaway.training import TrainConfig, train
from cutaway.training.memory import keep_freed_memory
from cutaway.training.objectives import Batch
from cutaway.training.stepper import Stepper

CONTEXT = 64
SHAPE = {"layers": 4, "width": 128, "heads": 4, "tied": False}
RECIPE = {"context": CONTEXT, "batch": 24, "network": SHAPE, "weight_decay": 0.0, "clip": 0.0}
SHORT = {"lr": 0.05, "lr_rest": 0.02, "momentum": 0.9}  # for some hundred steps
LONG = {"lr": 0.02, "lr_rest": 0.005, "momentum": 0.95}  # for some thousand
STEPS = (140, 180, 240, 320)  # the first that reaches the peer's loss counts


def split(text: str) -> tuple[str, str]:
    """The first nine tenths, and the rest."""
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


def store(text: str, folder: Path) -> Tokenizer:
    """A token store of the characters."""
    train_text, valid_text = split(text)
    tokenizer = train_tokenizer([text], "char", 512)
    writer = StoreWriter(folder, tokenizer)
    for name, part in (("train", train_text), ("valid", valid_text)):
        [ids] = tokenizer.encode_bulk([part])
        writer.add(name, ids, source="tiny Shakespeare", text_bytes=len(part.encode()))
    writer.close()
    return tokenizer


def full_loss(model: Model, text: str) -> float:
    """Nats per character over the whole validation text, in windows as the peer's."""
    ids = torch.tensor(model.tokenizer.encode(text))
    windows, total = (len(ids) - 1) // CONTEXT, 0.0
    for first in range(0, windows, 128):
        x = torch.arange(first, min(first + 128, windows))[:, None] * CONTEXT + torch.arange(CONTEXT)
        total += cross_entropy(model.logits(ids[x]).flatten(0, 1), ids[x + 1].flatten(), reduction="sum").item()
    return total / (windows * CONTEXT)


def ours(data: Path, valid_text: str, **more: object) -> dict[str, float]:
    """Train once; seconds of the whole call, full-validation loss, parameters."""
    with tempfile.TemporaryDirectory() as room:
        config = TrainConfig(
            data=str(data), out=f"{room}/run", baseline=False, tensorboard="off", eval_every=10**6, save_every=10**6,
            **{**RECIPE, **more},  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        start = time.perf_counter()
        run = train(config)
        seconds = time.perf_counter() - start
    loss = full_loss(run.model, valid_text)
    return {
        "seconds": seconds,
        "loss": loss,
        "parameters": sum(p.numel() for p in run.model.network.parameters()),
    }


def to_loss(goal: float, data: Path, valid_text: str, choices: tuple[int, ...], seed: int) -> dict[str, float]:
    """The run with the fewest of these steps that reaches the loss; the last one where none does."""
    made = ours(data, valid_text, steps=choices[0], seed=seed, **SHORT)
    for steps in choices[1:]:
        if made["loss"] <= goal:
            break
        made = ours(data, valid_text, steps=steps, seed=seed, **SHORT)
    return made


def peer(python: Path, path: Path, steps: int) -> dict[str, float]:
    """The peer's run, in its own environment."""
    script = Path(__file__).parent / "peers/gpt2_recipe.py"
    done = subprocess.run([python, script, path, str(steps)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def matmul_rate(size: int = 2048) -> float:
    """Floating-point operations a second of torch's bfloat16 matrix product."""
    a, b = torch.randn(2, size, size).bfloat16()
    times = []
    for _ in range(12):
        start = time.perf_counter()
        _ = a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times)


def share(compile_it: bool, steps: int) -> tuple[float, float, int]:
    """Share of the multiplying rate that training a 10.7 M decoder uses, its seconds a step, and its parameters."""
    config = TrainConfig(
        data="", out="", batch=16, context=256, dtype="bf16", optimizer="adamw", compile="on" if compile_it else "off"
    )
    keep_freed_memory()  # as `train` does
    network = build_network(DecoderConfig(vocab_size=65, context=256, layers=6, width=384, heads=6))
    stepper = Stepper(config, network)
    parameters = sum(p.numel() for p in network.parameters())
    times, rates = [], [matmul_rate()]
    for i in range(steps + 2):
        ids = torch.randint(0, 65, (16, 257))
        start = time.perf_counter()
        tensors = {"ids": ids[:, :-1].contiguous(), "targets": ids[:, 1:].contiguous()}
        stepper.step(Batch(tensors, [0] * 16, 16 * 256, 16 * 256), lr_scale=0.1, seed=i)
        times.append(time.perf_counter() - start)
        if i % 5 == 4:
            rates.append(matmul_rate())  # the machine's rate drifts: measure it all along
    seconds = statistics.median(times[2:])
    return 6 * parameters * 16 * 256 / seconds / statistics.median(rates), seconds, parameters


def main() -> None:
    options = _bench.options(__doc__)
    path = _bench.data("tinyshakespeare", "input.txt")
    text = path.read_text("utf-8")
    valid_text = split(text)[1]
    runs, peer_steps = (1, 60) if options.quick else (options.runs, 2000)
    python = _bench.peer_python("transformers")
    ratios, losses, quick_ones, long_ones, peers = [], [], [], [], []
    with tempfile.TemporaryDirectory() as room:
        data = Path(room, "store")
        store(text, data)
        for i in range(runs):
            them = peer(python, path, peer_steps)
            fast = to_loss(them["loss"], data, valid_text, (10,) if options.quick else STEPS, seed=i)
            long = ours(data, valid_text, minutes=them["seconds"] / 60, seed=i, **LONG)
            reached = fast["loss"] <= them["loss"]
            ratios.append(them["seconds"] / fast["seconds"] if reached else 0.0)
            losses.append(long["loss"])
            peers.append(them)
            quick_ones.append(fast)
            long_ones.append(long)
            print(f"run {i + 1}: peer {them}, to its loss {fast}, in its time {long}", flush=True)
        shares = [share(False, 5 if options.quick else 20) for _ in range(runs)]
        compiled = [] if options.quick else [share(True, 20) for _ in range(runs)]

    def middle(rows: list[dict[str, float]], key: str) -> float:
        return statistics.median(row[key] for row in rows)

    theirs = f"{middle(peers, 'seconds'):.1f} s to {middle(peers, 'loss'):.3f}"
    figures = {
        "time_to_loss_ratio": _bench.figure(
            ratios, ">= 5", peer=theirs, peer_name="transformers GPT-2, nanoGPT recipe",
            cutaway=f"{middle(quick_ones, 'seconds'):.1f} s to {middle(quick_ones, 'loss'):.3f}, "
            f"{middle(quick_ones, 'parameters'):,.0f} parameters",
        ),
        "loss_at_peer_time": _bench.figure(
            losses, "<= 1.60", peer=theirs, peer_name="transformers GPT-2, nanoGPT recipe",
            cutaway=f"{middle(long_ones, 'loss'):.3f} after {middle(long_ones, 'seconds'):.1f} s",
        ),
        "matmul_share": _bench.figure(
            [s for s, _, _ in shares], ">= 0.60",
            cutaway=f"{statistics.median(t for _, t, _ in shares):.3f} s a step of 4,096 tokens, "
            f"{shares[0][2]:,} parameters, AdamW",
        ),
    }  # fmt: skip
    if compiled:
        figures["matmul_share_compiled"] = _bench.figure(
            [s for s, _, _ in compiled], ">= 0.60",
            cutaway=f"{statistics.median(t for _, t, _ in compiled):.3f} s a step, torch.compile",
        )  # fmt: skip
    _bench.report("train_speed", figures, packages=["torch", "numpy"], quick=options.quick)


if __name__ == "__main__":
    main()
