"""`cutaway generate`: continue a prompt."""

import json as json_format
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cutaway.cli import _options as options
from cutaway.cli._batch import read_batch, run_batch
from cutaway.cli._frame import harmless, live_progress
from cutaway.cli._speed import Watch
from cutaway.errors import ConfigError
from cutaway.generation.request import Generation, Request
from cutaway.generation.ticket import Ticket


def generate(
    model: Annotated[str, typer.Argument(help="A run folder, a model folder, a .gguf file or a name on the hub.")],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to continue, or a sound file; - is stdin (repeat).")
    ] = None,
    batch: Annotated[
        Path | None, typer.Option(help="Many prompts: a file of JSON lines, answered as JSON lines.", dir_okay=False)
    ] = None,
    max_new_tokens: options.NewTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    typical_p: options.TypicalP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    frequency_penalty: options.FrequencyPenalty = None,
    presence_penalty: options.PresencePenalty = None,
    logit_bias: options.LogitBias = None,
    stop: options.Stop = None,
    seed: options.Seed = 0,
    samples: Annotated[int, typer.Option(help="Continuations of each prompt, which is computed once.")] = 1,
    beams: Annotated[
        int | None, typer.Option(help="Above 1: search with this many hypotheses instead of drawing.")
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="Of a beam search: above 0 longer texts, below 0 shorter ones.")
    ] = None,
    logprobs: Annotated[int, typer.Option(help="With --json: the k likeliest tokens beside each that came.")] = 0,
    prompt_logprobs: Annotated[
        int | None, typer.Option(help="With --json: of each token of the prompt, and the k likeliest (or 0) beside it.")
    ] = None,
    json_schema: Annotated[
        str | None, typer.Option(metavar="SCHEMA", help="The text is JSON of this schema; @FILE reads it from a file.")
    ] = None,
    regex: Annotated[str | None, typer.Option(metavar="REGEX", help="The text matches this (or @FILE).")] = None,
    grammar: Annotated[str | None, typer.Option(metavar="LARK", help="The text is of this grammar (or @FILE).")] = None,
    choice: Annotated[list[str] | None, typer.Option(help="The text is one of these (repeat).")] = None,
    speculate: options.Speculate = None,
    cache: options.Cache = "auto",
    threads: options.Threads = None,
    rounding: options.Rounding = None,
    dequantise: options.Dequantise = False,
    adapter: options.Adapter = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell on stderr how fast it was.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (a list for several prompts).")] = False,
) -> None:
    """Continue a prompt; of an encoder–decoder, answer it.

    Examples:
      cutaway generate run --prompt "def main(" --temperature 0.7
      cutaway generate run --prompt "Once" --prompt "Never" --stop . --json
      cutaway generate model.gguf --prompt "A colour: " --choice red --choice blue
      cutaway generate model.gguf --batch prompts.jsonl --max-new-tokens 50
    """
    if batch is not None and prompt:
        raise ConfigError("--batch holds the prompts, so leave --prompt out")
    lines = [] if batch is None else read_batch(batch)
    prompts = [options.from_stdin("the prompt") if text == "-" else text for text in prompt or [""]]
    given: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "stop": stop or None,
        "n": samples,
        "beams": beams,
        "length_penalty": length_penalty,
        "logprobs": logprobs,
        "prompt_logprobs": prompt_logprobs,
        "schema": options.text_or_file(json_schema, "the schema"),
        "regex": options.text_or_file(regex, "the regular expression"),
        "grammar": options.text_or_file(grammar, "the grammar"),
        "choices": choice or None,
        "sampling": options.said(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            repetition_penalty=repetition_penalty,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            logit_bias=options.biases(logit_bias),
        ),
    }
    loaded = options.opened(model, dequantise, adapter)
    given = options.said(**given, speculate=options.speculation(speculate))
    engine = options.engine_for(loaded, cache, threads, rounding)
    watch = Watch(engine)
    if batch is not None:
        with live_progress(quiet=json) as progress:
            for made in run_batch(watch, lines, {**given, "seed": seed}, progress):
                print(_json(made), flush=True)
    else:
        sources: list[Any] = [Path(name) for name in prompts] if loaded.mel is not None else prompts
        tickets = [engine.submit(Request(prompt=one, seed=seed + i, **given)) for i, one in enumerate(sources)]
        if json:
            print(_json(*(watch.results(ticket) for ticket in tickets), speed=watch))
        else:
            apart = "\n" if loaded.config.kind == "seq2seq" else ""  # a target does not continue its source
            for source, ticket in zip(sources, tickets, strict=True):
                for texts in _texts(watch, ticket):
                    _show(f"{source}{apart}", texts)
    if verbose:
        sys.stdout.flush()  # where both go to one place, the text comes first
        print(watch, file=sys.stderr)


def _texts(watch: Watch, ticket: Ticket) -> Iterator[Iterator[str]]:
    """The continuations of one prompt; a single one as it comes."""
    if ticket.request.n == 1:
        yield (token.text for token in watch.tokens(ticket))
        watch.results(ticket)
    else:
        yield from (iter([made.text]) for made in watch.results(ticket))


def _json(*made: Sequence[Generation], speed: Watch | None = None) -> str:
    """One object for one text, a list for several; of one prompt alone also how fast it was."""
    objects = [asdict(one) for several in made for one in several]
    if len(objects) > 1 or speed is None:
        return json_format.dumps(objects if len(objects) > 1 else objects[0], ensure_ascii=False)
    return json_format.dumps({**objects[0], "speed": speed.to_json()}, ensure_ascii=False)


def _show(prompt: str, texts: Iterable[str]) -> None:
    """Write a prompt, dim, and its continuation as it comes; exactly these texts where the output is no terminal."""
    terminal = sys.stdout.isatty()
    sys.stdout.write(typer.style(harmless(prompt), dim=True) if terminal else prompt)
    sys.stdout.flush()
    for text in texts:
        sys.stdout.write(harmless(text) if terminal else text)
        sys.stdout.flush()
    sys.stdout.write("\n")
