"""llama.cpp's side of `bench/export.py`: reads a job as JSON from stdin, prints what it made as JSON.

The job: {"file": a .gguf, "texts": […], "prompts": [[ids] …], "count": tokens to make, "context": …}. All in float32
where llama.cpp can: also the cache of keys and values, which is float16 by default.
"""

import json
import sys

import llama_cpp  # pyright: ignore[reportMissingImports]
import numpy as np

F32 = 0  # ggml's number for the type


def main() -> None:
    job = json.load(sys.stdin)
    model = llama_cpp.Llama(
        job["file"],
        n_ctx=job["context"],
        n_threads=1,  # threads that wait for each other crawl where others compute too; this is no race
        n_threads_batch=1,
        type_k=F32,
        type_v=F32,
        flash_attn=False,
        logits_all=False,
        verbose=False,
    )
    ids = [model.tokenize(text.encode(), add_bos=False, special=False) for text in job["texts"]]
    made = []
    for prompt in job["prompts"]:
        model.reset()
        model.eval(prompt)
        tokens = []
        for _ in range(job["count"]):
            logits = llama_cpp.llama_get_logits(model.ctx)
            tokens.append(int(np.argmax(np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)))))
            model.eval(tokens[-1:])
        made.append(tokens)
    print(json.dumps({"ids": ids, "made": made}))


main()
