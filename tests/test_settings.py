"""Configs from plain data."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from cutaway.errors import ConfigError
from cutaway.settings import build, to_dict


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Example:
    name: str
    rate: float = 0.5
    steps: int | None = None
    kind: Literal["a", "b"] = "a"
    pairs: tuple[float, ...] = (1.0,)
    inner: Inner = Inner()
    on: bool = False


def test_round_trip():
    value = Example("x", 1.0, 3, "b", (1.0, 2.0), Inner(4), True)
    assert build(Example, to_dict(value)) == value


def test_an_int_is_a_float_where_a_float_is_asked_for():
    made = build(Example, {"name": "x", "rate": 1})
    assert made.rate == 1.0
    assert isinstance(made.rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x", "rat": 1}, "unknown Example key 'rat'; did you mean rate"),
        ({}, "needs a value for name"),
        ({"name": 3}, "name must be str, but 3 .int. was given"),
        ({"name": "x", "steps": 1.5}, "steps must be"),
        ({"name": "x", "steps": True}, "steps must be"),
        ({"name": "x", "kind": "c"}, "unknown value for kind"),
        ({"name": "x", "pairs": [1, "b"]}, "pairs must be float, but 'b'"),
        ({"name": "x", "inner": {"dept": 2}}, "did you mean depth"),
        ({"name": "x", "on": 1}, "on must be bool"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        build(Example, values)


def test_the_source_is_named():
    with pytest.raises(ConfigError, match=r"in run/config\.json"):
        build(Example, {"nam": 1}, where="run/config.json")
