"""Which column of a user's file plays which role: as told, else by its usual name, else by what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.tasks.task import Role

FEW = 20  # values, of which nothing can be known


def find_columns(
    names: Sequence[str],
    roles: Sequence[Role],
    told: Mapping[str, str],
    where: str,
    *,
    answered: bool = True,
    sample: Sequence[Mapping[str, Any]] = (),
) -> dict[str, str]:
    """Role -> column.

    Args:
        names: of the columns.
        roles: what is looked for.
        told: role -> column, as the user says.
        where: the file, for messages.
        answered: whether the truth is needed.
        sample: some rows, by which the labels are known where no name tells them; (): names alone are looked at.

    Raises:
        ConfigError: no such role or column.
        InputError: a needed role has no column; says which there are and how to name one.
    """
    known = {role.name for role in roles}
    if strange := [name for name in told if name not in known]:
        raise ConfigError(unknown("role of a column", strange[0], known))
    found: dict[str, str] = {}
    for role, column in told.items():
        if column not in names:
            raise ConfigError(f"{where} lacks what was named for {role}: {unknown('column', column, names)}")
        if other := next((known for known, one in found.items() if one == column), ""):
            raise ConfigError(
                f"the column {column!r} of {where} was given for {other} and for {role}; each has its own"
            )
        found[role] = column
    free = {name.strip().lower(): name for name in reversed(names) if name not in found.values()}
    for role in roles:
        if role.name in found:
            continue
        usual = next((name for name in (role.name, *role.usual) if name in free), None)
        if usual is not None:
            found[role.name] = free.pop(usual)
    left = [role for role in roles if role.needed and role.name not in found and (answered or not role.answer)]
    if len(left) == 1 and len(free) == 1:  # nothing else can be meant
        found[left.pop().name] = free.popitem()[1]
    hint = ""
    if len(left) == 1 and left[0].answer:
        repeated = [name for name in names if name in free.values() and _repeats([row.get(name) for row in sample])]
        if len(repeated) == 1:
            found[left.pop().name] = repeated[0]
        elif repeated:
            hint = f" (by what they hold: {' or '.join(repeated)})"
    if left:
        raise InputError(
            f"{where} has the columns {', '.join(names)}; which of them is {left[0].what}?{hint} Say it with "
            f"--column {left[0].name}=NAME"
        )
    return found


def _repeats(values: Sequence[Any]) -> bool:
    """Whether values are like labels: several, each of which comes often."""
    known = [str(value) for value in values if value not in (None, "")]
    return len(known) >= FEW and 2 <= len(set(known)) <= len(known) / 5


def pick(values: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Role -> what stands in its column."""
    return {role: values.get(column) for role, column in columns.items()}
