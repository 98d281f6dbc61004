"""`cutaway quantize`: a model in fewer bits."""

import json as json_format
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cutaway.cli._frame import live_progress
from cutaway.errors import InputError
from cutaway.generation.quantize import held_out, read_texts, save_quantized
from cutaway.generation.quantize import quantize as quantize_model
from cutaway.generation.quantize.quantize import MEASURED
from cutaway.models import load_model


def quantize(
    model: Annotated[
        str, typer.Argument(help="A run, a model folder, a Hugging Face folder or hub name, a GGUF file.")
    ],
    out: Annotated[Path, typer.Argument(help="The model folder to make; of a decoder it may be a file, x.gguf.")],
    kind: Annotated[
        str, typer.Option("--kind", "-k", help="int8, int4, or a GGUF kind: Q8_0, Q6_K, Q5_0, Q4_K, Q4_1, Q4_0.")
    ] = "int8",
    output: Annotated[
        str | None, typer.Option(help="Kind of the embedding and the output matrix; Q8_0 where the others have less.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help='Matrices that stay numbers, such as "layers.0.*" (repeat).')
    ] = None,
    calibrate: Annotated[
        list[str] | None, typer.Option(help="Texts like those it will see, to round by what matters (repeat).")
    ] = None,
    method: Annotated[str, typer.Option(help="How to calibrate: gptq or awq.")] = "gptq",
    text: Annotated[
        list[str] | None, typer.Option(help="Held-out texts to measure on; default: the run's own (repeat).")
    ] = None,
    report: Annotated[bool, typer.Option(help="Measure what it costs.")] = True,
    matrices: Annotated[int, typer.Option(help="Try so many matrices alone, to see which cost most.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Store a model's matrices in fewer bits, and say what that costs: size, perplexity, agreement.

    Examples:
      cutaway quantize run smaller
      cutaway quantize run smallest --kind int4 --calibrate texts/ --text held-out.txt
      cutaway quantize run model.gguf --kind Q4_K
    """
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} exists; give another place, or remove it first")
    loaded = load_model(model)
    texts = (read_texts(text) if text else held_out(model, MEASURED)) if report else []
    with live_progress(quiet=json) as progress:
        made = quantize_model(
            loaded,
            kind,
            output=output,
            keep=keep or (),
            calibrate=read_texts(calibrate) if calibrate else (),
            method=method,
            text=texts,
            matrices=matrices,
            progress=progress,
        )
        save_quantized(made, out)
    if json:
        print(json_format.dumps({"path": str(out), **made.report.to_json()}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(made.report)
    console.print(f'Wrote {out}. Next: cutaway generate {out} --prompt "…"', markup=False, soft_wrap=True)
