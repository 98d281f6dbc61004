"""`cutaway serve`: models behind an OpenAI-compatible API."""

from typing import Annotated

import typer

from cutaway.errors import ConfigError, need


def serve(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…", help="Folders, .gguf files or hub names; NAME=… says what to call one."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")] = 8000,
) -> None:
    """Serve models to OpenAI's clients.

    Examples:
      cutaway serve model.gguf
      cutaway serve small=run big=owner/name --port 9000
    """
    need("fastapi", "serve", "serving a model")
    from cutaway.serve import Settings
    from cutaway.serve.lifecycle import serve as run

    run(Settings(models=named(models), host=host, port=port))


def named(models: list[str]) -> dict[str, str]:
    """NAME=SOURCE, or a source whose last part is its name.

    Raises:
        ConfigError: two of the same name.
    """
    made: dict[str, str] = {}
    for text in models:
        name, mark, source = text.partition("=")
        if not mark:
            name, source = text.rstrip("/").rpartition("/")[2], text
        if name in made:
            raise ConfigError(f"two models are called {name}; name one with NAME=SOURCE")
        made[name] = source
    return made
