"""`cutaway task search`: the passages of an index that answer a question best."""

from __future__ import annotations

import json as json_format
from typing import Annotated, Any

import typer

from cutaway.cli._frame import harmless

SHOWN = 300  # characters of a passage in a terminal


def search(
    index: Annotated[str, typer.Argument(help="A folder that cutaway task index has made.")],
    question: Annotated[str, typer.Argument(help="Words, or a sentence.")],
    top: Annotated[int, typer.Option(help="Passages at the most.")] = 10,
    how: Annotated[str, typer.Option(help="hybrid, words or vectors. [hybrid where there are vectors]")] = "",
    model: Annotated[str, typer.Option(help="The embedding model, where it lies elsewhere now.")] = "",
    rerank: Annotated[str, typer.Option(help="A task's model of two texts that orders the best ones anew.")] = "",
    why: Annotated[bool, typer.Option("--why", help="Say of each hit which words and tokens it is owed to.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Search documents by words and by meaning.

    Examples:
      cutaway task search idx "how long may a parcel take?" --top 5
      cutaway task search idx "how long may a parcel take?" --why --top 1 --json
    """
    from rich.console import Console

    from cutaway.tasks import open_task
    from cutaway.tasks.search import open_index

    opened = open_index(index, model=model or None)
    judge = open_task(rerank) if rerank else None
    hits = opened.search(question, top, how=how, rerank=judge)
    reasons: list[Any] = [opened.why(question, hit) if why else None for hit in hits]
    if json:
        told = [
            hit.to_json() | ({"why": reason.to_json()} if reason else {})
            for hit, reason in zip(hits, reasons, strict=True)
        ]
        print(json_format.dumps({"question": question, "hits": told}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if not hits:
        console.print("nothing was found")
    for place, (hit, reason) in enumerate(zip(hits, reasons, strict=True), 1):
        ways = {"words": hit.words, "meaning": hit.vectors}
        parts = [f"{way} {part.rank}" for way, part in ways.items() if part is not None]
        title = f"{place}. {hit.source} [{hit.start}–{hit.end}]  {hit.score:.4f}  ({', '.join(parts)})"
        console.print(harmless(title), markup=False, soft_wrap=True, style="bold")
        text = " ".join(hit.text.split())
        console.print(harmless(text[:SHOWN] + "…" * (len(text) > SHOWN)), markup=False, soft_wrap=True)
        if reason is not None:
            console.print(reason)
