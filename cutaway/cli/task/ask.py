"""`cutaway task ask`: the answer to a question out of an index's documents, with its source."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

from cutaway.cli._frame import harmless


def ask(
    index: Annotated[str, typer.Argument(help="A folder that cutaway task index has made.")],
    question: Annotated[str, typer.Argument(help="To be answered.")],
    model: Annotated[str, typer.Option(help="A folder that cutaway task train answer has made.")],
    top: Annotated[int, typer.Option(help="Answers at the most.")] = 3,
    passages: Annotated[int, typer.Option(help="Passages that are read.")] = 5,
    how: Annotated[str, typer.Option(help="Of the search: hybrid, words or vectors.")] = "",
    embedder: Annotated[str, typer.Option(help="The index's embedding model, where it lies elsewhere now.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Answer a question word for word out of the documents of an index.

    Examples:
      cutaway task ask idx "Who wrote the letter?" --model qa
    """
    from rich.console import Console

    from cutaway.tasks import open_task
    from cutaway.tasks.answer.ask import ask as answers_of
    from cutaway.tasks.search import open_index

    opened = open_index(index, model=embedder or None)
    found = answers_of(opened, question, open_task(model), top=top, passages=passages, how=how)
    if json:
        print(
            json_format.dumps({"question": question, "answers": [one.to_json() for one in found]}, ensure_ascii=False)
        )
        return
    console = Console(highlight=False)
    if not found or found[0].answer is None:
        console.print("the documents hold no answer, as far as they were read")
    for one in found:
        if one.answer is not None:
            place = f"{one.source} [{one.start}–{one.end}]"
            console.print(
                harmless(f"{100 * one.probability:5.1f} %  “{one.answer}”  {place}"), markup=False, soft_wrap=True
            )
