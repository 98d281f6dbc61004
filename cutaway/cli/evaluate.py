"""`cutaway evaluate`: how good a model is."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cutaway.cli import _options as options
from cutaway.cli._frame import live_progress
from cutaway.errors import ConfigError
from cutaway.evaluation import read_suite, run
from cutaway.files import write_atomic
from cutaway.generation.quantize import read_texts


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A run, a model folder, a Hugging Face folder or hub name, a GGUF file.")
    ],
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            "-s",
            metavar="[NAME=]PATH",
            help="Questions, .jsonl or .csv (.gz): pairs as in BLiMP, choices, or last words as in LAMBADA (repeat).",
        ),
    ] = None,
    perplexity: Annotated[
        list[str] | None,
        typer.Option("--perplexity", "-p", metavar="PATH", help="Texts to predict: a file or folder (repeat)."),
    ] = None,
    compare: Annotated[str | None, typer.Option(metavar="MODEL", help="Another model: do the two differ?")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many questions of each group.")] = None,
    window: Annotated[int | None, typer.Option(help="Tokens seen at once in texts; as many as the model sees.")] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens by which windows move on; half a window.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page to open in a browser.", dir_okay=False)] = None,
    items: Annotated[
        Path | None, typer.Option(help="Write what was made of each question, as JSON lines.", dir_okay=False)
    ] = None,
    cache: options.Cache = "auto",
    threads: options.Threads = None,
    rounding: options.Rounding = None,
    dequantise: options.Dequantise = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a model: suites of questions as lm-eval counts them, perplexity and bits per byte of texts.

    Examples:
      cutaway evaluate model.gguf --suite blimp=blimp/ --suite lambada=lambada.jsonl.gz
      cutaway evaluate run --perplexity held-out.txt --html evaluation.html
      cutaway evaluate run --perplexity held-out.txt --compare other-run --json
    """
    if not suite and not perplexity:
        raise ConfigError("give something to evaluate on: --suite PATH or --perplexity PATH")
    suites = [read_suite(*_named(text)) for text in suite or []]
    texts = {path: read_texts([path]) for path in perplexity or []}
    opened = [options.opened(source, dequantise) for source in [model, *([compare] if compare is not None else [])]]
    engines = [options.engine_for(one, cache, threads, rounding) for one in opened]
    with live_progress(quiet=json) as progress:
        found = run(engines, suites, texts, limit=limit, window=window, stride=stride, progress=progress)
    if html is not None:
        write_atomic(html, found.to_html())
    if items is not None:
        lines = (json_format.dumps(item, ensure_ascii=False) for item in found.items())
        write_atomic(items, "".join(f"{line}\n" for line in lines))
    if json:
        print(json_format.dumps(found.to_json(), ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(found)
    for path in (html, items):
        if path is not None:
            console.print(f"wrote {path}", markup=False, soft_wrap=True)


def _named(text: str) -> tuple[str, str]:
    """The path and the name of a suite; a path may hold a "=" of its own where it exists."""
    name, mark, path = text.partition("=")
    return (path, name) if mark and not Path(text).exists() else (text, "")
