"""`cutaway task evaluate`: how good a task's model is on a file with the truth."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from cutaway.cli._frame import live_progress
from cutaway.cli.task._shared import Base, roles_of


def evaluate(
    model: Annotated[str, typer.Argument(help="A folder that cutaway task train has made.")],
    file: Annotated[str, typer.Argument(help="A table with the truth beside each row.")],
    column: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=COLUMN", help="Which column is what, where names do not say it.")
    ] = None,
    compare: Annotated[
        str, typer.Option(metavar="MODEL", help="Another model of the same task, asked about the same rows.")
    ] = "",
    html: Annotated[
        Path | None, typer.Option(help="Write all of it as one page that opens offline.", dir_okay=False)
    ] = None,
    whys: Annotated[int, typer.Option(min=0, help="Of so many errors say what the answer is owed to.")] = 10,
    base: Base = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a task's model on a file with the truth: figures beside the baseline, what goes wrong, and why.

    Examples:
      cutaway task evaluate model test.csv
      cutaway task evaluate model test.csv --html report.html
      cutaway task evaluate model test.csv --compare older-model --json
    """
    from rich.console import Console

    from cutaway.files import write_atomic
    from cutaway.tasks import evaluate_file, open_task

    made, other = open_task(model, base=base), open_task(compare) if compare else None
    with live_progress(quiet=json) as progress:
        report = evaluate_file(
            made,
            file,
            columns=roles_of(column),
            compare=other,
            whys=whys if html or json else 0,  # a terminal shows none
            progress=progress,
        )
    if html is not None:
        write_atomic(html, report.to_html())
    if json:
        print(json_format.dumps(report.to_json(), ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(report)
    if html is not None:
        console.print(f"Wrote {html}", markup=False, soft_wrap=True)
