"""`cutaway task index`: documents that can be searched, in a folder that is brought up to date in place."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from typing import Annotated

import typer

from cutaway.cli._frame import harmless, live_progress


def index(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Files and folders; with --update those of before.")
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="The folder of the index.")] = "index",
    model: Annotated[
        str, typer.Option(help="That makes vectors: an embedding model. Without one it is searched by words alone.")
    ] = "",
    update: Annotated[bool, typer.Option(help="Bring it up to date: read what is new or changed.")] = False,
    size: Annotated[int | None, typer.Option(help="Letters of a passage. [800]")] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Letters that two passages share, whole sentences of them. [160]")
    ] = None,
    segmenter: Annotated[
        str | None, typer.Option(help="Of Chinese: jieba or characters. [jieba where it is installed]")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Whose endings are cut off before words are compared: en, de …")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a folder of documents searchable, by words and by meaning.

    Examples:
      cutaway task index docs --out idx --model sentence-transformers/all-MiniLM-L6-v2
      cutaway task index --out idx --update
    """
    from rich.console import Console

    from cutaway.errors import ConfigError, InputError
    from cutaway.tasks.search import build_index, open_index
    from cutaway.text.readers.base import Skipped

    given = {"size": size, "overlap": overlap, "segmenter": segmenter, "language": language}
    settings = {name: value for name, value in given.items() if value is not None}
    if update and settings:
        raise ConfigError(
            f"an index keeps the {next(iter(settings))} that it was built with; build it again to change it"
        )
    left: list[Skipped] = []
    with live_progress(quiet=json) as progress:
        if update:
            made = open_index(out, model=model or None)
            made.update(sources or None, skipped=left.append, progress=progress)
        else:
            if not sources:
                raise InputError("name the files or folders to index, such as: cutaway task index docs --out idx")
            made = build_index(
                sources, out, model=model or None, settings=settings, skipped=left.append, progress=progress
            )
    changes = made.changes
    assert changes is not None
    if json:
        told = {"folder": str(made.folder), **asdict(changes), "skipped": [asdict(one) for one in left]}
        print(json_format.dumps(told, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for one in left:
        console.print(f"left out: {harmless(one.source)}: {harmless(one.reason)}", markup=False, soft_wrap=True)
    counts = (("added", changes.added), ("changed", changes.changed), ("removed", changes.removed))
    files = ", ".join(f"{len(some):,} {what}" for what, some in counts if some) or "nothing has changed"
    console.print(
        f"{made.folder}: {changes.passages:,} passages ({files}; {changes.embedded:,} embedded). "
        f'Next: cutaway task search {made.folder} "a question"',
        markup=False,
        soft_wrap=True,
    )
