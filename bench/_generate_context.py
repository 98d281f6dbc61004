"""What a long context costs.

`context_cost` is the time of a new token behind 4,096 tokens, over that of one behind a single token and the time in
which the memory, at the bandwidth measured beside it, delivers the keys and values of 4,096 tokens. 32 new tokens each.
"""

from statistics import median
from typing import Any

import _bench
import _generate_peers as peers
from _generate_engine import opened, text_ids, timed


def context(quick: bool, runs: int) -> dict[str, Any]:
    file, held, new = peers.smollm2(), 512 if quick else 4096, 32
    model, engine = opened()
    ids = text_ids(model)
    assert engine.backend.page, "without pages there is no cost of a cache to state"
    cached = engine.backend.page_bytes / engine.backend.page * held
    timed(engine, ids[:1], new)
    costs, near, far, peer = [], [], [], []
    for _ in range(runs):
        memory = peers.bandwidth()
        near.append(1 / timed(engine, ids[:1], new + 1).decode)
        far.append(1 / timed(engine, ids[:held], new + 1).decode)
        costs.append(far[-1] / (near[-1] + cached / memory))
        speeds = [peers.llamacpp_speed(file, new=new, held=n) for n in (0, held)]
        peer.append(1 / speeds[1] / (1 / speeds[0] + cached / memory))
    return {
        "context_cost": _bench.figure(
            costs,
            "<= 1.3",
            cutaway=f"{1e3 * median(near):.2f} ms, behind {held:,} tokens {1e3 * median(far):.2f} ms",
            peer=f"{median(peer):.3g}",
            peer_name=f"{peers.NAME}, its cache as large ({cached / 1e6:.0f} MB)",
        )
    }
