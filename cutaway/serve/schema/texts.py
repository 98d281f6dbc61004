"""Texts in a request: one or several, as text or as token ids."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

Id = Annotated[int, Field(ge=0, lt=2**31)]
Ids = Annotated[list[Id], Field(fail_fast=True, min_length=1)]  # else a million wrong entries are a million errors


def wanted(message: str) -> WrapValidator:
    """One error instead of one for each kind that a value might have been."""

    def check(given: Any, as_any: Any) -> Any:
        try:
            return as_any(given)
        except ValidationError:
            raise PydanticCustomError("wrong_kind", message) from None  # pyright: ignore[reportArgumentType]

    return WrapValidator(check)


Texts = Annotated[
    str
    | Annotated[list[str], Field(fail_fast=True, min_length=1)]
    | Ids
    | Annotated[list[Ids], Field(fail_fast=True, min_length=1)],
    wanted("must be a text, a list of texts, the token ids of a text, or a list of these, none of them empty"),
    Field(description="One text or several, each as text or as the ids of all its tokens. At most `max_inputs`."),
]
