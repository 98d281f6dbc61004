"""`cutaway generate`: continue a prompt."""

import dataclasses
import json as json_format
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cutaway.cli._frame import harmless
from cutaway.errors import InputError
from cutaway.generation import Token, stream
from cutaway.generation import generate as generate_text
from cutaway.models import load_model


def generate(
    model: Annotated[str, typer.Argument(help="A run folder or a model folder.")],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to continue, or a sound file; - is stdin (repeat).")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", "-n", help="Tokens at the most; as the checkpoint says, or 100."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0: always the likeliest token; as the checkpoint says, or 0.8.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw among the likeliest that together reach p.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Draw among those at least this share of the likeliest.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1: less of what was seen before.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text (repeat).")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another text.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (a list for several prompts).")] = False,
) -> None:
    """Continue a prompt; of an encoder–decoder, answer it.

    Examples:
      cutaway generate run --prompt "def main(" --temperature 0.7
      cutaway generate run --prompt "Once" --prompt "Never" --stop . --json
    """
    prompts = [_from_stdin() if text == "-" else text for text in prompt or [""]]
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "stop": stop or None,
    }
    loaded = load_model(model)
    for note in loaded.generation.notes:
        print(f"note: {harmless(note)}", file=sys.stderr)
    listens = loaded.mel is not None
    sources: list[Any] = [Path(name) for name in prompts] if listens else prompts
    if json:
        made = [generate_text(loaded, source, seed=seed + i, **options) for i, source in enumerate(sources)]
        shown = [dataclasses.asdict(one) for one in made]
        print(json_format.dumps(shown if len(shown) > 1 else shown[0], ensure_ascii=False))
        return
    apart = "\n" if loaded.config.kind == "seq2seq" else ""  # a target does not continue its source
    for number, source in enumerate(sources):
        _show(f"{source}{apart}", stream(loaded, source, seed=seed + number, **options))


def _from_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the prompt from stdin is not UTF-8: {error.reason} at byte {error.start}") from error


def _show(prompt: str, tokens: Iterator[Token]) -> None:
    """Write a prompt, dim, and its continuation as it comes; exactly these texts where the output is no terminal."""
    terminal = sys.stdout.isatty()
    sys.stdout.write(typer.style(harmless(prompt), dim=True) if terminal else prompt)
    sys.stdout.flush()
    for token in tokens:
        sys.stdout.write(harmless(token.text) if terminal else token.text)
        sys.stdout.flush()
    sys.stdout.write("\n")
