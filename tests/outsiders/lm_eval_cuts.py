"""Run by lm-eval's own Python: where it cuts contexts and continuations, with a server's tokenizer.

Reads [[context, continuation], …] as JSON from standard input, and writes [[ids, ids], …].
"""

import json
import sys

from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
from lm_eval.models.openai_completions import LocalCompletionsAPI  # pyright: ignore[reportMissingImports]


class Cuts(LocalCompletionsAPI):
    """Asks nothing, but keeps what it would ask."""

    def _loglikelihood_tokens(self, requests, **kwargs):
        return [(context, continuation) for _, context, continuation in requests]


model = Cuts(base_url=f"{sys.argv[1]}/v1/completions", tokenizer_backend="remote", model=sys.argv[2])
asked = [Instance("loglikelihood", {}, tuple(pair), 0) for pair in json.load(sys.stdin)]
print(json.dumps(model.loglikelihood(asked, disable_tqdm=True)))
