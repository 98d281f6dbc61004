"""`cutaway task list`: the tasks and the recipes."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from typing import Annotated

import typer


def list(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the tasks, and the recipes whose names stand for a task with settings.

    Examples:
      cutaway task list
    """
    from rich.console import Console
    from rich.table import Table

    from cutaway.tasks import RECIPES, TASKS

    if json:
        tasks = {name: task.summary for name, task in TASKS.items()}
        recipes = {name: asdict(recipe) for name, recipe in RECIPES.items()}
        print(json_format.dumps({"tasks": tasks, "recipes": recipes}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for title, rows in (
        ("Tasks", {name: task.summary for name, task in TASKS.items()}),
        ("Recipes", {name: f"{recipe.purpose} ({recipe.task['name']})" for name, recipe in RECIPES.items()}),
    ):
        table = Table("name", "what it is for", title=title)
        for name, what in rows.items():
            table.add_row(name, what)
        console.print(table)
