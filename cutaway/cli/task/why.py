"""`cutaway task why`: which parts of an input an answer is owed to."""

from __future__ import annotations

import json as json_format
from typing import Annotated, Any

import typer

from cutaway.cli._frame import harmless
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
    """Say what is answered and what that is owed to: which words, and how much each of them.

    Examples:
      cutaway task why model "The room was cold and the staff rude."
      cutaway task why pairs '{"first": "Is it warm?", "second": "Is it hot?"}'
    """
    from rich.console import Console

    from cutaway.tasks import open_task
    from cutaway.tasks.report import told

    given: Any = text
    if text.lstrip().startswith("{"):
        try:
            given = json_format.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the input looks like JSON but is none ({error})") from error
    made = open_task(model, base=base)
    asked = [role.name for role in made.task.roles if role.needed and not role.answer]
    if isinstance(given, str) and len(asked) > 1:
        form = ", ".join(f'"{name}": "…"' for name in asked)
        raise ConfigError(f"the task {made.task.name} reads {' and '.join(asked)}; give them as JSON: '{{{form}}}'")
    (answer,) = made.predict([given])
    found = made.why(given, method=method, part=part, answer=answer)
    if json:
        said = {"answer": answer.answer, "probability": answer.probability}
        print(json_format.dumps({**said, **found.to_json()}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    sure = "" if answer.probability is None else f" ({100 * answer.probability:.0f} %)"
    console.print(f"answer: {told(answer.answer)}{sure}", markup=False, soft_wrap=True)
    if target := getattr(found, "target", ""):
        console.print(f"explained: {harmless(target)}", markup=False, soft_wrap=True)
    console.print(found)
