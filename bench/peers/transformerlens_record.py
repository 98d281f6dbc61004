"""TransformerLens: run_with_cache ÷ forward, on a random model of GPT-2 small's shape at 128 tokens."""

import json
import sys
import time
from statistics import median

import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module  # pyright: ignore[reportMissingImports]
from transformers import GPT2Config, GPT2LMHeadModel

asked = json.loads(sys.argv[1])
torch.manual_seed(0)
published = GPT2LMHeadModel(GPT2Config()).eval()  # the defaults are those of GPT-2 small
model = build_bridge_from_module(published, "GPT2LMHeadModel", hf_config=published.config)
ids = torch.randint(0, 50257, (1, 128))
found = []
with torch.inference_mode():
    for _ in range(asked["runs"]):
        plain, cached = [], []
        for i in range(asked["rounds"] + 2):
            for times, call in ((plain, model), (cached, model.run_with_cache)):
                start = time.perf_counter()
                call(ids)
                if i >= 2:
                    times.append(time.perf_counter() - start)
        found.append(median(cached) / median(plain))
print(json.dumps(found))
