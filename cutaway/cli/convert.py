"""`cutaway convert`: a model from one format to another."""

import json as json_format
import time
from pathlib import Path
from typing import Annotated

import typer

from cutaway.cli import _options as options
from cutaway.errors import ConfigError
from cutaway.models import load_model, save_model


def convert(
    model: Annotated[
        str, typer.Argument(help="A run, a model folder, a Hugging Face folder or hub name, a GGUF file.")
    ],
    out: Annotated[Path, typer.Argument(help="The folder to make; for gguf it may be a file, x.gguf.")],
    to: Annotated[
        str,
        typer.Option("--to", help="cutaway; huggingface: opens in transformers, vLLM …; gguf: in llama.cpp, Ollama …"),
    ] = "huggingface",
    family: Annotated[
        str | None, typer.Option(help="Write it as this published family; default: the first that can express it.")
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            help="For gguf, how to store matrices: F16 (the default, but blocks stay as they are), Q8_0, Q6_K, Q4_K …"
        ),
    ] = None,
    adapter: options.Adapter = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert a model, such as one that you trained, to a format that other tools open.

    Example:
      cutaway convert run exported --to huggingface
      cutaway convert run model.gguf --to gguf --quantize Q8_0
      cutaway convert owner/name merged --adapter folder
    """
    started = time.perf_counter()
    if quantize is not None and to != "gguf":
        raise ConfigError(f"--quantize {quantize} is for --to gguf; {to} keeps the weights as they are")
    notes: list[str] = []
    loaded = load_model(model)
    if adapter is not None:
        from cutaway.models.adapters import merge_adapter

        loaded = merge_adapter(options.with_adapter(loaded, adapter))
    made = save_model(loaded, out, to, family=family, kind=quantize, note=notes.append)
    size = sum(path.stat().st_size for path in [made, *made.rglob("*")] if path.is_file())
    seconds = round(time.perf_counter() - started, 2)
    if json:
        print(json_format.dumps({"path": str(made), "format": to, "bytes": size, "seconds": seconds, "notes": notes}))
        return
    for sentence in notes:
        print(sentence[0].upper() + sentence[1:])
    print(f"Wrote {made}, {size / 1e6:,.1f} MB in {seconds} s")
