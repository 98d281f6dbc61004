"""Integrated gradients against captum's: the same random GPT-2, text, number, baseline and rule.

The network is of GPT-2 small's size with random weights; transformers opens what Cutaway writes of it, since that is
what captum's users have. Both integrate the gradient of the last position's logit from a zero vector for every token,
with Gauss–Legendre nodes (captum's own default), in float32, on as many threads, each library with its own network.

- `integrated_gradients_vs_captum` is captum's time with 64 steps over Cutaway's time to the same completeness gap:
  Cutaway takes 4, 8, 16 … steps until it is reached, and 64 at most.
- `integrated_gradients_same_steps` is the same with 64 steps on both sides.
- `integrated_gradients_same_steps_helped`: there captum's user also knows to tell transformers to compute only the last
  logits, and captum to take a few steps at a time, which Cutaway does by itself.

Captum is otherwise used as its documentation shows. The scores must be the same, and Cutaway's gap no larger but for
float32's rounding of their sum, or there is no figure.
"""

from __future__ import annotations

import json
import statistics
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
    their_gap = theirs["plain"]["gap"]
    found = explain(model, ids, token=TOKEN, baseline="zero", steps=2)  # memory is mapped in, as captum's has been
    rounding = 1e-6 * sum(abs(score or 0) for score in found.scores)
    enough = max(their_gap, rounding) / abs(found.value - (found.baseline or 0))
    ours: dict[str, list[float]] = {"same gap": [], "same steps": []}
    made_by = {}
    for way, tolerance in (("same gap", enough), ("same steps", 0.0)):
        for _ in range(runs):
            started = time.perf_counter()
            made_by[way] = explain(model, ids, token=TOKEN, baseline="zero", steps=steps, tolerance=tolerance)
            ours[way].append(time.perf_counter() - started)
        gap = made_by[way].receipt.gap or 0.0
        assert gap <= their_gap + rounding, f"{way}: the gap is {gap}, captum's {their_gap}"
        pairs = zip(made_by[way].scores, theirs["plain"]["scores"], strict=True)
        size, difference = max(map(abs, theirs["plain"]["scores"])), max(abs((a or 0) - b) for a, b in pairs)
        assert difference <= 1e-3 * size, f"{way}: the scores differ by {difference}"

    def against(way: str, peer: str, goal: str, words: str) -> dict[str, Any]:
        seconds = theirs[peer]["seconds"]
        return _bench.figure(
            [their / our for their, our in zip(seconds, ours[way], strict=True)],
            goal,
            cutaway=f"{statistics.median(ours[way]):.2f} s, {made_by[way].what}, gap {made_by[way].receipt.gap:.1e}",
            peer=f"{statistics.median(seconds):.2f} s, {steps} steps, gap {theirs[peer]['gap']:.1e}",
            peer_name=words,
        )

    helped = "captum, told to take few steps at a time, transformers to compute the last logits only"
    return {
        "integrated_gradients_vs_captum": against("same gap", "plain", ">= 2", "captum"),
        "integrated_gradients_same_steps": against("same steps", "plain", ">= 1", "captum"),
        "integrated_gradients_same_steps_helped": against("same steps", "helped", ">= 0.9", helped),
    }


if __name__ == "__main__":
    chosen = _bench.options(__doc__)
    figures = integrated_gradients(chosen.quick, chosen.runs)
    _bench.report("interp_attribution", figures, packages=["torch"], quick=True)
