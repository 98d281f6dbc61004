"""A sweep of activation patching over all heads, against TransformerLens looping run_with_hooks on the same weights."""

import json
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import _bench
import torch
from _interp_record import GPT2, TOKENS
from torch import Tensor

from cutaway import interp
from cutaway.models import Decoder, DecoderConfig, Model, save_model
from cutaway.tokenizers import train_tokenizer

CLOSE = 1e-4  # effects agree to this


def patch_sweep(quick: bool, runs: int) -> dict[str, Any]:
    """patch_sweep_vs_transformerlens: each head's z at all positions, one a time; the texts have no token alike."""
    model = _random(3 if quick else 12)
    generator = torch.Generator().manual_seed(0)
    known = model.tokenizer.vocab_size  # these have names; the numbers do not depend on which tokens are read
    clean, corrupt = (torch.randint(0, known, (1, TOKENS), generator=generator) for _ in range(2))
    corrupt = torch.where(clean == corrupt, (corrupt + 1) % known, corrupt)
    answers = [5, 9]

    def sweep() -> Tensor:
        made = interp.patch_sweep(
            model, clean, corrupt, what="heads", token=answers[0], minus=answers[1], normalise=False
        )
        return made.change.flatten()

    peer = _peer(model, clean, corrupt, answers, runs)
    effects = sweep()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        effects = sweep()
        seconds.append(time.perf_counter() - start)
    gap = float((effects - torch.tensor(peer["effects"], dtype=torch.float64)).abs().max())
    assert gap < CLOSE, f"effects differ by {gap}"
    return {
        "patch_sweep_vs_transformerlens": _bench.figure(
            [median(peer["seconds"]) / own for own in seconds],
            ">= 5",
            cutaway=f"{median(seconds):.3g} s",
            peer=f"{median(peer['seconds']):.3g} s",
            peer_name="TransformerLens run_with_hooks",
            heads=len(effects),
            largest_gap=gap,
        )
    }


def _random(layers: int) -> Model:
    """A random model of GPT-2 small's shape whose every part writes."""
    torch.manual_seed(0)
    features: dict[str, Any] = {**GPT2, "layers": layers}
    network = Decoder(DecoderConfig(**features)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.02)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.01)
    return Model(network, train_tokenizer(["a tokenizer is not needed"], "char", 300), "random GPT-2 small")


def _peer(model: Model, clean: Tensor, corrupt: Tensor, answers: list[int], runs: int) -> dict[str, Any]:
    """Seconds and effects of TransformerLens, given the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        published = save_model(model, Path(folder) / "gpt2", "huggingface", family="gpt2")
        texts = {"clean": clean[0].tolist(), "corrupt": corrupt[0].tolist(), "answers": answers}
        (published / "texts.json").write_text(json.dumps(texts), "utf-8")
        script = Path(__file__).parent / "peers" / "transformerlens_patching.py"
        command = [_bench.peer_python("transformerlens"), script, published, str(runs)]
        return json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        )
