"""The learning rate as a pure function of the step, so that a resumed run has nothing to remember."""

import math


def lr_scale(
    step: int, steps: int, *, kind: str = "wsd", warmup: int = 0, cooldown: float = 0.5, final: float = 0.0
) -> float:
    """The share of the peak learning rate that step number `step` (from 0) is taken with.

    Args:
        step: 0 … steps - 1.
        steps: length of the run.
        kind: "constant"; "cosine", half a cosine from 1 to `final` (Loshchilov & Hutter 2017); or "wsd", warm-up,
            stable, then a straight line to `final` (Zhai et al. 2022; Hu et al. 2024), which allows a run to be
            continued from its stable part.
        warmup: steps of linear rise before it, the first of them at 1 / warmup.
        cooldown: share of the steps in which "wsd" falls.
        final: the share reached at the end.
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    if kind == "cosine":
        progress = (step - warmup) / max(1, steps - warmup)
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
    start = max(warmup, steps - round(cooldown * steps))
    if step < start:
        return 1.0
    return 1 - (1 - final) * (step - start + 1) / (steps - start + 1)
