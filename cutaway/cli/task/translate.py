"""`cutaway task translate`: a text file in another language, line by line."""

from __future__ import annotations

import json as json_format
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cutaway.cli._frame import harmless, live_progress


def translate(
    model: Annotated[str, typer.Argument(help="A folder that cutaway task train translate has made.")],
    file: Annotated[str, typer.Argument(help="A text file; each line is translated by itself.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the translations here instead of printing.", dir_okay=False),
    ] = None,
    terms: Annotated[
        str | None, typer.Option(help="A file with a source term, a tab and what it must be called in each line.")
    ] = None,
    beams: Annotated[
        int | None, typer.Option(help="Hypotheses of the search; more are slower and a little better.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines, with the alignment of each.")] = False,
) -> None:
    """Translate a text file into one with as many lines; empty lines stay empty, and ends of lines as they are.

    Examples:
      cutaway task translate model letter.en --out letter.de
      cutaway task translate model manual.en --terms terms.tsv --out manual.de
    """
    from rich.console import Console

    from cutaway.files import write_atomic
    from cutaway.tasks import open_task
    from cutaway.tasks.translate import Translate
    from cutaway.tasks.translate.files import read_lines, translate_file, translate_lines
    from cutaway.tasks.translate.terms import read_terms

    made = open_task(model)
    if isinstance(made.task, Translate):
        changes = {"terms": read_terms(terms)} if terms is not None else {}
        made.task = replace(made.task, **changes, **({"beams": beams} if beams is not None else {}))
    if json:
        lines, _ = read_lines(file)
        with live_progress(quiet=True):
            for number, answer in enumerate(translate_lines(made, lines, alignment=True), 1):
                told = {"answer": lines[number - 1]} if answer is None else answer.to_json()
                print(json_format.dumps({"source": f"{file}:{number}", **told}, ensure_ascii=False))
        return
    with live_progress(quiet=out is None) as progress:
        text, answers = translate_file(made, file, progress=progress)
    console = Console(highlight=False, stderr=True)
    if out is None:
        print(harmless(text), end="")
    else:
        write_atomic(out, text.encode())
        console.print(f"wrote {len(answers):,} lines to {out}", markup=False, soft_wrap=True)
    lacking = [
        (number, term)
        for number, answer in enumerate(answers, 1)
        for term in (answer.more.get("missing", ()) if answer is not None else ())
    ]
    for number, term in lacking:
        console.print(f"{file}:{number} lacks the term {harmless(term)}", markup=False, soft_wrap=True)
