"""`cutaway task merge`: one model of an adapter and its base."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer


def merge(
    model: Annotated[str, typer.Argument(help="A folder that cutaway task train --how lora has made.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The folder to make.")],
    base: Annotated[str, typer.Option(help="Where its base lies now, if it has moved.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make one model of a task's adapter and its base, which needs the base no more.

    Examples:
      cutaway task merge model --out merged
    """
    from cutaway.tasks import merge_task

    made = merge_task(model, out, base=base)
    if json:
        print(json_format.dumps({"folder": str(made)}, ensure_ascii=False))
    else:
        print(f"Wrote {made}. Next: cutaway task predict {made} new.csv")
