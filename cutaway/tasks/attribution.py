"""By which methods of `interp` a task says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cutaway.errors import ConfigError


def attribution_by(method: str) -> Callable[..., Any]:
    """The function of a method of attribution; "" is occlusion.

    Raises:
        ConfigError: there is no such method; says which there are.
    """
    from cutaway.interp.attribution import gradient_x_input, integrated_gradients, occlusion

    methods = {"occlusion": occlusion, "integrated_gradients": integrated_gradients, "gradient": gradient_x_input}
    if (method or "occlusion") not in methods:
        raise ConfigError(f"why can be found by {', '.join(methods)}, but {method!r} was given")
    return methods[method or "occlusion"]
