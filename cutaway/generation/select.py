"""Which backend computes a model, and why."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from cutaway.errors import ConfigError, unknown
from cutaway.generation.backend import Backend
from cutaway.generation.torch_backend import TorchBackend
from cutaway.models import OFF, ActiveTap, Model, Tap

NATIVE = "cutaway.generation.native"
BACKENDS = ("auto", "native", "torch")
FOR_TORCH, FOR_NATIVE = ("together",), ("threads", "rounding")


def choose_backend(model: Model, kind: str = "auto", *, cache: str = "auto", **options: Any) -> Backend:
    """What computes a model: the native kernels where they can, else torch.

    Args:
        model: what is computed.
        kind: "auto", "native" or "torch".
        cache: how keys and values are kept.
        options: of the native backend (threads, rounding) or of torch's (together); those of the other are left out.

    Raises:
        ConfigError: another kind or option, or native kernels that cannot compute this model; says why.
    """
    if kind not in BACKENDS:
        raise ConfigError(unknown("backend", kind, BACKENDS))
    for name in options.keys() - {*FOR_TORCH, *FOR_NATIVE}:
        raise ConfigError(unknown("option of a backend", name, (*FOR_TORCH, *FOR_NATIVE)))
    reason = "it was asked for" if kind == "torch" else why_not_native(model)
    if reason is None:
        native = import_module(f"{NATIVE}.backend")
        given = {name: value for name, value in options.items() if name in FOR_NATIVE}
        return native.NativeBackend(model.network, cache=cache, **given)
    if kind == "native":
        raise ConfigError(f"the native kernels cannot compute {model.source or 'this model'}: {reason}")
    return TorchBackend(model.network, reason, cache=cache, together=options.get("together"))


def why_not_native(model: Model) -> str | None:
    """Why the native kernels cannot compute a model; None: they can."""
    try:
        native = import_module(f"{NATIVE}.plan")
    except ModuleNotFoundError:
        return "this installation has no native kernels"
    return native.supported(model.network)


def records(backend: Backend, tap: Tap) -> bool:
    """Whether a backend can show a tap what it asks for."""
    if tap is OFF or isinstance(backend, TorchBackend):
        return True
    names = getattr(backend, "tap_names", None)
    # a tap of another make may do anything
    return names is not None and type(tap) is ActiveTap and not tap.replacements and tap.keep <= set(names())
