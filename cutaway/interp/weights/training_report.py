"""All there is to see of a run in one result: what it recorded, what it wrote, what became of its insides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import ConfigError, InputError
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Cell, Curve, Panel, Result, Table
from cutaway.interp.weights.differences import at_least, code_of_run, folder_of
from cutaway.interp.weights.over_training import over_training
from cutaway.interp.weights.ridgelines import ridgelines
from cutaway.models import load_model
from cutaway.progress import OnProgress

if TYPE_CHECKING:
    from cutaway.training import Run

CURVES = {
    "loss": ("training loss", "nats per token"),
    "valid_loss": ("validation loss", "nats per token"),
    "bits_per_byte": ("bits per byte of the validation text", "bits"),
    "grad_norm": ("norm of the gradient, before clipping", "norm"),
    "lr": ("learning rate", "rate"),
    "tokens_per_second": ("speed", "tokens per second"),
}


def training_report(
    run: Run | str | Path, text: str = "", *, inside: bool = True, progress: OnProgress | None = None
) -> Panel:
    """A run from its first step to its last; `to_html` makes it one page.

    Args:
        run: a run, or its folder.
        text: whose tokens the logit lens reads at every checkpoint; "" leaves that out.
        inside: whether to look into the checkpoints: head scores and ridgelines. Without, only records are read.
        progress: told after each checkpoint.

    Returns:
        A panel of curves over steps (loss, validation loss beside that of the n-gram model, bits per byte, gradient
        norm, learning rate, speed), a table of samples, and the parts of `over_training` and `ridgelines`.

    Raises:
        InputError: no checkpoint, or nothing recorded.
        DamagedFile: a checkpoint's file does not match its checksum.
    """
    from cutaway.files import holds
    from cutaway.training.checkpoint import BASELINE, read_config, read_record
    from cutaway.training.metrics import read_metrics

    folder = folder_of(run)
    records = read_metrics(folder)
    if not records:
        raise InputError(f"{folder} has recorded nothing yet; let it take some steps")
    newest = at_least(folder, 1)[-1]
    clock = Clock(load_model(newest), "training_report")
    baseline = read_record(folder, BASELINE, loss=float)["loss"] if holds(folder, BASELINE) else None
    parts: dict[str, Result] = {}
    for figure, (title, unit) in CURVES.items():
        found: list[tuple[float, float]] = [(float(r["step"]), r[figure]) for r in records if figure in r]
        if found:
            steps, values = [step for step, _ in found], [value for _, value in found]
            lines: dict[str, list[float | None]] = {title: [*values]}
            if figure == "valid_loss" and baseline is not None:
                lines["n-gram model"] = [baseline] * len(steps)
            parts[figure.replace("_", " ")] = Curve(title, "step", unit, steps, lines, receipt=clock.receipt())
    rows: list[list[Cell]] = [[r["step"], r.get("prompt", ""), r["sample"]] for r in records if "sample" in r]
    if rows:
        parts["samples"] = Table("what it wrote", ["step", "prompt", "sample"], rows, receipt=clock.receipt())
    config, record = read_config(folder)
    notes = [*record["notes"]]
    if inside:
        for look in _looks(folder, text, progress, notes):
            parts |= look.parts
            notes += look.notes
    last: dict[str, Any] = {}
    for one in records:
        last |= one
    names = ("loss", "valid_loss", "bits_per_byte", "better_than_ngram")
    figures = {"steps": float(last["step"]), "planned steps": float(config.steps or 0)}
    figures |= {name.replace("_", " "): float(last[name]) for name in names if name in last}
    given = (f", {text!r}" if text else "") + ("" if inside else ", inside=False")
    receipt = replace(clock.receipt(), code=code_of_run("training_report", folder, given))
    return Panel(f"the training of {folder.name}", parts, notes, figures, receipt=receipt)


def _looks(folder: Path, text: str, progress: OnProgress | None, notes: list[str]) -> list[Panel]:
    """Head scores on random tokens that come twice, the lens of the text, ridgelines: those that the model has."""
    made = []
    scores = ("previous", "induction", "duplicate")
    try:
        made.append(_renamed(over_training(folder, scores=scores, lens=False, progress=progress), "repeated tokens"))
        if text:
            made.append(_renamed(over_training(folder, text, scores=(), progress=progress), "the text"))
    except ConfigError as error:  # a model that names no tokens
        notes.append(str(error))
    made.append(ridgelines(folder, progress=progress))
    return made


def _renamed(panel: Panel, what: str) -> Panel:
    """With a name for the loss that says of what it is."""
    return replace(panel, parts={(f"surprise at {what}" if k == "loss" else k): v for k, v in panel.parts.items()})
