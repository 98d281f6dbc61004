"""`cutaway task evaluate`: how good a task's model is on a file with the truth."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

from cutaway.cli._frame import live_progress
from cutaway.cli.task._shared import roles_of


def evaluate(
    model: Annotated[str, typer.Argument(help="A folder that cutaway task train has made.")],
    file: Annotated[str, typer.Argument(help="A table with the truth beside each row.")],
    column: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=COLUMN", help="Which column is what, where names do not say it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a task's model on a file with the truth.

    Examples:
      cutaway task evaluate model test.csv
    """
    from rich.console import Console

    from cutaway.tasks import open_task, read_examples
    from cutaway.tasks.report import report_of

    made = open_task(model)
    examples, _, _ = read_examples(made.task, file, columns=roles_of(column))
    with live_progress(quiet=json) as progress:
        answers = made.predict(examples, progress=progress)
    report = report_of(made, file, examples, made.task.measure(answers, examples, made.labels), None)
    if json:
        print(json_format.dumps(report.to_json(), ensure_ascii=False))
    else:
        Console(highlight=False).print(report)
