"""`cutaway task tune`: search the settings of a task's training, then train with the best."""

from __future__ import annotations

from typing import Annotated

import typer

from cutaway.cli._frame import harmless, live_progress
from cutaway.cli.task._shared import roles_of, settings_of, table_or_share
from cutaway.cli.task.train import config_of, tell

MANY = 1000  # trials, where time is what ends them


def tune(
    task: Annotated[str, typer.Argument(help="A task or a recipe: classify, moderation … (cutaway task list)")],
    data: Annotated[
        str, typer.Option(help="A table (CSV, TSV, JSON lines, Parquet), or lines beside each other: en=FILE,de=FILE.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="The folder to make.")],
    trials: Annotated[
        int | None, typer.Option(help="How many settings are tried. [20, or what --minutes allow]")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="For all of it, the last training included.")] = None,
    start: Annotated[str, typer.Option("--from", help="A checkpoint to begin with. [fresh weights]")] = "",
    how: Annotated[str, typer.Option(help="What of a checkpoint learns: full, head, lora or dora.")] = "full",
    kind: Annotated[str, typer.Option(help="Of fresh weights: gru, lstm, encoder or decoder.")] = "",
    valid: Annotated[str, typer.Option(help="A table of its own, or a share of the data: what chooses.")] = "0.1",
    test: Annotated[str, typer.Option(help="The same, which no trial looks at; 0: nothing is measured.")] = "0.1",
    column: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=COLUMN", help="Which column is what, where names do not say it.")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; it is not searched then.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the division, the weights, the order and the search.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Search the settings of a task's training (rate, epochs, batch, dropout …), and train with the best.

    What is stopped goes on with cutaway task train --resume FOLDER.

    Examples:
      cutaway task tune classify --data reviews.csv --from sentence-transformers/all-MiniLM-L6-v2 --out model
      cutaway task tune classify --data reviews.csv --minutes 30 --set batch=16 --out model
    """
    from rich.console import Console

    from cutaway.tasks import train_task
    from cutaway.tasks.config import SEARCHED

    given = settings_of(set)
    values = {
        "start": start,
        "how": how,
        "kind": kind,
        "valid": table_or_share(valid),
        "test": table_or_share(test),
        "columns": roles_of(column),
        "minutes": minutes,
        "trials": trials or (MANY if minutes else 20),
        "search": [name for name in SEARCHED if name not in given],
        "seed": seed,
    }
    config = config_of(task, data, out, values, set)
    console = Console(highlight=False, stderr=True)

    def note(text: str) -> None:
        if not json:
            console.print(f"note: {harmless(text)}", markup=False)

    with live_progress(quiet=json) as progress:
        made = train_task(config, progress=progress, on_note=note)
    tell(made, json=json)
