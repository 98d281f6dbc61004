"""`cutaway look`: see inside."""

import json as json_format
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cutaway.files import write_atomic
from cutaway.interp import look as look_inside
from cutaway.models import load_model


def look(
    model: Annotated[str, typer.Argument(help="A run folder or a model folder.")],
    text: Annotated[str, typer.Argument(help="What the model reads; - reads it from stdin.")],
    token: Annotated[str | None, typer.Option(help="The next token to open; by default the likeliest.")] = None,
    minus: Annotated[str | None, typer.Option(help="Another token: why the one rather than the other.")] = None,
    position: Annotated[int, typer.Option(help="After which token, from 0; -1 is the last.")] = -1,
    layer: Annotated[int | None, typer.Option(help="Whose attention to show large, from 0.")] = None,
    head: Annotated[int | None, typer.Option(help="Which head of it; by default the sharpest.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page to open in a browser.", dir_okay=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """See inside: surprisal, attention, the logit lens, and where a logit comes from.

    Examples:
      cutaway look run "import os" --html look.html
      cutaway look run "import os" --layer 1 --head 0 --position 0
    """
    text = sys.stdin.read() if text == "-" else text
    seen = look_inside(load_model(model), text, token=token, minus=minus, position=position, layer=layer, head=head)
    if html is not None:
        write_atomic(html, seen.to_html())
    if json:
        print(json_format.dumps(seen.to_json(), ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(seen)
    if html is not None:
        console.print(f"\nwrote {html}", markup=False, soft_wrap=True)
