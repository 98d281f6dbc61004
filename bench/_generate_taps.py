"""`tapped_share`: the speed of decoding 128 tokens while ten activations are recorded, over the speed without."""

from statistics import median
from typing import Any

import _bench
from _generate_engine import opened, timed
from _generate_speed import GOES_ON
from torch import Tensor

from cutaway.models import ActiveTap

NAMES = [
    *(f"layers.{i}.resid_post" for i in (4, 14, 24, 29)),
    *(f"layers.{i}.attn.pattern" for i in (10, 20)),
    *(f"layers.{i}.attn.z" for i in (10, 20)),
    *(f"layers.{i}.mlp.post" for i in (10, 20)),
]


def tapped(quick: bool, runs: int) -> dict[str, Any]:
    _, engine = opened()
    new = 32 if quick else 128
    timed(engine, GOES_ON, new)
    plain, recorded, kept = [], [], 0
    for _ in range(runs):
        plain.append(timed(engine, GOES_ON, new + 1))
        steps: list[tuple[str, Tensor]] = []
        tap = ActiveTap(NAMES, sink=lambda name, value, steps=steps: steps.append((name, value)))
        recorded.append(timed(engine, GOES_ON, new + 1, tap=tap))
        assert len(steps) == len(NAMES) * (new + 1), f"{len(steps)} activations were recorded"
        assert recorded[-1].made.ids == plain[-1].made.ids, "looking changed the tokens"
        kept = sum(value.numel() for _, value in steps)
    return {
        "tapped_share": _bench.figure(
            [tapped.decode / bare.decode for tapped, bare in zip(recorded, plain, strict=True)],
            ">= 0.8",
            cutaway=f"{median(one.decode for one in recorded):.0f} tokens/s with {len(NAMES)} names recorded "
            f"({kept / 1e6:.1f} million numbers), {median(one.decode for one in plain):.0f} without",
        )
    }
