"""`cutaway get`: fetch a checkpoint from the Hugging Face hub."""

import json as json_format
from typing import Annotated

import typer

from cutaway.cli._frame import live_progress
from cutaway.models.hub import fetch


def get(
    name: Annotated[str, typer.Argument(help="The repository, such as HuggingFaceTB/SmolLM2-135M.")],
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit.")] = None,
    file: Annotated[str | None, typer.Option(help="One file alone, such as a GGUF.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Look in the cache alone.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fetch a checkpoint from the Hugging Face hub into its cache; broken downloads continue.

    Example:
      cutaway get HuggingFaceTB/SmolLM2-135M
    """
    with live_progress(quiet=json) as progress:
        place = fetch(name, revision=revision, file=file, offline=offline, progress=progress)
    if json:
        print(json_format.dumps({"name": name, "path": str(place)}))
        return
    print(f'{place}\nNext: cutaway generate {name if file is None else place} --prompt "…"')
