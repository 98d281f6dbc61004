"""`cutaway convert`: a model from one format to another."""

import json as json_format
import time
from pathlib import Path
from typing import Annotated

import typer

from cutaway.models import load_model, save_model


def convert(
    model: Annotated[
        str, typer.Argument(help="A run, a model folder, a Hugging Face folder or hub name, a GGUF file.")
    ],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    to: Annotated[
        str, typer.Option("--to", help="cutaway, or huggingface: opens in transformers, vLLM and others.")
    ] = "huggingface",
    family: Annotated[
        str | None, typer.Option(help="Write it as this published family; default: the first that can express it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert a model, such as one that you trained, to a format that other tools open.

    Example:
      cutaway convert run exported --to huggingface
    """
    started = time.perf_counter()
    loaded = load_model(model)
    made = save_model(loaded, out, to, family=family)
    size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    seconds = round(time.perf_counter() - started, 2)
    if json:
        print(json_format.dumps({"path": str(made), "format": to, "bytes": size, "seconds": seconds}))
        return
    print(f"Wrote {made}, {size / 1e6:,.1f} MB in {seconds} s")
