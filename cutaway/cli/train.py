"""`cutaway train`: texts in, a trained model out, with a live picture of the run."""

import json as json_format
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cutaway.cli._frame import live_progress
from cutaway.errors import ConfigError
from cutaway.progress import OnProgress, Progress
from cutaway.tokenizers.writer import STORE_JSON
from cutaway.training import OBJECTIVES, Run
from cutaway.training import resume as resume_run
from cutaway.training import train as train_run
from cutaway.training.config import parse_settings, read_settings, train_config
from cutaway.training.objectives import Objective, objective_from

LEVELS = "▁▂▃▄▅▆▇█"
CURVE = 60  # characters that the loss curve is wide


def train(
    data: Annotated[
        list[str] | None, typer.Argument(help="A corpus that cutaway prepare made; or texts, which are prepared first.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder to make.")] = Path("run"),
    minutes: Annotated[float | None, typer.Option("--minutes", "-m", help="Plan the run to take so long.")] = None,
    steps: Annotated[int | None, typer.Option(help="Or take so many steps.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(help=f"What to learn: {', '.join(OBJECTIVES)}. Its own settings: --set objective.rate=0.3"),
    ] = None,
    size: Annotated[int | None, typer.Option(help="The size dial: layers, of 64 channels each.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens that the model sees at once.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A JSON or TOML file with any settings of TrainConfig.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="Any setting: lr=0.01, network.width=256, optimizer=adamw (repeat)."),
    ] = None,
    sample: Annotated[list[str] | None, typer.Option(help="A prompt to continue at every evaluation (repeat).")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this run, bit for bit as if it never stopped.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, and nothing else.")] = False,
) -> None:
    """Train a language model, or an encoder or encoder–decoder, by one of several objectives.

    Examples:
      cutaway train corpus --out run --minutes 2
      cutaway train novel.txt --steps 500 --set optimizer=adamw --set lr=0.001  # from raw text
      cutaway train corpus --objective masked --minutes 5 --set objective.whole_words=true
      cutaway train --resume run                                                # go on with a run
    """
    dials = {"minutes": minutes, "steps": steps, "size": size, "context": context, "samples": sample}
    values = (read_settings(config) if config else {}) | {k: v for k, v in dials.items() if v is not None}
    given = parse_settings(settings or ())
    if objective is not None:  # the settings of an objective make no other of it
        own = given.get("objective", values.get("objective"))
        given["objective"] = {**own, "name": objective} if isinstance(own, dict) else objective
    values |= given
    quiet = json or os.environ.get("RANK", "0") != "0"
    if resume is not None:
        if len(data or ()) > 1:
            raise ConfigError("a resumed run reads one corpus; give its folder alone, if it has moved")
        changes: dict[str, Any] = values | ({"data": data[0]} if data else {})
        with _display(quiet=quiet) as show:
            run = resume_run(resume, progress=show.progress, on_sample=show.sample, on_note=show.note, **changes)
    else:
        learned = objective_from(values.get("objective", "causal"))
        corpus = values.pop("data", None) if not data else _corpus(data, out, learned, quiet=quiet)
        if corpus is None:
            raise ConfigError("give the texts or the corpus to train on, such as: cutaway train corpus --out run")
        values = {**values, "data": corpus, "out": str(out)}
        chosen = train_config(values, where=str(config or ""))
        if "samples" not in values and chosen.objective.counted and not quiet:
            chosen = replace(chosen, samples=("",))
        with _display(quiet=quiet) as show:
            run = train_run(chosen, progress=show.progress, on_sample=show.sample, on_note=show.note)
    if json:
        print(json_format.dumps({"folder": str(run.folder), **run.metrics, "notes": run.notes}, ensure_ascii=False))
    elif not quiet:
        _summary(run, Console())


def _corpus(data: list[str], out: Path, objective: Objective, *, quiet: bool) -> str:
    """The corpus given, or one made of the texts given, inside the run folder."""
    if len(data) == 1 and (Path(data[0]) / STORE_JSON).is_file():
        return data[0]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("several processes need a prepared corpus; make one first with: cutaway prepare TEXTS")
    if objective.data != "texts":
        raise ConfigError(f"{data[0]} is no prepared corpus; {objective.how_to_prepare()}")
    from cutaway.tokenizers import prepare  # reads documents; not needed where they are prepared

    with live_progress(quiet=quiet) as progress:
        made = prepare(data, out / "corpus", progress=progress)
    return str(made.folder)


def _summary(run: Run, console: Console) -> None:
    """What came out, and what to do with it."""
    m = run.metrics
    words = [f"{m['parameters']:,} parameters, {m['steps']:,} steps in {m['seconds'] / 60:.1f} minutes"]
    if "valid_loss" in m:
        figures = [f"{name.replace('_', ' ')} {m[name]:.3f}" for name in run.objective.shown]
        words += [", ".join([f"validation loss {m['valid_loss']:.3f} {run.objective.unit}", *figures])]
    if "ngram_loss" in m:
        share = m["better_than_ngram"]
        verdict = f"{abs(share):.0%} {'better' if share > 0 else 'worse'} than counting"
        words += [f"n-gram loss {m['ngram_loss']:.3f}, ours {m['valid_loss']:.3f}: {verdict}"]
    for line in words:
        console.print(line, markup=False, highlight=False)
    if run.objective.speaks:
        then = f'cutaway generate {run.folder} --prompt "…"'
    else:
        then = f"cutaway convert {run.folder} exported --to huggingface"
    console.print(f"Wrote {run.folder}. Next: {then}", markup=False, soft_wrap=True)


@contextmanager
def _display(*, quiet: bool) -> Iterator["_Display"]:
    """A live panel on a terminal, lines elsewhere, nothing if quiet."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        with live_progress(quiet=quiet) as progress:
            yield _Display(None, progress, quiet=quiet)
        return
    with Live(console=console, refresh_per_second=5, transient=False) as live:
        yield _Display(live, None)


class _Display:
    """Shows progress, samples and notes.

    Args:
        live: where the panel goes, on a terminal.
        other: what receives progress elsewhere.
        quiet: show nothing.
    """

    def __init__(self, live: Live | None, other: OnProgress | None, *, quiet: bool = False) -> None:
        self.live, self.other, self.quiet = live, other, quiet
        self.losses: list[float] = []
        self.last = ""  # the newest sample

    def progress(self, report: Progress) -> None:
        """Show one report."""
        if self.live is None:
            if self.other is not None:
                self.other(report)
            return
        if "loss" in report.figures:
            self.losses.append(float(str(report.figures["loss"])))
        self.live.update(Panel(Group(*self._rows(report)), title=report.stage, title_align="left", width=88))

    def note(self, text: str) -> None:
        """Show a choice and its reason."""
        if not self.quiet:
            self._print(f"· {text}")

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Show what the model writes now."""
        if self.live is not None:
            self.last = f"step {step:,}: {prompt}{text}"
        elif not self.quiet:
            self._print(f"step {step:,} writes: {prompt}{text}")

    def _print(self, text: str) -> None:
        if self.live is not None:
            self.live.console.print(escape(text), highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _rows(self, report: Progress) -> Iterator[Any]:
        figures = Table.grid(padding=(0, 2))
        shown = list(report.figures.items())
        for start in range(0, len(shown), 4):
            figures.add_row(*(f"[dim]{name}[/dim] {value}" for name, value in shown[start : start + 4]))
        if report.total:
            yield Text(f"step {report.done:,.0f} of {report.total:,.0f}")
            yield ProgressBar(total=report.total, completed=report.done, width=CURVE)
        yield figures
        if len(self.losses) > 1:
            yield Text(f"{curve(self.losses)}  loss {self.losses[0]:.2f} → {self.losses[-1]:.2f}", style="cyan")
        if self.last:
            yield Text(self.last, style="dim")


def curve(values: list[float], width: int = CURVE) -> str:
    """Numbers as a row of bars, each the mean of its share of them.

    >>> curve([4.0, 3.0, 2.0, 1.0], width=4)
    '█▆▃▁'
    """
    count = min(width, len(values))
    edges = [len(values) * i // count for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), max(means) - min(means) or 1.0
    return "".join(LEVELS[round((mean - low) / span * (len(LEVELS) - 1))] for mean in means)
