"""Looking inside: what it costs, and against TransformerLens, captum and sae-lens on equal models and equal work.

Each peer runs in an environment of its own. A random model of GPT-2 small's shape, float32, 128 tokens, unless said.
"""

import _bench
import _interp_attribution
import _interp_features
import _interp_patching
import _interp_record

options = _bench.options(__doc__)
figures = {}
measures = (
    _interp_record.recording,
    _interp_record.memory,
    _interp_patching.patch_sweep,
    _interp_attribution.integrated_gradients,
    _interp_features.sparse_autoencoder,
)
for measure in measures:
    if options.only in measure.__name__:
        figures |= measure(options.quick, 1 if options.quick else options.runs)
_bench.report("interp", figures, packages=["torch"], quick=options.quick, keep=bool(options.only))
