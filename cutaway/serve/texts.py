"""Texts that are read whole: what a request holds of them becomes ids, within the limits, and is read.

What each route has of its own is what it makes of the head's numbers. The steps before are the same: `needs` says
whether the model has the head, `framed` makes ids, `Work.read` reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from cutaway.models import Model
from cutaway.serve.errors import ApiError
from cutaway.serve.schema.base import ReadUsage
from cutaway.serve.server import Work
from cutaway.tokenizers.frame import frame

# that are tokenised at once, as it takes less time than handing them to a thread: characters, and so many for each text
SHORT, EACH = 4096, 64


@dataclass
class Framed:
    """Texts as a network reads them.

    Attributes:
        ids: of each, special tokens included.
        types: of each token, which of two texts it is of; None: there are no pairs.
    """

    ids: list[list[int]] = field(default_factory=list)
    types: list[list[int]] | None = None


def needs(model: Model, head: str, purpose: str) -> Any:
    """The config of a model that has this head.

    Args:
        model: the one that was asked.
        head: of config_parts.HEADS.
        purpose: what it is needed for, as the beginning of a sentence.

    Raises:
        ApiError: 400; it has another.
    """
    config: Any = model.config
    found = getattr(config, "head", None)
    if found != head:
        kind = {"seq2seq": "an encoder–decoder", "encoder": "an encoder", "decoder": "a decoder"}.get(config.kind)
        has = "without a head" if found in (None, "none") else f"with a head for {found}"
        raise ApiError(
            400,
            f"{purpose} needs a model with a head for {head}, but {model.source} is {kind or 'a recurrent network'} "
            f"{has}",
            code="model_not_suitable",
            param="model",
        )
    return config


async def framed(
    work: Work, texts: Sequence[str | Sequence[int]], param: str, *, beside: str | None = None, longest: int = 0
) -> Framed:
    """The ids of texts, with the special tokens around them; what is given as ids is taken as it is.

    Args:
        work: of the request.
        texts: what to read.
        param: where they stand in the request.
        beside: another text that each of them is read together with, before it.
        longest: most tokens of one; 0: the context.

    Raises:
        ApiError: 400; too many, too long (with both numbers), empty, or ids that are none.
    """
    settings, model = work.server.settings, work.loaded.model
    characters = sum(len(text) for text in texts if isinstance(text, str)) + len(beside or "")
    if len(texts) > settings.max_inputs:
        raise ApiError(
            400,
            f"{param} holds {len(texts):,} texts, but this server reads {settings.max_inputs:,} in a request; send "
            "them in parts",
            code="too_many_inputs",
            param=param,
        )
    if characters > settings.max_prompt:
        raise ApiError(
            400,
            f"{param} holds {characters:,} characters, but this server reads {settings.max_prompt:,} in a request; "
            "send them in parts",
            code="string_above_max_length",
            param=param,
        )

    def make() -> Framed:
        return _frame(model, texts, param, beside, longest or model.config.context)

    size = sum(EACH + len(text) for text in texts) + len(beside or "")
    # a pair has the one text again in every row
    return make() if size * (1 if beside is None else 2) < SHORT else await work.attended(_aside(work, make))


async def _aside(work: Work, make: Any) -> Framed:
    return await work.server.bridge.aside(make)


def _frame(model: Model, texts: Sequence[str | Sequence[int]], param: str, beside: str | None, longest: int) -> Framed:
    tokenizer, made = model.tokenizer, Framed(types=None if beside is None else [])
    first = None if beside is None else tokenizer.encode(beside)
    for number, text in enumerate(texts):
        if isinstance(text, str):
            ids = tokenizer.encode(text)
            ids, types = frame(tokenizer, ids) if first is None else frame(tokenizer, first, ids)
            if made.types is not None:
                made.types.append(types)
        else:
            ids = list(text)
            if (wrong := max(ids, default=0)) >= model.config.vocab_size:
                raise ApiError(
                    400,
                    f"text {number} of {param} holds the token {wrong}, but this model has {model.config.vocab_size:,}",
                    code="invalid_value",
                    param=param,
                )
        if not ids:
            raise ApiError(400, f"text {number} of {param} is empty", code="invalid_value", param=param)
        if len(ids) > longest:
            pair = " together with the query" if beside is not None else ""
            raise ApiError(
                400,
                f"text {number} of {param} has {len(ids):,} tokens{pair}, but this model reads {longest:,} at once; "
                "shorten or split it",
                code="context_length_exceeded",
                param=param,
            )
        made.ids.append(ids)
    return made


def usage(work: Work) -> ReadUsage:
    """How many tokens were read for a request."""
    return ReadUsage(prompt_tokens=work.prompt_tokens, total_tokens=work.prompt_tokens)


def told(body: BaseModel, **options: Any) -> Response:
    """An answer as JSON, written once and not checked anew: there may be millions of numbers in it."""
    return Response(body.model_dump_json(**options), media_type="application/json")


def as_list(given: str | Sequence[Any]) -> list[Any]:
    """What may be one text, several, the ids of one or of several: as a list of texts or ids."""
    one = isinstance(given, str) or (len(given) > 0 and isinstance(given[0], int))
    return [given] if one else list(given)
