"""The peer: captum's IntegratedGradients over the embeddings of transformers' GPT-2.

    python captum_ig.py FOLDER IDS.json TOKEN STEPS RUNS THREADS

Run by `bench/_interp_attribution.py`. FOLDER holds the weights as transformers reads them, IDS.json a list of ids. The
number explained is the logit of TOKEN at the last position, the baseline a zero vector for every token. Captum is run
as its documentation shows, and then with what a user who knows both libraries may add: transformers told to compute the
last position's logits only, and captum a few steps at a time. Prints one JSON object: of each way the seconds of each
run, the completeness gap, and the score of each token.
"""

import json
import sys
import time
from pathlib import Path

import torch
from captum.attr import IntegratedGradients  # pyright: ignore[reportMissingImports]  # of the peer's environment
from transformers import GPT2LMHeadModel

BATCH = 8  # steps at a time, where captum is told


def main() -> None:
    folder, ids_file, token, steps, runs, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([json.loads(Path(ids_file).read_text())])
    embedded = model.get_input_embeddings()(ids).detach()

    def everywhere(x: torch.Tensor) -> torch.Tensor:
        return model(inputs_embeds=x, use_cache=False).logits[:, -1, int(token)]

    def last_only(x: torch.Tensor) -> torch.Tensor:
        return model(inputs_embeds=x, use_cache=False, logits_to_keep=1).logits[:, -1, int(token)]

    found = {}
    for name, forward, batch in (("plain", everywhere, None), ("helped", last_only, BATCH)):
        explain, seconds, parts, gap = IntegratedGradients(forward), [], torch.empty(0), 0.0
        for _ in range(int(runs)):
            started = time.perf_counter()
            parts, gap = explain.attribute(
                embedded, n_steps=int(steps), internal_batch_size=batch, return_convergence_delta=True
            )
            seconds.append(time.perf_counter() - started)
        found[name] = {"seconds": seconds, "gap": abs(float(gap)), "scores": parts[0].sum(-1).tolist()}
    print(json.dumps(found))


main()
