"""The Jacobian lens: what a layer's stream does to the last one, on average and to first order.

Shapes: R copies of a text, T tokens, P directions, L places of the stream, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError, NonFinite, unknown
from cutaway.interp.frozen import TOKENS_AT_ONCE, frozen
from cutaway.interp.inputs import Text, forward, inputs_of
from cutaway.interp.lenses.stream import fingerprint, places, reader
from cutaway.interp.lenses.translators import Translators, read_lens
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, started
from cutaway.interp.results import Lens
from cutaway.models import ActiveTap, Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

TARGETS = ("later", "same")


def average_jacobians(
    stream: Callable[[int], Sequence[Tensor]],
    positions: Bool[Tensor, " T"],
    *,
    targets: str = "later",
    probes: int | None = None,
    at_once: int = 16,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "L C C"]:
    """The derivative of the last stream with respect to each stream, averaged over positions, of anything with streams.

    Args:
        stream: from a number of copies R to the streams of one text, (R, T, C) each, which autograd connects.
        positions: (T,) which positions count.
        targets: "later" adds up the effect on the position itself and all later ones; "same" is on the position itself.
        probes: None computes each row of the Jacobian; a number draws so many random directions instead, of which the
            mean is the same and the noise falls with the root of their number.
        at_once: directions at a time.
        generator: of positions ("same" takes one of each text) and directions.

    Returns:
        (L, C, C), of the last stream the identity.
    """
    copies = list(stream(at_once))
    final, T, C = copies[-1], copies[-1].shape[1], copies[-1].shape[2]
    if probes is None:
        directions = torch.eye(C)
    else:  # Hutchinson's: the mean of v vᵀ is the identity
        directions = torch.randint(0, 2, (probes, C), generator=generator).float() * 2 - 1
    if targets == "same":
        real = positions.nonzero().flatten()
        chosen = torch.zeros(T, dtype=torch.bool)
        chosen[real[torch.randint(len(real), (1,), generator=generator)]] = True
    else:
        chosen = positions
    here = chosen.to(final)
    found = final.new_zeros(len(copies), C, C)
    for some in directions.to(final).split(at_once):
        full = torch.zeros(at_once, C).to(final)
        full[: len(some)] = some
        slopes = torch.autograd.grad(
            final, copies, here[:, None] * full[:, None], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for place, slope in enumerate(slopes):
            mean = (slope * here[:, None]).sum(1) / here.sum()  # (R, C)
            found[place] += full.T @ mean
    return (found if probes is None else found / probes).float().cpu()


def fit_jacobian_lens(
    model: Model,
    texts: Sequence[Text],
    *,
    sources: Sequence[Source] | None = None,
    targets: str = "later",
    skip: int = 4,
    probes: int | None = None,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Translators:
    """Fit a Jacobian lens (Gurnee, Sofroniew, Lindsey et al. 2026, Verbalizable Representations … in Language Models).

    lens(h) reads J h through the model's own norm and output matrix, where J is the average over texts and positions of
    the derivative of the last layer's stream with respect to this layer's. With J = 1 it is the logit lens. Each text
    takes one pass forward and C / R back, of which the copies R are as many as fit into the processor's cache.

    Args:
        model: what is read.
        texts: to average over; the paper takes a hundred to a thousand of 128 tokens.
        sources: what an encoder–decoder reads for each text.
        targets: "later": the effect on the position itself and all later ones, added up, as in the paper; "same": on
            the position itself, of one drawn position of each text.
        skip: first positions of each text that do not count: they take in attention that means nothing (sinks). The
            paper leaves out 16.
        probes: random directions for each text in place of all C rows: less time, more noise.
        seed: of positions and directions.
        progress: told after each text.

    Raises:
        ConfigError: as in `logit_lens`, or an unknown kind of targets.
        InputError: no texts, or one that is not longer than `skip`.
        NonFinite: a derivative is not finite.
    """
    reader(model, "a Jacobian lens")
    if targets not in TARGETS:
        raise ConfigError(unknown("targets", targets, TARGETS))
    if probes is not None and probes < 1:
        raise InputError(f"probes must be at least 1, but {probes} was given")
    if isinstance(texts, str | Tensor) or not len(texts):
        raise InputError("give a list of texts, even of one")
    if sources is not None and len(sources) != len(texts):
        raise InputError(f"{len(texts)} texts with {len(sources)} sources were given; give one source for each text")
    run, generator = frozen(model), torch.Generator().manual_seed(seed)
    total: Tensor | None = None
    for number, text in enumerate(texts):
        inputs = inputs_of(run, text, None if sources is None else sources[number]).rows(0, 1)
        T = inputs.ids.shape[1]
        real = torch.ones(T, dtype=torch.bool) if inputs.mask is None else inputs.mask[0].cpu()
        counted = real & (real.cumsum(0) > skip)
        if not counted.any():
            raise InputError(
                f"text {number} has {int(real.sum())} tokens, of which the first {skip} are left out; "
                "give longer texts or a smaller skip"
            )

        def stream(copies: int, inputs=inputs) -> list[Tensor]:
            kept: dict[str, Tensor] = {}
            with torch.enable_grad():
                forward(run, inputs.repeat(copies), ActiveTap(places(run), started(run, {}), kept.__setitem__))
            return [kept[place] for place in places(run)]

        at_once = max(1, min(getattr(run.config, "width", 1), probes or 2**30, TOKENS_AT_ONCE // T))
        found = average_jacobians(stream, counted, targets=targets, probes=probes, at_once=at_once, generator=generator)
        total = found if total is None else total + found
        if progress is not None:
            progress(Progress("fitting the lens", number + 1, len(texts), "texts"))
    assert total is not None
    matrices = total / len(texts)
    if not matrices.isfinite().all():
        raise NonFinite("a derivative of the last stream is a NaN or an infinity; look at the model's weights")
    about = {"texts": len(texts), "targets": targets, "skip": skip, "probes": probes, "seed": seed}
    return Translators("jacobian", matrices, torch.zeros(matrices.shape[:2]), fingerprint(model), about)


def jacobian_lens(
    model: Recording | Model,
    text: Text = "",
    lens: Translators | str | Path | None = None,
    *,
    source: Source | None = None,
    top: int = 5,
    token: str | int | None = None,
    progress: OnProgress | None = None,
) -> Lens:
    """What each layer's stream disposes the model to say, now and later, through a Jacobian lens.

    Args:
        model: what the lens was fitted to, with a text, or a recording of one.
        text: of several texts the first.
        lens: from `fit_jacobian_lens`, or the file in which it was saved; None fits one to this text alone, which says
            little of other texts.
        source: what an encoder–decoder reads; the text is its target.
        top: how many tokens of each cell to name.
        token: whose rank and probability each cell tells, as text or id; None: the one that came next.
        progress: told after each row.

    Raises:
        ConfigError, InputError, DamagedFile: as in `read_lens` and `fit_jacobian_lens`.
    """
    run, recorded = (model.model, True) if isinstance(model, Recording) else (model, False)
    clock = Clock(run, "jacobian_lens", model if recorded else text, source=source, top=top, token=token)
    fitted = lens
    if fitted is None:
        inputs = model.inputs if isinstance(model, Recording) else inputs_of(run, text, source)
        fitted = fit_jacobian_lens(run, [inputs.rows(0, 1)], skip=0, progress=progress)
    options: dict[str, Any] = {"source": source, "top": top, "token": token, "function": "jacobian_lens"}
    found = read_lens(model, text, fitted, **options, progress=progress)
    if lens is not None:
        return found
    known = found.receipt  # which would name a lens that is not there, and not count the time of fitting it
    return replace(found, receipt=clock.receipt(difference=known.difference, bytes=known.bytes))
