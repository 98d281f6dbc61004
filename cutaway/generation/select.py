"""Which backend computes a model, and why."""

from __future__ import annotations

from typing import Any, cast

from cutaway.errors import ConfigError, unknown
from cutaway.generation.backend import Backend
from cutaway.generation.native.library import available
from cutaway.generation.torch_backend import TorchBackend
from cutaway.models import ActiveTap, Model, Tap

BACKENDS = ("auto", "native", "torch")
FOR_TORCH, FOR_NATIVE = ("together",), ("threads", "rounding")


def choose_backend(
    model: Model, kind: str = "auto", *, cache: str = "auto", share: Backend | None = None, **options: Any
) -> Backend:
    """What computes a model: the native kernels where they can, else torch.

    Args:
        model: what is computed.
        kind: "auto", "native" or "torch".
        cache: how keys and values are kept.
        share: computes a model that shares tensors with this one: what is packed for it is not packed again.
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
        from cutaway.generation.native.backend import NativeBackend

        given = {name: value for name, value in options.items() if name in FOR_NATIVE}
        like = share if isinstance(share, NativeBackend) else None
        return NativeBackend(model.network, cache=cast(Any, cache), share=like, **given)
    if kind == "native":
        raise ConfigError(f"the native kernels cannot compute {model.source or 'this model'}: {reason}")
    return TorchBackend(model.network, reason, cache=cache, together=options.get("together"))


def why_not_native(model: Model) -> str | None:
    """Why the native kernels cannot compute a model; None: they can."""
    there, reason = available()
    if not there:
        return reason
    from cutaway.generation.native.plan import supported

    return supported(model.network)


def records(backend: Backend, tap: Tap) -> bool:
    """Whether a backend can show a tap what it asks for."""
    if isinstance(backend, TorchBackend):
        return True
    # a tap of another make may do anything, and what must be formed has gradients
    return type(tap) is ActiveTap and not tap.replacements and not tap.formed
