"""What the actions of `cutaway task` share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from cutaway.errors import ConfigError
from cutaway.training.config import parse_settings

Base = Annotated[
    str, typer.Option(metavar="MODEL", help="Of an adapter, where the model that it stands on lies now. [as recorded]")
]


def roles_of(words: Iterable[str] | None) -> dict[str, str]:
    """ROLE=COLUMN words as a mapping.

    Raises:
        ConfigError: a word without "=".
    """
    found = {}
    for word in words or []:
        role, equals, column = word.partition("=")
        if not equals or not role or not column:
            raise ConfigError(f"a column is given as role=name, such as text=review, but {word!r} was given")
        found[role] = column
    return found


def settings_of(words: Iterable[str] | None) -> dict[str, object]:
    """key=value words as settings; a dot leads into a table."""
    return parse_settings(words or [])


def table_or_share(given: str) -> str | float:
    """A share of the examples, or the path of a table."""
    try:
        return float(given)
    except ValueError:
        return given
