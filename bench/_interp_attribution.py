"""Integrated gradients against captum's: the same random GPT-2, text, number, baseline, rule and steps.

The network is of GPT-2 small's size with random weights; transformers opens what Cutaway writes of it. Both integrate
the gradient of the last position's logit from a zero vector for every token, with Gauss–Legendre nodes (captum's own
default) in float32 on as many threads. `integrated_gradients_vs_captum` is captum's time over Cutaway's, with captum
used as its documentation shows; `integrated_gradients_vs_captum_helped` the same with transformers told to compute only
the last logits and captum to take a few steps at a time, which its users must know to ask for. The scores must be the
same, and Cutaway's completeness gap no larger, or there is no figure.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import _bench
import torch

from cutaway.interp.attribution import integrated_gradients as explain
from cutaway.models import Decoder, DecoderConfig, Model, save_model
from cutaway.tokenizers import train_tokenizer

STEPS, TOKENS, TOKEN = 64, 128, 65
GPT2 = {
    "norm": "layernorm",
    "position": "learned",
    "activation": "gelu_tanh",
    "gated": False,
    "qk_norm": False,
    "attention_bias": True,
    "output_bias": True,
    "mlp_bias": True,
}
SMALL = {"context": 1024, "layers": 12, "width": 768, "heads": 12}
TINY = {"context": 128, "layers": 2, "width": 64, "heads": 4}


def made(quick: bool) -> Model:
    """A random network of GPT-2 small's size, or a tiny one."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["the same text for both"], "char", 300)
    network = Decoder(DecoderConfig(tokenizer.vocab_size if quick else 50257, **(TINY if quick else SMALL), **GPT2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return Model(network.eval(), tokenizer, "a random GPT-2")


def integrated_gradients(quick: bool, runs: int) -> dict[str, dict[str, Any]]:
    """The figures by name.

    Args:
        quick: a tiny network, once, to see that all works.
        runs: how often each is timed.
    """
    runs, steps = (1, 8) if quick else (runs, STEPS)
    model = made(quick)
    ids = torch.randint(256, (TOKENS,), generator=torch.Generator().manual_seed(1)).tolist()
    with tempfile.TemporaryDirectory() as room:
        folder, ids_file = Path(room, "gpt2"), Path(room, "ids.json")
        save_model(model, folder, "huggingface", family="gpt2")
        ids_file.write_text(json.dumps(ids))
        peer = [_bench.peer_python("captum"), _bench.BENCH / "peers" / "captum_ig.py", folder, ids_file]
        options = [TOKEN, steps, runs, torch.get_num_threads()]
        done = subprocess.run([*map(str, peer), *map(str, options)], stdout=subprocess.PIPE, text=True, check=True)
        theirs = json.loads(done.stdout.splitlines()[-1])
    ours = []
    found = explain(model, ids, token=TOKEN, baseline="zero", steps=1)  # memory is mapped in, as captum's has been
    for _ in range(runs):
        started = time.perf_counter()
        found = explain(model, ids, token=TOKEN, baseline="zero", steps=steps)
        ours.append(time.perf_counter() - started)
    ids_and_scores = zip(found.scores, theirs["plain"]["scores"], strict=True)
    difference = max(abs(float(a or 0) - b) for a, b in ids_and_scores)
    size, gap = max(abs(float(a or 0)) for a in found.scores), found.receipt.gap or 0.0
    assert difference <= 1e-3 * size, f"the scores differ by {difference}"
    rounding = 1e-6 * sum(abs(float(a or 0)) for a in found.scores)
    assert gap <= 1.1 * theirs["plain"]["gap"] + rounding, f"{gap} against {theirs['plain']['gap']}"

    def against(way: str, goal: str, words: str) -> dict[str, Any]:
        seconds = theirs[way]["seconds"]
        return _bench.figure(
            [their / our for their, our in zip(seconds, ours, strict=True)],
            goal,
            cutaway=f"{sorted(ours)[runs // 2]:.2f} s, gap {gap:.1e}",
            peer=f"{sorted(seconds)[runs // 2]:.2f} s, gap {theirs[way]['gap']:.1e}",
            peer_name=words,
        )

    return {
        "integrated_gradients_vs_captum": against("plain", ">= 2", f"captum, {steps} steps"),
        "integrated_gradients_vs_captum_helped": against(
            "helped", ">= 1", "captum, transformers told to compute the last logits only, few steps at a time"
        ),
    }


if __name__ == "__main__":
    chosen = _bench.options(__doc__)
    figures = integrated_gradients(chosen.quick, chosen.runs)
    _bench.report("interp_attribution", figures, packages=["torch"], quick=True)
