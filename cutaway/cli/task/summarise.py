"""`cutaway task summarise`: documents in a few sentences, each with what supports it."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

from cutaway.cli._frame import harmless, live_progress


def summarise(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Documents: PDF, HTML, Markdown, text, tables.")],
    sentences: Annotated[
        int, typer.Option("--sentences", "-n", min=0, help="Of each summary; 0: as a task's model learned, else 3.")
    ] = 0,
    model: Annotated[
        str, typer.Option(help="One that cutaway task train summarise made, that writes, or that makes vectors. [none]")
    ] = "",
    way: Annotated[str, typer.Option(help="Without a task's model: textrank, centroid or lead. [textrank]")] = "",
    support: Annotated[str, typer.Option(help="A model that makes vectors, by which support is looked for, too.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """Summarise documents, each sentence with the place that it comes from; what nothing supports is marked.

    Examples:
      cutaway task summarise report.pdf
      cutaway task summarise notes/ --sentences 2 --model sentence-transformers/all-MiniLM-L6-v2
      cutaway task summarise report.pdf --model HuggingFaceTB/SmolLM2-135M-Instruct --json
    """
    from pathlib import Path

    from rich.console import Console

    from cutaway.files import holds
    from cutaway.models import load_model
    from cutaway.tasks import open_task
    from cutaway.tasks.summarise import summarise_text
    from cutaway.text import Skipped, read

    console = Console(highlight=False, stderr=True)

    def skipped(what: Skipped) -> None:
        console.print(f"skipped: {harmless(what.source)}: {harmless(what.reason)}", markup=False, soft_wrap=True)

    with live_progress(quiet=json) as progress:
        is_task = bool(model) and Path(model).is_dir() and holds(Path(model), "task.json")
        made = open_task(model) if is_task else load_model(model) if model else None
        beside = load_model(support) if support else None
    for document in read(files, skipped=skipped):
        with live_progress(quiet=json) as progress:
            answer = summarise_text(
                document.text,
                model=made,
                sentences=sentences,
                way=way,
                title=document.meta.get("title", ""),
                support=beside,
                source=document.source,
                progress=progress,
            )
        if json:
            print(json_format.dumps({"source": document.source, **answer.to_json()}, ensure_ascii=False))
            continue
        print(harmless(document.source))
        for one in answer.more["sentences"]:
            places = ", ".join(f"{found['start']}-{found['end']}" for found in one["support"]) or "nothing"
            mark = "" if one["supported"] else "  NOT SUPPORTED"
            print(harmless(f"  {' '.join(one['text'].split())}"), f"[{places}]{mark}")
