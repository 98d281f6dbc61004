"""TransformerLens: run_with_cache ÷ forward, on a random model of GPT-2 small's shape at 128 tokens."""

import json
import sys
import time
from statistics import median

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig  # pyright: ignore[reportMissingImports]

asked = json.loads(sys.argv[1])
torch.manual_seed(0)
config = HookedTransformerConfig(
    n_layers=12,
    d_model=768,
    n_ctx=1024,
    d_head=64,
    n_heads=12,
    d_mlp=3072,
    d_vocab=50257,
    act_fn="gelu_new",
    normalization_type="LN",
    seed=0,
    device="cpu",
)
model = HookedTransformer(config).eval()
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
