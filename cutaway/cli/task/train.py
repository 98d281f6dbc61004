"""`cutaway task train`: from a user's file to a measured, servable model."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cutaway.cli._frame import harmless, live_progress
from cutaway.cli.task._shared import roles_of, settings_of, table_or_share
from cutaway.errors import ConfigError

OPTIONS = {"task": "the task", "start": "--from"}  # parameters that are called otherwise on the command line
POINTS = (0.1, 0.25, 0.5, 1.0)  # of a learning curve


def train(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="A task or a recipe: classify, moderation … (cutaway task list)")] = "",
    data: Annotated[
        str, typer.Option(help="A table (CSV, TSV, JSON lines, Parquet), or lines beside each other: en=FILE,de=FILE.")
    ] = "",
    out: Annotated[str, typer.Option("--out", "-o", help="The folder to make.")] = "",
    resume: Annotated[str, typer.Option(help="Go on with a training that was stopped, in this folder.")] = "",
    start: Annotated[str, typer.Option("--from", help="A checkpoint to begin with. [fresh weights]")] = "",
    how: Annotated[str, typer.Option(help="What of a checkpoint learns: full, head, lora or dora.")] = "full",
    domain: Annotated[
        list[str] | None, typer.Option(help="Raw text to go on pre-training with first: files, folders (repeat).")
    ] = None,
    kind: Annotated[str, typer.Option(help="Of fresh weights: gru, lstm, encoder or decoder.")] = "",
    valid: Annotated[str, typer.Option(help="A table of its own, or a share of the data.")] = "0.1",
    test: Annotated[
        str, typer.Option(help="A table of its own, or a share of the data; 0: nothing is measured.")
    ] = "0.1",
    column: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=COLUMN", help="Which column is what, where names do not say it.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Plan all of it to take so long.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the examples.")] = None,
    seeds: Annotated[int, typer.Option(help="Train so often; the best on validation data is kept.")] = 1,
    folds: Annotated[int, typer.Option(help="Cross-validate with so many parts as well.")] = 0,
    curve: Annotated[
        bool, typer.Option("--curve", help="Learn from 10, 25 and 50 % as well: a learning curve.")
    ] = False,
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting: lr=0.0001, task.balance=true …")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the division, the weights and the order.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a task's model on a file of yours, and measure it beside a simple baseline.

    Examples:
      cutaway task train classify --data reviews.csv --out model
      cutaway task train classify --data reviews.csv --from sentence-transformers/all-MiniLM-L6-v2 --out model
      cutaway task train classify --data train.tsv --test test.tsv --column text=utterance --minutes 5 --out model
      cutaway task train classify --data reviews.csv --from base --how lora --domain raw.txt --seeds 3 --out model
      cutaway task train --resume model
    """
    from rich.console import Console

    from cutaway.tasks import resume_task, train_task

    console = Console(highlight=False, stderr=True)

    def note(text: str) -> None:
        if not json:
            console.print(f"note: {harmless(text)}", markup=False)

    if resume:
        sources = {name: context.get_parameter_source(name) for name in context.params}
        said = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
        if other := next((name for name in said if name not in ("resume", "json")), ""):
            raise ConfigError(f"what is resumed goes on as it was begun; leave {OPTIONS.get(other, f'--{other}')} out")
        with live_progress(quiet=json) as progress:
            made = resume_task(resume, progress=progress, on_note=note)
    else:
        values = {
            "start": start,
            "how": how,
            "domain": domain or (),
            "kind": kind,
            "valid": table_or_share(valid),
            "test": table_or_share(test),
            "columns": roles_of(column),
            "minutes": minutes,
            "epochs": epochs,
            "seeds": seeds,
            "folds": folds,
            "curve": POINTS if curve else (),
            "seed": seed,
        }
        config = config_of(task, data, out, values, set)
        with live_progress(quiet=json) as progress:
            made = train_task(config, progress=progress, on_note=note)
    tell(made, json=json)


def tell(made: Any, *, json: bool) -> None:
    """Say what a training gave."""
    from rich.console import Console

    if json:
        report = made.report.to_json() if made.report else None
        about = {"folder": str(made.folder), "seconds": made.seconds, "notes": made.notes, "report": report}
        about |= {"repeated": made.repeated.to_json(), "trials": [asdict(one) for one in made.trials]}
        print(json_format.dumps(about | {"aside": [asdict(one) for one in made.data.aside]}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if made.trials:
        console.print(table_of(made.trials))
    if made.report is not None:
        console.print(made.report)
    if made.repeated:
        console.print(made.repeated)
    console.print(f"Wrote {made.folder}. Next: cutaway task predict {made.folder} new.csv", markup=False)


def table_of(trials: list[Any]) -> Any:
    """A search's trials, the best first."""
    from rich.table import Table

    table = Table(title="Trials, by validation data", title_justify="left", box=None)
    for name in ("trial", "figure", *trials[0].settings, "seconds"):
        table.add_column(name, justify="right")
    for one in sorted(trials, key=lambda one: (-one.figure, one.number)):
        values = [f"{value:.3g}" for value in one.settings.values()]
        table.add_row(str(one.number), f"{one.figure:.4f}", *values, f"{one.seconds:.0f}")
    return table


def config_of(task: str, data: str, out: str, values: dict[str, Any], words: list[str] | None) -> Any:
    """The TaskConfig of a command line.

    Raises:
        ConfigError: the task, its data or a place to write is missing, or a setting will not do.
    """
    from cutaway.tasks import TASKS, task_config

    if not task:
        raise ConfigError(f"say which task is to be learned ({', '.join(TASKS)}), or --resume FOLDER")
    for name, value in (("data", data), ("out", out)):
        if not value:
            raise ConfigError(f"--{name} is missing, as in: cutaway task train {task} --data reviews.csv --out model")
    settings = settings_of(words)
    of_task = settings.pop("task", {})
    named = {"name": task, **(of_task if isinstance(of_task, dict) else {})}
    return task_config({"task": named, "data": data, "out": out, **values, **settings})
