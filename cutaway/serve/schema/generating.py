"""What completions and chat completions share: how an answer is written, and when it ends.

Ranges that a server's settings narrow further are checked in `generating.py` beside the routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from cutaway.serve.schema.base import Asked, ModelName, Off, Told, User

LARGEST = 2**31 - 1  # whole numbers have a bound, whatever they count
Name = ModelName
Label = Annotated[str, Field(max_length=512)]


def at_most(most: int) -> BeforeValidator:
    """Refuse more entries than that before any of them is looked at."""

    def check(value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > most:
            raise PydanticCustomError("too_many", "may have at most {most} entries", {"most": most})
        return value

    return BeforeValidator(check)


def _text_or_list(value: Any) -> str | None:
    return "several" if isinstance(value, list) else "one" if isinstance(value, str) else None


# of a text, or a list: an error is about the one of them that was sent
TEXT_OR_LIST = Discriminator(
    _text_or_list, custom_error_type="wrong_kind", custom_error_message="must be text or a list"
)
Stop = Annotated[
    Annotated[str, Tag("one")] | Annotated[list[str], Field(fail_fast=True, max_length=1024), Tag("several")],
    TEXT_OR_LIST,
]
Bias = Annotated[
    dict[Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=4096),
    at_most(4096),
]


class StreamOptions(Asked):
    """How a stream ends."""

    include_usage: bool = Field(False, description="A last event tells the usage; all others say `usage: null`.")
    include_obfuscation: Off | None = None


class StructuredOutputs(Asked):
    """What an answer must be: exactly one of these."""

    json_: dict[str, Any] | Annotated[str, Field(max_length=262_144)] | None = Field(
        None, alias="json", description="A JSON Schema: the answer is JSON that it allows."
    )
    regex: Annotated[str, Field(min_length=1, max_length=262_144)] | None = Field(
        None, description="The whole answer matches this regular expression (Rust's regex crate, no look-around)."
    )
    choice: (
        Annotated[list[Annotated[str, Field(min_length=1)]], Field(fail_fast=True, min_length=1, max_length=10_000)]
        | None
    ) = Field(None, description="The answer is one of these.")
    grammar: Annotated[str, Field(min_length=1, max_length=262_144)] | None = Field(
        None, description="The answer is of this grammar, in the syntax of Lark, beginning with the rule `start`."
    )

    @property
    def form(self) -> dict[str, Any]:
        """As options of the engine."""
        found = {"schema": self.json_, "regex": self.regex, "choices": self.choice, "grammar": self.grammar}
        return {name: value for name, value in found.items() if value is not None}


class Generating(Asked):
    """What both kinds of request may ask."""

    model: ModelName
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None,
        description="Divides the logits; 0 takes the likeliest token. Default: as the checkpoint recommends, or 0.8.",
    )
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="Draw among the likeliest tokens that together reach this share. "
        "Default: as the checkpoint recommends, or all.",
    )
    n: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="Continuations of each prompt. Default: 1. At most `max_n` of the server (16)."
    )
    stop: Stop | None = Field(
        None,
        description="End before any of these texts. Default: as the checkpoint recommends. At most `max_stops` (16) "
        "of `max_stop` (256) characters.",
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = Field(
        None,
        description="The same request with the same seed gives the same tokens, whatever else the server does. "
        "Default: another one each time. Seeds that differ by 2^63 are the same.",
    )
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(
        None, description="Taken off the logit of every token that was written. Default: 0."
    )
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(
        None, description="Taken off a token's logit each time that it was written. Default: 0."
    )
    logit_bias: Bias | None = Field(
        None, description="Token id → what is added to its logit. At most `max_bias` (1024) entries."
    )
    stream: bool | None = Field(
        None, description="Send the answer as server-sent events while it is written. Default: false."
    )
    stream_options: StreamOptions | None = Field(None, description="Only with `stream: true`.")
    user: User = None
    top_k: Annotated[int, Field(ge=-1, le=LARGEST)] | None = Field(
        None, description="Draw among so many likeliest tokens; 0 and -1: all. Default: as the checkpoint recommends."
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Draw among tokens at least this share as likely as the likeliest. Default: 0."
    )
    typical_p: Annotated[float, Field(gt=1e-6, le=1)] | None = Field(
        None, description="Draw among the most typical tokens that together reach this share. Default: 1."
    )
    repetition_penalty: Annotated[float, Field(gt=1e-6, le=1e6)] | None = Field(
        None,
        description="Above 1, tokens of prompt and answer become less likely. "
        "Default: as the checkpoint recommends, or 1.",
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="What the answer must be; exactly one of its entries."
    )
    return_token_ids: bool | None = Field(
        None, description="Tell `token_ids` of each choice, and `prompt_token_ids`. Default: false."
    )

    @property
    def stops(self) -> Sequence[str] | None:
        """The stop strings, if any were given."""
        return [self.stop] if isinstance(self.stop, str) else self.stop


class TokenIds(Told):
    """The ids of a choice, where they were asked for."""

    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
