"""`cutaway task predict`: answers to the rows of a file."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from cutaway.cli._frame import harmless, live_progress
from cutaway.cli.task._shared import Base, roles_of


def predict(
    model: Annotated[str, typer.Argument(help="A folder that cutaway task train has made.")],
    file: Annotated[str, typer.Argument(help="A table whose rows are answered.")],
    column: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=COLUMN", help="Which column is what, where names do not say it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write JSON lines here instead of printing.", dir_okay=False)
    ] = None,
    base: Base = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Answer the rows of a file; rows that cannot be answered are told on stderr, with their lines.

    Examples:
      cutaway task predict model new.csv
      cutaway task predict model new.csv --out answers.jsonl
    """
    from rich.console import Console

    from cutaway.files import write_atomic
    from cutaway.tasks import open_task, read_examples
    from cutaway.tasks.data import columns_note
    from cutaway.tasks.decide import unlikely

    made = open_task(model, base=base)
    told_of = roles_of(column)
    examples, aside, used = read_examples(made.task, file, columns=told_of, before=made.columns, answered=False)
    console = Console(highlight=False, stderr=True)
    asked = {role.name: used[role.name] for role in made.task.roles if not role.answer and role.name in used}
    if not json and any(name not in (made.columns.get(role), told_of.get(role)) for role, name in asked.items()):
        console.print(f"note: {harmless(columns_note(asked))}", markup=False, soft_wrap=True)
    with live_progress(quiet=json) as progress:
        answers = made.predict(examples, progress=progress)
    told = [{"source": e.source, **a.to_json()} for e, a in zip(examples, answers, strict=True)]
    if out is not None:
        write_atomic(out, "".join(json_format.dumps(one, ensure_ascii=False) + "\n" for one in told))
    for one, answer in zip(told, answers, strict=True) if out is None else []:
        if json:
            print(json_format.dumps(one, ensure_ascii=False))
        else:
            sure = "" if answer.probability is None else f"{100 * answer.probability:5.1f} %  "
            low = "".join(f"  ({label}: {p:.1%}, said from {least:.1%} on)" for label, p, least in unlikely(answer))
            print(harmless(f"{one['source']}  {sure}{answer.answer}{low}"))
    for item in aside:
        console.print(f"not answered: {item.source}: {harmless(item.reason)}", markup=False, soft_wrap=True)
    if out is not None and not json:
        console.print(f"wrote {len(told):,} answers to {out}", markup=False, soft_wrap=True)
