"""Who asks: keys, what each may do, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

SCOPES = ("infer", "metrics")


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: of the key; "" where no keys are asked for.
        tenant: what is computed for one tenant is never used for another.
        scopes: what it may do, of SCOPES.
    """

    name: str = ""
    tenant: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)


ANYONE = Caller()
