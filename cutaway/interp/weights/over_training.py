"""How what is inside a model came to be: scores of heads and layers over the checkpoints of a run.

Shapes: L layers, H heads, N checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, unknown
from cutaway.interp.attention.detectors import head_detectors
from cutaway.interp.attention.parts import heads_of
from cutaway.interp.attention.repeats import exam_of_repeats
from cutaway.interp.inputs import Text, forward, inputs_of
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Curve, Matrix, Panel, Result
from cutaway.interp.text.exam import Exam, exam_of, names_tokens, real_tokens
from cutaway.interp.weights.differences import at_least, code_of_run, folder_of, step_of
from cutaway.models import ActiveTap, Model, Recurrent, load_model
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

if TYPE_CHECKING:
    from cutaway.training import Run

SCORES = ("previous", "first", "duplicate", "induction", "next", "last", "same place")


@torch.no_grad()
def over_training(
    run: Run | str | Path,
    text: Text = "",
    *,
    source: Source | None = None,
    part: str | None = None,
    scores: str | tuple[str, ...] = ("previous", "induction"),
    lens: bool = True,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Panel:
    """Head scores, and the loss of each layer's logit lens, at every checkpoint of a run.

    A run keeps as many checkpoints as `TrainConfig.keep` says, at every `save_every` steps.

    Args:
        run: a run, or its folder.
        text: what each checkpoint reads; "" takes random tokens that come twice, as in `head_detectors`.
        source: what an encoder–decoder reads.
        part: "decoder", "encoder" or "cross", as in `attention`.
        scores: which of those of `head_detectors`; () for none.
        lens: whether to read the residual stream of every layer as if it were the last.
        seed: of random tokens and gaps.
        progress: told after each checkpoint.

    Returns:
        A panel of curves over steps: the loss, and the best head's score of each kind; and matrices with a row for each
        checkpoint: every head's score, and the bits of each layer's lens. A recurrent model has the loss alone.

    Raises:
        ConfigError: an unknown score; a run whose model names no tokens.
        InputError: no checkpoint, or as in `head_detectors`.
        DamagedFile: a checkpoint's file does not match its checksum.
    """
    wanted = [scores] if isinstance(scores, str) else list(scores)
    for score in wanted:
        if score not in SCORES:
            raise ConfigError(unknown("score of heads", str(score), SCORES))
    folder = folder_of(run)
    found = at_least(folder, 1)
    said = source if isinstance(source, str) else None
    asked = {"source": said, "part": part, "lens": None if lens else lens, "seed": seed or None}
    clock: Clock | None = None
    losses: list[float] = []
    lenses: list[list[float]] = []
    heads: dict[str, list[Tensor]] = {score: [] for score in wanted}
    layers = 0
    for number, place in enumerate(found):
        model = load_model(place)
        names_tokens(model, "a look over training")
        clock = clock or Clock(model, "over_training")
        exam = _exam(model, text, source, seed)
        losses.append(float(exam.losses(model)[exam.asked].double().mean()) / math.log(2))
        if not isinstance(model.network, Recurrent):
            layers = model.config.layers  # pyright: ignore[reportAttributeAccessIssue]
            if wanted:
                panel = head_detectors(model, text, source=source, part=part, causal=False, seed=seed)
                for score in wanted:
                    if score not in panel.parts:
                        raise ConfigError(f"the part {heads_of(model, part).part} has no score {score!r}")
                    heads[score].append(panel[score].values)  # pyright: ignore[reportAttributeAccessIssue]  # a Matrix
            if lens:
                lenses.append(_lens(model, exam, layers))
        if progress is not None:
            progress(Progress("checkpoints", number + 1, len(found), "checkpoints"))
    assert clock is not None
    receipt = replace(clock.receipt(seed=seed), code=code_of_run("over_training", folder, _given(text, wanted, asked)))
    steps = [step_of(place) for place in found]
    rows = [f"step {int(step)}" for step in steps]
    parts: dict[str, Result] = {
        "loss": Curve("surprise at what is asked", "step", "bits", steps, {"loss": [*losses]}, receipt=receipt)
    }
    curves: dict[str, list[float | None]] = {
        score: [_best(one) for one in values] for score, values in heads.items() if values
    }
    if curves:
        what = "the best head's share of its pattern"
        parts["best heads"] = Curve(what, "step", "share", steps, curves, receipt=receipt)
    for score, values in heads.items():
        if values:
            L, H = values[0].shape
            columns = [f"{layer}.{head}" for layer in range(L) for head in range(H)]
            table = torch.stack([one.flatten() for one in values])
            what = f"{score}: share of each head's pattern"
            axes = ("checkpoint", "layer.head")
            parts[score] = Matrix(what, "share", rows, columns, table, *axes, signed=False, receipt=receipt)
    if lenses:
        parts["lens"] = Matrix(
            "surprise at what is asked, if the stream is read there",
            "bits",
            rows,
            ["embedding", *(f"layer {i}" for i in range(layers))],
            torch.tensor(lenses, dtype=torch.float64),
            "checkpoint",
            "read after",
            signed=False,
            receipt=receipt,
        )
    notes = [] if layers else ["a recurrent model has neither heads nor a residual stream: this is its loss alone"]
    return Panel(f"{folder.name} over its training", parts, notes, {"last loss in bits": losses[-1]}, receipt=receipt)


def _exam(model: Model, text: Text, source: Source | None, seed: int) -> Exam:
    if isinstance(text, str) and not text:
        return exam_of_repeats(model, seed=seed)[0]
    inputs = inputs_of(model, text, source)
    return exam_of(model, inputs, real_tokens(inputs), seed)


def _lens(model: Model, exam: Exam, layers: int) -> list[float]:
    """Bits of what is asked, read out of the stream before the first layer and after each."""
    network: Any = model.network
    places = ["layers.0.resid_pre" if layers else "embed", *(f"layers.{i}.resid_post" for i in range(layers))]
    kept: dict[str, Tensor] = {}
    forward(model, exam.inputs, ActiveTap(places, sink=kept.__setitem__))
    bits = []
    for place in places:
        logits = network.read_out(kept[place])[exam.asked]
        bits.append(float(torch.nn.functional.cross_entropy(logits.double(), exam.targets[exam.asked])) / math.log(2))
    return bits


def _best(scores: Tensor) -> float | None:
    """The largest of the heads' scores; None where the text has no place at which there is one."""
    known = scores[~scores.isnan()]
    return float(known.max()) if len(known) else None


def _given(text: Text, scores: list[str], asked: Mapping[str, Any]) -> str:
    said = f", {text!r}" if isinstance(text, str) and text else ""
    more = "".join(f", {name}={value!r}" for name, value in asked.items() if value is not None)
    return f"{said}, scores={tuple(scores)!r}{more}"
