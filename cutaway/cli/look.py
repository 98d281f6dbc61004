"""`cutaway look`: see inside."""

import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cutaway.cli._frame import live_progress
from cutaway.errors import ConfigError
from cutaway.files import write_atomic
from cutaway.interp.analyses import ANALYSES, analyse, parsed
from cutaway.interp.check import check as try_out
from cutaway.models import load_model


def look(
    model: Annotated[str, typer.Argument(help="A run folder, a model folder, a .gguf file or a name on the hub.")],
    text: Annotated[
        str, typer.Argument(help="What the model reads; - reads it from stdin. Analyses of weights alone need none.")
    ] = "",
    analysis: Annotated[str, typer.Option(help=f"One of {', '.join(ANALYSES)}.")] = "look",
    token: Annotated[str | None, typer.Option(help="The next token to open; by default the likeliest.")] = None,
    minus: Annotated[str | None, typer.Option(help="Another token: why the one rather than the other.")] = None,
    position: Annotated[int | None, typer.Option(help="After which token, from 0; -1 is the last.")] = None,
    layer: Annotated[int | None, typer.Option(help="Whose attention to show large, from 0.")] = None,
    head: Annotated[int | None, typer.Option(help="Which head of it; by default the sharpest.")] = None,
    source: Annotated[
        str | None, typer.Option(help="What an encoder–decoder reads, text or a sound file; TEXT is its target.")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="OPTION=VALUE", help="An option of the analysis; may be repeated.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Try out what the analysis suggests.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page to open in a browser.", dir_okay=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """See inside: surprisal, attention, the logit lens, and where a logit comes from; or one analysis by its name.

    Examples:
      cutaway look run "import os" --html look.html
      cutaway look run "import os" --layer 1 --head 0 --position 0
      cutaway look run "import os" --analysis logit_lens --set top=3
      cutaway look run --analysis spectra
    """
    text = sys.stdin.read() if text == "-" else text
    options: dict[str, Any] = {"token": token, "minus": minus, "position": position, "layer": layer, "head": head}
    loaded = load_model(model)
    heard = source if source is None or loaded.mel is None else Path(source)
    options = {name: value for name, value in (options | {"source": heard}).items() if value is not None}
    options |= _given(set or [], analysis)
    with live_progress(quiet=json) as progress:
        seen = analyse(analysis, loaded, text, options, progress=progress)
        if check:
            seen = try_out(seen, progress=progress)
    if html is not None:
        write_atomic(html, seen.to_html())
    if json:
        print(json_format.dumps(seen.to_json(), ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(seen)
    if html is not None:
        console.print(f"\nwrote {html}", markup=False, soft_wrap=True)


def _given(words: list[str], analysis: str) -> dict[str, Any]:
    """OPTION=VALUE pairs."""
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set takes OPTION=VALUE, but {word!r} was given")
        options[name] = parsed(analysis, name, value)
    return options
