"""The speeds' receipt: greedy tokens of ten prompts, by llama.cpp, by Cutaway as it is timed, and computed in float32.

llama.cpp (`llama-server`, temperature 0) and Cutaway both round activations to 8 bits on their way through the same
matrices, each in its own order, so where two tokens are about as likely they may part. `greedy_gap`: where they first
part, how far the two tokens are apart in float32, over the most that the rounding to 8 bits moves the two likeliest
tokens against each other in these texts; above 1, rounding does not explain it. `greedy_exact`: of the prompts, the
share with the very tokens of float32 (torch, on the matrices as numbers) when activations are rounded to 16 bits.
"""

from typing import Any

import _bench
import _generate_peers as peers
import torch
from _generate_engine import opened, timed

from cutaway.generation.backend import Rows
from cutaway.generation.engine import Engine
from cutaway.generation.native.backend import NativeBackend
from cutaway.models import load_model

PROMPTS = [
    "The capital of France is",
    "Once upon a time, there was a little robot who",
    "def fibonacci(n):\n    ",
    "import os\nimport sys\n\n\nclass Reader:\n",
    "Q: What is the largest planet?\nA:",
    "In 1969, the first humans",
    "Water boils at",
    "To make a good cup of tea, you should first",
    "The three primary colours are",
    "Dear Sir or Madam,\n\n",
]


def same(quick: bool, runs: int) -> dict[str, Any]:
    prompts, new = PROMPTS[: 2 if quick else None], 64
    model, engine = opened()
    exact = load_model(peers.smollm2(), quantised=False)
    float32 = Engine(exact, backend="torch")
    sixteen = Engine(model, backend="native", rounding="sixteen", cache="float32")
    native = NativeBackend(model.network)
    native.reserve(4)
    apart, moved, equal, right = [], 0.0, 0, 0
    with peers.llamacpp_server(peers.smollm2(), 512) as complete:
        for number, prompt in enumerate(prompts):
            ids = model.tokenizer.encode(prompt)
            theirs = [token for token, _ in complete(ids, new)]
            ours = timed(engine, ids, new).made.ids
            right += timed(sixteen, ids, new).made.ids == timed(float32, ids, new).made.ids
            text, start = ids + theirs, len(ids) - 1
            true = exact.logits(text)[0, start:]
            with torch.inference_mode():
                rows = [Rows(number, text, 0, [0, 1, 2, 3], wanted=len(text) - start)]
                rounded = native.step(rows).values
            pair = true.topk(2).indices
            change = rounded.gather(1, pair).diff() - true.gather(1, pair).diff()
            moved = max(moved, float(change.abs().max()))
            parts = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
            equal += parts is None
            if parts is not None:
                gap = abs(float(true[parts, ours[parts]] - true[parts, theirs[parts]]))
                apart.append({"prompt": number, "token": parts, "gap": round(gap, 3)})
    worst = max((one["gap"] for one in apart), default=0.0)
    return {
        "greedy_gap": _bench.figure(
            [worst / moved],
            "<= 1",
            cutaway=f"{equal} of {len(prompts)} prompts have the same {new} tokens; the others part where float32 has "
            f"the two tokens at most {worst:.2f} apart, and rounding to 8 bits moves two tokens by up to {moved:.2f}",
            peer_name=peers.NAME,
            apart=apart,
        ),
        "greedy_exact": _bench.figure(
            [right / len(prompts)],
            ">= 1",
            cutaway=f"{right} of {len(prompts)} prompts have float32's {new} tokens, with activations in 16 bits",
        ),
    }
