"""The peer: transformers' GPT2LMHeadModel trained with nanoGPT's published CPU recipe on tiny Shakespeare.

The recipe is the one in nanoGPT's README ("I only have a macbook"): 4 layers, 4 heads, width 128, context 64, batch 12,
2,000 steps, AdamW 1e-3 to 1e-4 by a cosine after 100 steps of warm-up, betas 0.9 / 0.99, weight decay 0.1 on matrices,
clip 1.0, no dropout. Prints one JSON object: seconds of training, full-validation loss, parameters.

    python gpt2_recipe.py TEXT STEPS
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

CONTEXT, BATCH, WARMUP, HIGH, LOW = 64, 12, 100, 1e-3, 1e-4


def rate(step: int, steps: int) -> float:
    if step < WARMUP:
        return HIGH * (step + 1) / (WARMUP + 1)
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return LOW + (HIGH - LOW) * 0.5 * (1 + math.cos(math.pi * done))


def main(path: str, steps: int) -> None:
    text = Path(path).read_text("utf-8")
    letters = {letter: i for i, letter in enumerate(sorted(set(text)))}
    ids = torch.tensor([letters[letter] for letter in text])
    cut = int(0.9 * len(ids))
    train, valid = ids[:cut], ids[cut:]
    torch.manual_seed(0)
    shape = {"n_positions": CONTEXT, "n_embd": 128, "n_layer": 4, "n_head": 4}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(letters), **shape, **off))
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=HIGH, betas=(0.9, 0.99))
    places = torch.arange(CONTEXT)
    model.train()
    start = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        x = torch.randint(len(train) - CONTEXT, (BATCH, 1)) + places
        logits = model(train[x]).logits
        cross_entropy(logits.view(-1, len(letters)), train[x + 1].view(-1)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - start
    model.eval()
    total, windows = 0.0, (len(valid) - 1) // CONTEXT
    with torch.no_grad():
        for first in range(0, windows, 128):
            x = torch.arange(first, min(first + 128, windows))[:, None] * CONTEXT + places
            logits = model(valid[x]).logits
            total += cross_entropy(logits.view(-1, len(letters)), valid[x + 1].view(-1), reduction="sum").item()
    parameters = sum(p.numel() for p in model.parameters())
    print(json.dumps({"seconds": seconds, "loss": total / (windows * CONTEXT), "parameters": parameters}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
