"""`cutaway generate`: continue a prompt."""

import dataclasses
import json as json_format
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from cutaway.generation import generate as generate_text
from cutaway.models import load_model


def generate(
    model: Annotated[str, typer.Argument(help="A run folder or a model folder.")],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to continue; - reads it from stdin.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", help="Tokens at the most.")] = 100,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw among the likeliest that together reach p.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Draw among those at least this share of the likeliest.")] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: less of what was seen before.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text (repeat the option).")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another text.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (a list for several prompts).")] = False,
) -> None:
    """Continue a prompt.

    Example: cutaway generate run --prompt "def main(" --temperature 0.7
    """
    prompts = [sys.stdin.read() if text == "-" else text for text in prompt or [""]]
    loaded = load_model(model)
    console = Console(highlight=False, soft_wrap=True)
    results = []
    for number, text in enumerate(prompts):
        if not json:
            console.print(Text(text, style="dim"), end="")
        results.append(
            generate_text(
                loaded,
                text,
                on_token=None if json else lambda token: console.print(Text(token.text), end=""),
                seed=seed + number,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                repetition_penalty=repetition_penalty,
                stop=stop or (),
            )
        )
        if not json:
            console.print()
    if json:
        shown = [dataclasses.asdict(result) for result in results]
        print(json_format.dumps(shown if len(shown) > 1 else shown[0], ensure_ascii=False))
