"""`cutaway task decide`: a decision about a text, with the reason that a person can appeal against."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

from cutaway.cli.task._shared import Base


def decide(
    model: Annotated[str, typer.Argument(help="A folder that cutaway task train has made.")],
    text: Annotated[str, typer.Argument(help="The text.")],
    language: Annotated[str, typer.Option(help="Of the sentence: en or zh.")] = "en",
    base: Base = "",
    json: Annotated[bool, typer.Option("--json", help="Print the record as one JSON object.")] = False,
) -> None:
    """Decide about a text: the categories, their probabilities and thresholds, the words that decided, and the model.

    Examples:
      cutaway task decide moderation/ "You are all idiots."
      cutaway task decide moderation/ "You are all idiots." --json > record.json
    """
    from rich.console import Console

    from cutaway.tasks import decide as decided
    from cutaway.tasks import open_task

    made = decided(open_task(model, base=base), text)
    if json:
        print(json_format.dumps({**made.to_json(), "sentence": made.sentence(language)}, ensure_ascii=False))
    elif language == "en":
        Console(highlight=False).print(made)
    else:
        print(made.sentence(language))
