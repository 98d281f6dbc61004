"""A model's weights by name, one after the other, so that of quantised ones no second copy is ever whole.

Shapes: R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from torch import Tensor, nn

from cutaway.errors import ConfigError, NonFinite, unknown
from cutaway.models import Model


def tensors_of(model: Model, names: str | Iterable[str] = "*") -> Iterator[tuple[str, Tensor]]:
    """Names and tensors, quantised ones dequantised; an output matrix that is the embedding comes once.

    Args:
        model: whose weights.
        names: patterns such as "layers.*.mlp.*"; "*" is all of them.

    Raises:
        ConfigError: a pattern that selects nothing, once all names are known.
        NonFinite: a weight is a NaN or an infinity; names its tensor.
    """
    patterns = [names] if isinstance(names, str) else list(names)
    unused, known = set(patterns), []
    tied = getattr(model.config, "tied", False) and getattr(model.config, "head", "causal_lm").endswith("_lm")
    for home, module in model.network.named_modules():
        own: dict[str, Tensor] = {}
        _state(module, own, f"{home}." if home else "")
        for name, tensor in own.items():
            if tied and name == "lm_head.weight":
                continue
            known.append(name)
            fitting = [pattern for pattern in patterns if fnmatchcase(name, pattern)]
            unused -= set(fitting)
            if fitting:
                if not tensor.isfinite().all():
                    raise NonFinite(f"{name} holds a NaN or an infinity; train again from the last good checkpoint")
                yield name, tensor.detach()
    if unused:
        raise ConfigError(unknown("weight", sorted(unused)[0], known))


def _state(module: nn.Module, into: dict[str, Tensor], prefix: str) -> None:
    """A module's own tensors as a checkpoint would hold them, without those of the modules inside it."""
    module._save_to_state_dict(into, prefix, True)


def is_matrix(tensor: Tensor) -> bool:
    """Whether it maps one space to another."""
    return tensor.ndim == 2 and min(tensor.shape) > 1
