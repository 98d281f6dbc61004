"""What all requests share: nothing unknown is taken, and nothing is converted in silence."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

ModelName = Annotated[str, Field(min_length=1, max_length=200, description="A name that /v1/models lists.")]
User = (
    Annotated[
        str, Field(max_length=512, description="A label of yours for your user; it is not kept and changes nothing.")
    ]
    | None
)


class Asked(BaseModel):
    """A request's body: an unknown parameter, a number in quotes, NaN or infinity is an error that names it."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _no_number(value: Any) -> Any:
    """Pydantic takes 0 for false where the only value is false."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise PydanticCustomError("wrong_kind", "must be false")
    return value


Off = Annotated[Literal[False], BeforeValidator(_no_number)]  # a switch that can only be off


class Told(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="forbid")


class Fault(Told):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Failed(Told):
    """An error, as OpenAI shapes it."""

    error: Fault


class Usage(Told):
    """How many tokens a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ReadUsage(Told):
    """How many tokens were read, by a model that writes none."""

    prompt_tokens: int
    total_tokens: int


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: the errors that it answers with; where a body can be too large, all that it can be."""
    body = (408, 415) if 413 in statuses else ()
    return {
        status: {"model": Failed, "description": "an error"}
        for status in (400, 401, 403, 421, 429, 500, 503, *body, *statuses)
    }


# of a route that also answers with server-sent events
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "the answer, or its events"}
}
