"""`cutaway task why`: which parts of an input an answer is owed to."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

from cutaway.cli.task._shared import Base
from cutaway.errors import ConfigError


def why(
    model: Annotated[str, typer.Argument(help="A folder that cutaway task train has made.")],
    text: Annotated[str, typer.Argument(help="The input; a JSON object where the task reads more than a text.")],
    method: Annotated[str, typer.Option(help="Of attribution; the task's usual one if it is not given.")] = "",
    part: Annotated[int, typer.Option(help="Of several spans or labels in the answer, which, from 0.")] = 0,
    base: Base = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what an answer is owed to: which words, and how much each of them.

    Examples:
      cutaway task why model "The room was cold and the staff rude."
    """
    from rich.console import Console

    from cutaway.tasks import open_task

    given = text
    if text.lstrip().startswith("{"):
        try:
            given = json_format.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the input looks like JSON but is none ({error})") from error
    made = open_task(model, base=base)
    found = made.why(given, method=method, part=part)
    if json:
        print(json_format.dumps(found.to_json(), ensure_ascii=False))
    else:
        Console(highlight=False).print(found)
