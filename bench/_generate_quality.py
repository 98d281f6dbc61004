"""What few bits cost a model trained here: the growth of its perplexity, activations in 8 bits as in the kernels.

A small decoder learns for two minutes from the sources and documentation of the Python that runs this, as in `make
demo`; it is quantised without any calibration, and measured on validation tokens that it has never seen.
"""

import tempfile
from pathlib import Path
from typing import Any

import _bench

import cutaway
from cutaway.generation.quantize import compare, held_out, quantize, rows_of, with_rounded_activations
from cutaway.models import Decoder
from cutaway.training import TrainConfig

GOALS = {"int8": "<= 0.5", "int4": "<= 3"}
MINUTES, TOKENS = 2.0, 32_768


def quality(quick: bool, runs: int) -> dict[str, Any]:
    """int8_perplexity_loss_pct and int4_perplexity_loss_pct, of one training: it gives the same model each time."""
    with tempfile.TemporaryDirectory() as room:
        corpus, run = Path(room, "corpus"), Path(room, "run")
        cutaway.prepare("python:", corpus, vocab_size=4096)
        much: dict[str, Any] = {"steps": 60} if quick else {"minutes": MINUTES}
        config = TrainConfig(data=str(corpus), out=str(run), size=3, context=256, batch=8, baseline=False, **much)
        model = cutaway.train(config).model
        rows = rows_of(model, held_out(run, TOKENS // 8 if quick else TOKENS), most=TOKENS)
        figures = {}
        for kind, goal in GOALS.items():
            made = quantize(model, kind)
            assert isinstance(made.model.network, Decoder)
            found = compare(model.network, with_rounded_activations(made.model.network), rows, free=False)
            assert found.growth is not None
            report = made.report
            figures[f"{kind}_perplexity_loss_pct"] = _bench.figure(
                [found.growth],
                goal,
                cutaway=f"perplexity {found.perplexity_quantised:.4g}",
                peer=f"{found.perplexity:.4g}",
                peer_name="its float32 weights",
                tokens=found.tokens,
                same_likeliest_token=round(found.agreement or 0.0, 4),
                kl_nats_per_token=found.kl_mean,
                megabytes=[round(size / 1e6, 2) for size in (report.bytes_before, report.bytes_after)],
            )
    return figures
