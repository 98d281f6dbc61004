"""`cutaway generate --batch`: many prompts from a file of JSON lines, computed together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cutaway.cli._options import decoded
from cutaway.cli._speed import Watch
from cutaway.errors import CutawayError, InputError, unknown
from cutaway.generation import Sampling
from cutaway.generation.request import Generation, Request
from cutaway.progress import OnProgress, Progress
from cutaway.tokenizers.chat import chat_ids

CHOOSING = [field.name for field in dataclasses.fields(Sampling) if field.name not in ("suppress", "logit_bias")]
OWN = ("max_new_tokens", "stop", "seed")


def read_batch(file: Path) -> list[dict[str, Any]]:
    """The lines of a file: each an object with "prompt" (text or ids) or "messages", and options of its own; or a text.

    Raises:
        InputError: a line that is not that, with its number.
    """
    lines = []
    for number, data in enumerate(file.read_bytes().splitlines(), 1):
        where = f"line {number} of {file}"
        text = decoded(data, where)
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise InputError(f"{where} is no JSON: {error}") from error
        line = {"prompt": line} if isinstance(line, str) else line
        if not isinstance(line, dict) or ("prompt" in line) == ("messages" in line):
            raise InputError(f'{where} must be a text, or an object with either "prompt" or "messages"')
        prompt = line.get("prompt", "")
        if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(type(id) is int for id in prompt)):
            raise InputError(f"{where}: the prompt must be text or token ids")
        for name in line.keys() - {"prompt", "messages", *OWN, *CHOOSING}:
            raise InputError(f"{where}: {unknown('key', name, ('prompt', 'messages', *OWN, *CHOOSING))}")
        lines.append({**line, "where": where})
    if not lines:
        raise InputError(f"{file} holds no prompts; write one a line, as JSON")
    return lines


def run_batch(
    watch: Watch, lines: list[dict[str, Any]], given: Mapping[str, Any], progress: OnProgress | None
) -> Iterator[list[Generation]]:
    """Continue all lines together; what each gave, in the order of the lines, as soon as it and those before are done.

    Args:
        watch: of the engine that generates.
        lines: of `read_batch`.
        given: of `Request`, for lines that say nothing else; the i-th line is drawn with seed + i.
        progress: told of tokens and finished lines.

    Raises:
        InputError: a line that the engine refuses, with its number, before any is computed.
    """
    tickets, engine = [], watch.engine
    for number, line in enumerate(lines):
        own = {name: line[name] for name in OWN if line.get(name) is not None}
        sampling = {name: line[name] for name in CHOOSING if line.get(name) is not None}
        options = {**given, "seed": given.get("seed", 0) + number, **own}
        options["sampling"] = {**given.get("sampling", {}), **sampling}
        try:
            prompt = line["prompt"] if "prompt" in line else chat_ids(engine.model, line["messages"])
            tickets.append(engine.submit(Request(prompt=prompt, **options)))
        except CutawayError as error:
            raise InputError(f"{line['where']}: {error}") from error
    done, waiting = 0, iter(tickets)
    head = next(waiting, None)
    while head is not None:
        busy = engine.step()
        while head is not None and head.done:
            done += 1
            yield watch.results(head)
            head = next(waiting, None)
        assert busy or head is None, "a request was forgotten"
        if progress is not None:
            speed = f"{watch.to_json()['tokens_per_s']:.0f}"
            progress(Progress("generating", done, len(lines), "prompts", {"tokens/s": speed}))
