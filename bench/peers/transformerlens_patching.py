"""TransformerLens: patch each head's z from a clean run into a corrupt one, with run_with_hooks in a loop.

    python transformerlens_patching.py FOLDER RUNS

FOLDER holds a GPT-2 as Hugging Face has it, and texts.json with clean, corrupt and answers as ids. Prints seconds and
effects.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path

import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module  # pyright: ignore[reportMissingImports]
from transformers import GPT2LMHeadModel

folder = Path(sys.argv[1])
texts = json.loads((folder / "texts.json").read_text())
clean, corrupt = (torch.tensor([texts[name]]) for name in ("clean", "corrupt"))
published = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
model = build_bridge_from_module(published, "GPT2LMHeadModel", hf_config=published.config)
layers, heads = published.config.n_layer, published.config.n_head


def put(z, hook, head, values):
    part = slice(head, head + 1)
    joined = z.ndim == 3  # heads beside each other
    mine, theirs = (x.unflatten(-1, (heads, -1)) if joined else x for x in (z, values))
    mine[:, :, part] = theirs[:, :, part]
    return z


def asked(logits):
    first, second = texts["answers"]
    return float(logits[0, -1, first] - logits[0, -1, second])


def sweep():
    _, cache = model.run_with_cache(clean, names_filter=lambda name: name.endswith("hook_z"))
    before = asked(model(corrupt))
    effects = []
    for layer in range(layers):
        for head in range(heads):
            name = f"blocks.{layer}.attn.hook_z"
            hook = (name, partial(put, head=head, values=cache[name]))
            effects.append(asked(model.run_with_hooks(corrupt, fwd_hooks=[hook])) - before)
    return effects


with torch.no_grad():
    model(corrupt)
    seconds, effects = [], []
    for _ in range(int(sys.argv[2])):
        start = time.perf_counter()
        effects = sweep()
        seconds.append(time.perf_counter() - start)
print(json.dumps({"seconds": seconds, "effects": effects}))
