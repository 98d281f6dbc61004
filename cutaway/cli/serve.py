"""`cutaway serve`: models behind an OpenAI-compatible API."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cutaway.errors import ConfigError, need


def serve(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Folders, .gguf files or hub names; NAME=… says what to call one."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; other machines reach 0.0.0.0, with keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option("--keys", "--key-file", dir_okay=False, help="File of keys (cutaway keys add).")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name that this machine has in URLs (repeat).")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Pages of https://… may use it from a browser (repeat).")
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="A LoRA adapter; on FOLDER@MODEL, else the first.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="All that the process may take, such as 4GB; most of what is free."),
    ] = None,
    cache_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Keys and values of each model; a share of the memory.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Texts of one model that are computed at a time.")] = 64,
    queue: Annotated[int, typer.Option(min=0, help="Texts that may wait beyond these; more are refused (429).")] = 64,
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds in which an answer must be complete.")] = 600.0,
    drain: Annotated[float, typer.Option(min=0, help="Seconds to finish answers in, after the signal to stop.")] = 30.0,
    idle: Annotated[float, typer.Option(min=0.1, help="Seconds until a silent connection is closed.")] = 20.0,
    send: Annotated[float, typer.Option(min=0.1, help="Seconds that a client may read nothing of its answer.")] = 30.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens written for one request, at the most.")] = 131_072,
    max_body: Annotated[str, typer.Option(metavar="SIZE", help="Size of a request, at the most.")] = "8MiB",
    max_audio: Annotated[str, typer.Option(metavar="SIZE", help="Size of a recording, at the most.")] = "32MiB",
    max_connections: Annotated[int, typer.Option(min=1, help="Connections that are open at a time.")] = 1024,
    cache: Annotated[
        str, typer.Option(metavar="DTYPE", help="Keys and values in float32, float16 or int8; auto: as suits weights.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads that compute; as many as cores.")] = None,
    rounding: Annotated[
        str | None, typer.Option(metavar="eight|sixteen", help="Bits of activations that meet quantised weights.")
    ] = None,
    dequantise: Annotated[bool, typer.Option("--dequantise", help="Make float32 weights of blocks.")] = False,
    chat_format: Annotated[
        str, typer.Option(metavar="template|plain", help="plain: User: and Assistant:, for models without a template.")
    ] = "template",
    matryoshka: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A model whose vectors may be cut to fewer numbers (repeat)."),
    ] = None,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Let prompts and answers stand in the log.")] = False,
    json: Annotated[bool, typer.Option("--json", help="When ready, print what there is as one JSON object.")] = False,
) -> None:
    """Serve models to OpenAI's clients, until a signal says to stop.

    Running answers may finish then (--drain); exit code 0: all did, 143 or 130: some were broken off.

    Examples:
      cutaway serve model.gguf
      cutaway serve small=run big=owner/name --port 9000 --memory 8GB
      cutaway serve model.gguf --host 0.0.0.0 --keys keys.json --allow-host models.example.org
    """
    need("fastapi", "serve", "serving a model")
    need("uvicorn", "serve", "serving a model")
    from cutaway.serve import Settings
    from cutaway.serve.lifecycle import serve as run
    from cutaway.serve.settings import size

    if chat_format not in ("template", "plain"):
        raise ConfigError(f'--chat-format must be template or plain, but "{chat_format}" was given')
    body, audio = size(max_body), size(max_audio)
    engine: dict[str, Any] = {"cache": cache, "threads": threads, "rounding": rounding}
    settings = Settings(
        models=named(models),
        adapters=named(adapter or [], "adapters"),
        host=host,
        port=port,
        keys=keys,
        hosts=tuple(allow_host or ()),
        origins=tuple(allow_origin or ()),
        memory=None if memory is None else size(memory),
        cache_memory=None if cache_memory is None else size(cache_memory),
        max_batch=max_batch,
        queue=queue,
        deadline=deadline,
        drain=drain,
        idle=idle,
        send=send,
        max_tokens=max_tokens,
        max_body=body,
        max_audio=audio,
        max_bodies=max(Settings.max_bodies, body, audio),  # of all together: one has room, whatever it may be
        max_connections=max_connections,
        engine={name: value for name, value in engine.items() if value is not None},
        dequantise=dequantise,
        chat_format=chat_format,
        matryoshka=tuple(matryoshka or ()),
        log_texts=log_texts,
    )
    raise typer.Exit(run(settings, json=json))


def named(given: list[str], what: str = "models") -> dict[str, str]:
    """NAME=SOURCE, or a source whose last part is its name.

    Raises:
        ConfigError: two of the same name, or a name without a source.
    """
    made: dict[str, str] = {}
    for text in given:
        name, mark, source = text.partition("=")
        if not mark:
            name, source = text.rstrip("/").rpartition("/")[2], text
        if not name or not source:
            raise ConfigError(f"{text!r} names no {what.rstrip('s')}; give NAME=SOURCE, or the source alone")
        if name in made:
            raise ConfigError(f"two {what} are called {name}; name one with NAME=SOURCE")
        made[name] = source
    return made
