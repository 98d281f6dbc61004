"""Small frozen configs from plain data: unknown keys get near matches, wrong types get named, nothing is dropped."""

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from cutaway.errors import ConfigError, unknown

Config = TypeVar("Config")


def build(cls: type[Config], values: Mapping[str, Any], *, where: str = "") -> Config:
    """Make the frozen dataclass `cls` from a mapping, checking every key and type.

    Args:
        cls: the dataclass.
        values: key -> value as JSON or the command line gives them. An int is accepted where a float is asked for.
        where: what to call the source in a message, such as a file's name.

    Raises:
        ConfigError: an unknown key, a missing one, or a value of the wrong type.
    """
    origin = f" in {where}" if where else ""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{cls.__name__}{origin} must be a table of keys and values, but {values!r} was given")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # pyright: ignore[reportArgumentType]
    for key in values:
        if key not in fields:
            raise ConfigError(unknown(f"{cls.__name__} key{origin}", str(key), fields))
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{cls.__name__}{origin} needs a value for {', '.join(missing)}")
    return cls(**{key: _fit(value, hints[key], f"{key}{origin}") for key, value in values.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain data, fields in order; `build(type(config), to_dict(config)) == config`."""
    return dataclasses.asdict(config)


def _fit(value: Any, hint: Any, name: str) -> Any:
    """`value` as the type `hint`, or ConfigError naming what was given and expected."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, but {value!r} was given")
    if origin in (typing.Union, types.UnionType):
        for choice in args:
            try:
                return _fit(value, choice, name)
            except ConfigError:
                continue
    elif origin is typing.Literal:
        if value in args and type(value) in {type(a) for a in args}:
            return value
        raise ConfigError(unknown(f"value for {name}:", str(value), map(str, args)))
    elif origin in (tuple, list):
        inner = args[0] if args else Any
        if isinstance(value, list | tuple):
            return origin(_fit(v, inner, name) for v in value)
    elif origin is dict or hint is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif hint is Any:
        return value
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return build(hint, value, where=name)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) > sys.float_info.max:  # an int may be larger than any float
            raise ConfigError(f"{name} must be a finite number, but {value!r} was given")
        return float(value)
    elif hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif hint in (str, bool, type(None)) and isinstance(value, hint):
        return value
    expected = getattr(hint, "__name__", str(hint).replace("typing.", ""))
    raise ConfigError(f"{name} must be {expected}, but {value!r} ({type(value).__name__}) was given")
