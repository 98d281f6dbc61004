"""From what is asked to the engine's options, within what the server's settings allow."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from cutaway.errors import CutawayError
from cutaway.models import Model
from cutaway.serve.errors import ApiError, as_api_error
from cutaway.serve.schema.generating import Generating
from cutaway.serve.settings import Settings

SEEDS = 2**63
FORMS = ("JSON Schema", "regular expression", "grammar", "choice", "a form", "its form", "tool", "spell a text")
LEAST_TOP_P = 1e-9  # the likeliest token alone


def refuse(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """A parameter that is not within bounds."""
    return ApiError(400, f"{param} {message}", code=code, param=param)


def options(asked: Generating, settings: Settings, model: Model) -> dict[str, Any]:
    """What `make_request` takes, but for the prompt, the number of tokens and log-probabilities.

    Args:
        asked: the request.
        settings: limits.
        model: whose tokens are biased.

    Raises:
        ApiError: 400; a parameter is beyond the settings, or stands with one that it does not fit.
    """
    if asked.stream_options is not None and not asked.stream:
        raise refuse("stream_options", "is for streams; give stream: true too, or leave it out")
    found: dict[str, Any] = {
        "n": check_n(asked, settings),
        "stop": _stops(asked.stops, settings),
        "seed": secrets.randbelow(SEEDS) if asked.seed is None else asked.seed % SEEDS,
        "logit_bias": _bias(asked.logit_bias, settings, model),
        "top_p": None if asked.top_p is None else max(asked.top_p, LEAST_TOP_P),
        "top_k": None if asked.top_k is None else max(asked.top_k, 0),
    }
    for name in (
        "temperature",
        "min_p",
        "typical_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
    ):
        found[name] = getattr(asked, name)
    if asked.structured_outputs is not None:
        form = asked.structured_outputs.form
        if len(form) != 1:
            raise refuse("structured_outputs", f"must say exactly one of json, regex, choice, grammar, not {len(form)}")
        found |= form
    return {name: value for name, value in found.items() if value is not None}


def check_n(asked: Generating, settings: Settings) -> int:
    """How many continuations of a prompt are wanted.

    Raises:
        ApiError: 400; more than one may.
    """
    n = asked.n or 1
    if n > settings.max_n:
        raise refuse("n", f"may be at most {settings.max_n} here, but {n} was given")
    return n


def _stops(stops: Sequence[str] | None, settings: Settings) -> Sequence[str] | None:
    if stops is None:
        return None
    if len(stops) > settings.max_stops:
        raise refuse("stop", f"may hold at most {settings.max_stops} texts here, but {len(stops)} were given")
    if "" in stops:
        raise refuse("stop", "holds an empty text, which would stop at once; leave it out or give some text")
    if (longest := max(map(len, stops), default=0)) > settings.max_stop:
        raise refuse("stop", f"may hold texts of at most {settings.max_stop} characters here, but one has {longest:,}")
    return list(stops)


def _bias(bias: Mapping[str, float] | None, settings: Settings, model: Model) -> dict[int, float] | None:
    if not bias:
        return None
    if len(bias) > settings.max_bias:
        raise refuse("logit_bias", f"may name at most {settings.max_bias} tokens here, but {len(bias):,} were given")
    found = {int(id): value for id, value in bias.items()}
    size = model.config.vocab_size
    if max(found) >= size:
        raise refuse("logit_bias", f"must name tokens in 0 … {size - 1} of this model, not {max(found)}")
    return found


def context_of(model: Model) -> int | None:
    """Tokens that a model which continues texts sees at once; None: any number, or it reads its prompt apart."""
    return model.config.context if model.config.kind == "decoder" else None


def check_room(model: Model, prompt: int, count: int, param: str) -> None:
    """Refuse a prompt that leaves no room for so many more tokens.

    Raises:
        ApiError: 400, with all the numbers.
    """
    context = context_of(model)
    if context is None or prompt + count <= context:
        return
    if prompt >= context:
        found = f"the prompt has {prompt:,} tokens, but this model's context is {context:,}; shorten it"
    else:
        found = (
            f"the prompt has {prompt:,} tokens and may be continued by {count:,}, but this model's context is "
            f"{context:,}; shorten it, or ask for fewer"
        )
    raise ApiError(400, found, code="context_length_exceeded", param=param)


def check_count(written: int, settings: Settings, param: str) -> None:
    """Refuse a request that may write more tokens than one may.

    Raises:
        ApiError: 400.
    """
    if written > settings.max_tokens:
        raise refuse(
            param,
            f"asks for up to {written:,} tokens over all continuations, but a request may have {settings.max_tokens:,}",
        )


def blamed(error: CutawayError, prompt: str, form: str | None) -> ApiError:
    """What the engine refused, with the parameter that is to blame.

    Args:
        error: of the engine.
        prompt: the parameter that holds the prompt.
        form: the one that says what the answer must be, if any.
    """
    made, text = as_api_error(error), str(error)
    if made.status != 400 or made.param:
        return made
    if "needs a model that" in text or "has no chat template" in text:
        made.param = "model"
    elif form is not None and any(word in text for word in FORMS):
        made.param = form
    else:
        made.param = prompt
    return made
