"""The speeds' receipt: greedy tokens of ten prompts, llama.cpp's (`llama-server`, temperature 0) and Cutaway's.

Both round activations to 8 bits on their way through the same matrices, but sum in another order, so where two tokens
are as likely they may part. `greedy_gap` is the largest gap, over the prompts, between llama.cpp's two likeliest logits
where the first token differs; 0 where none does.
"""

from typing import Any

import _bench
import _generate_peers as peers
from _generate_engine import opened, timed

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
    gaps, equal, said = [], 0, []
    with peers.llamacpp_server(peers.smollm2(), 512) as complete:
        for number, prompt in enumerate(prompts):
            ids = model.tokenizer.encode(prompt)
            theirs = complete(ids, new)
            ours = timed(engine, ids, new).made.ids
            apart = next((i for i, (a, (b, _)) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
            if apart is None:
                gaps.append(0.0)
                equal += 1
            else:
                (_, first), (_, second) = theirs[apart][1]
                gaps.append(first - second)
                said.append({"prompt": number, "token": apart, "gap": round(first - second, 3)})
    return {
        "greedy_gap": _bench.figure(
            [max(gaps)],
            "<= 0.2",
            cutaway=f"{equal} of {len(prompts)} prompts have the same {new} tokens",
            peer_name=peers.NAME,
            apart=said,
        )
    }
