"""`cutaway task train`: from a user's file to a measured, servable model."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from typing import Annotated

import typer

from cutaway.cli._frame import harmless, live_progress
from cutaway.cli.task._shared import roles_of, settings_of, table_or_share


def train(
    task: Annotated[str, typer.Argument(help="A task or a recipe: classify, moderation … (cutaway task list)")],
    data: Annotated[str, typer.Option(help="A table: CSV, TSV, JSON lines or Parquet.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The folder to make.")],
    start: Annotated[str, typer.Option("--from", help="A checkpoint to begin with. [fresh weights]")] = "",
    valid: Annotated[str, typer.Option(help="A table of its own, or a share of the data.")] = "0.1",
    test: Annotated[
        str, typer.Option(help="A table of its own, or a share of the data; 0: nothing is measured.")
    ] = "0.1",
    column: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=COLUMN", help="Which column is what, where names do not say it.")
    ] = None,
    how: Annotated[str, typer.Option(help="Of a checkpoint: full, head, lora or dora.")] = "full",
    minutes: Annotated[float | None, typer.Option(help="Plan the training to take so long.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the examples.")] = None,
    kind: Annotated[str, typer.Option(help="Of fresh weights: encoder, decoder or gru.")] = "",
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
    """
    from rich.console import Console

    from cutaway.tasks import task_config, train_task

    settings = settings_of(set)
    of_task = settings.pop("task", {})
    values = {
        "task": {"name": task, **(of_task if isinstance(of_task, dict) else {})},
        "data": data,
        "out": out,
        "start": start,
        "valid": table_or_share(valid),
        "test": table_or_share(test),
        "columns": roles_of(column),
        "how": how,
        "minutes": minutes,
        "epochs": epochs,
        "kind": kind,
        "seed": seed,
        **settings,
    }
    config = task_config(values)
    console = Console(highlight=False, stderr=True)

    def note(text: str) -> None:
        if not json:
            console.print(f"note: {harmless(text)}", markup=False)

    with live_progress(quiet=json) as progress:
        made = train_task(config, progress=progress, on_note=note)
    if json:
        report = made.report.to_json() if made.report else None
        about = {"folder": str(made.folder), "seconds": made.seconds, "notes": made.notes, "report": report}
        print(json_format.dumps({**about, "aside": [asdict(one) for one in made.data.aside]}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if made.report is not None:
        console.print(made.report)
    console.print(f"Wrote {made.folder}. Next: cutaway task predict {made.folder} new.csv", markup=False)
