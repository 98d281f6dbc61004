"""Continue a prompt: the engine, for whoever wants a text and nothing else.

A model keeps an engine of its own, which all calls share: what several threads ask for at the same time is computed
together, and a prompt that begins as an earlier one is not computed again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast, overload

from cutaway.errors import ConfigError, unknown
from cutaway.generation.engine import Engine
from cutaway.generation.request import Generation, Request, Token
from cutaway.generation.sampling import Sampling
from cutaway.models import Model
from cutaway.models.model import Source

SAMPLING = tuple(f.name for f in dataclasses.fields(Sampling) if f.name != "suppress")
OPTIONS = tuple(f.name for f in dataclasses.fields(Request) if f.name not in ("prompt", "sampling"))


def make_request(prompt: Source, **options: Any) -> Request:
    """A request of options by name: those of `Request`, and those of `Sampling`.

    Raises:
        ConfigError: an option that does not exist, or is out of range.
    """
    for name in options:
        if name not in OPTIONS and name not in SAMPLING:
            raise ConfigError(unknown("option", name, [*OPTIONS, *SAMPLING, "on_token"]))
    sampling = {name: options[name] for name in SAMPLING if name in options}
    return Request(prompt, sampling, **{name: value for name, value in options.items() if name in OPTIONS})


def engine_of(model: Model) -> Engine:
    """The model's own engine: made when it is first asked for, and anew when its weights have changed."""
    state = model.fingerprint()
    kept = model.engine
    if kept is None or kept[0] != state:
        model.engine = kept = state, Engine(model)
    return kept[1]


def stream(model: Model, prompt: Source, **options: Any) -> Iterator[Token]:
    """Continue a prompt, token by token; texts never hold half a character. Nothing is computed ahead of the reader.

    When a decoder's context is full, it goes on with the later half of what it has seen. An encoder–decoder writes a
    target to what the prompt says, its source, and ends where its positions end.

    What is left at None is as the checkpoint recommends (`model.generation`), where it does; else max_new_tokens is
    100, temperature 0.8 and the others change nothing. top_k 0, top_p 1 and min_p 0 switch a recommendation off.

    Args:
        model: what continues.
        prompt: text or ids; an empty one begins a new text. Of an encoder–decoder what `Model.source_ids` takes.
        options: those of `Sampling` (temperature, top_k, top_p, …) and of `Request` (max_new_tokens, stop, seed, …).

    Raises:
        ConfigError: an option that does not exist, is of the wrong type or out of range.
        InputError: the prompt is no text, holds an id outside the vocabulary, is longer than the context, or is empty
            though the model has no token that begins a text.
        NonFinite: the model computed a NaN or an infinity (while iterating).
    """
    ticket = engine_of(model).submit(make_request(prompt, **options), lazy=True)

    def tokens() -> Iterator[Token]:
        try:
            yield from ticket
        finally:
            ticket.cancel()

    return tokens()


@overload
def generate(
    model: Model, prompt: Source, *, on_token: Callable[[Token], None] | None = None, seed: int = 0, **options: Any
) -> Generation: ...
@overload
def generate(
    model: Model,
    prompt: list[str] | tuple[str, ...],
    *,
    on_token: Callable[[Token], None] | None = None,
    seed: int = 0,
    **options: Any,
) -> list[Generation]: ...
def generate(
    model: Model,
    prompt: Source | Sequence[str],
    *,
    on_token: Callable[[Token], None] | None = None,
    seed: int = 0,
    **options: Any,
) -> Generation | list[Generation]:
    """Continue one prompt, or several together: each of several gives the same tokens as it would alone.

    Args:
        model: what continues.
        prompt: text or ids, an empty one begins a new text; or a list of texts.
        on_token: called with each token as it comes.
        seed: the same seed and prompt give the same tokens; of several prompts, the i-th is drawn with seed + i.
        options: max_new_tokens, temperature and the others of `stream`. With n above 1 a list is given for a prompt.

    Raises:
        ConfigError: an option of the wrong type or out of range.
        InputError: the prompt is no text, holds an id outside the vocabulary, or is longer than the context.
        NonFinite: the model computed a NaN or an infinity.
    """
    several = isinstance(prompt, list | tuple) and bool(prompt) and isinstance(prompt[0], str)
    prompts = cast(Sequence[str], prompt) if several else [cast(Source, prompt)]
    requests = [make_request(one, seed=seed + i, **options) for i, one in enumerate(prompts)]
    engine = engine_of(model)
    tickets = []
    try:
        tickets += [engine.submit(request) for request in requests]
        for ticket in tickets:
            for token in ticket:
                if on_token is not None:
                    on_token(token)
        made = [ticket.results() for ticket in tickets]
    finally:
        for ticket in tickets:
            ticket.cancel()
    shown = [one if len(one) > 1 else one[0] for one in made]
    return shown if several else shown[0]  # pyright: ignore[reportReturnType]  # lists of n where n was asked for
