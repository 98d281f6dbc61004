"""`cutaway studio`: see any model think, in the browser."""

import os
import secrets
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from cutaway.errors import InputError, need


def studio(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]…", help="Folders, .gguf files or hub names; NAME=… says what to call one."),
    ] = None,
    folder: Annotated[
        Path, typer.Option(file_okay=False, help="Whose runs and models are listed too; trainings begin in it.")
    ] = Path("."),
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's are asked for a token.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")] = 8317,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name that this machine has in URLs (repeat).")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="All that models may take, such as 4GB; most of what is free."),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the browser.")] = True,
    json: Annotated[bool, typer.Option("--json", help="When ready, print what there is as one JSON object.")] = False,
) -> None:
    """See any model think, in the browser, offline: its pages and OpenAI's API, until Ctrl-C.

    Examples:
      cutaway studio
      cutaway studio run
      cutaway studio model.gguf --port 9000 --no-browser
    """
    need("fastapi", "serve", "the studio")
    need("uvicorn", "serve", "the studio")
    from cutaway.cli.serve import named
    from cutaway.serve import Settings
    from cutaway.serve.doors import is_local
    from cutaway.serve.lifecycle import serve
    from cutaway.serve.settings import size
    from cutaway.serve.studio.pages import MISSING, built

    if not built():
        raise InputError(MISSING)
    settings = Settings(
        models=named(models or []),
        host=host,
        port=port,
        hosts=tuple(allow_host or ()),
        memory=None if memory is None else size(memory),
        max_body=64 << 20,
        chat_format="plain",
        dequantise=True,
        studio=folder,
        token=None if is_local(host) else secrets.token_urlsafe(24),
    )
    raise typer.Exit(serve(settings, json=json, listening=webbrowser.open if browser and _has_screen() else None))


def _has_screen() -> bool:
    """Whether a browser would open in a window: over SSH one may take the terminal instead."""
    if sys.platform in ("win32", "darwin") or "BROWSER" in os.environ:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
