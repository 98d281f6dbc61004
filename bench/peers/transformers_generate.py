"""transformers' side of `bench/generate.py`: a GGUF file dequantised to bfloat16; prints seconds as JSON.

python transformers_generate.py prefill FILE THREADS TOKENS      seconds to the logits behind a prompt, the best of 5
python transformers_generate.py decode FILE THREADS TOKENS       tokens per second, greedy
python transformers_generate.py first FILE THREADS PROMPT        makes one token; its whole process is timed
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    what, path, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    options: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    model: Any = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.bfloat16, **options).eval()
    with torch.inference_mode():
        if what == "first":
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
            made = model.generate(**tokenizer(sys.argv[4], return_tensors="pt"), max_new_tokens=1, do_sample=False)
            print(json.dumps({"text": tokenizer.decode(made[0])}))
            return
        count = int(sys.argv[4])
        ids = torch.randint(100, 40_000, (1, count if what == "prefill" else 1))
        seconds = []
        for _ in range(5 if what == "prefill" else 1):
            start = time.perf_counter()
            if what == "prefill":
                model(ids, use_cache=True, logits_to_keep=1)
            else:
                model.generate(ids, max_new_tokens=count, min_new_tokens=count, do_sample=False)
            seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": min(seconds)}))


main()
