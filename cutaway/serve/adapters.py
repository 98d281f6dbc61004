"""Adapters that are served: models of their own to whoever asks, beside the weights of a base that is there once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import ConfigError, unknown
from cutaway.generation import Engine
from cutaway.models import Encoder, Model
from cutaway.models.adapters import WEIGHTS, load_adapter
from cutaway.serve.settings import Settings
from cutaway.serve.sizes import Sizes

if TYPE_CHECKING:
    from cutaway.serve.models import Loaded

COPIES = 3  # of an adapter's numbers as float32: to compute with torch, and natively with their scale


@dataclass(frozen=True)
class Served:
    """An adapter that a request may name.

    Attributes:
        base: the name of the model that it stands on.
        folder: where it lies.
    """

    base: str
    folder: Path


def adapters_of(settings: Settings) -> dict[str, Served]:
    """Name -> adapter: FOLDER stands on the first model, FOLDER@BASE on the one called BASE.

    Raises:
        ConfigError: a base that is no model of this server.
    """
    made: dict[str, Served] = {}
    for name, text in settings.adapters.items():
        folder, mark, base = text.rpartition("@")
        if not mark or base not in settings.models:
            if mark and not Path(text).is_dir():
                raise ConfigError(unknown(f"base of the adapter {name}:", base, settings.models))
            folder, base = text, next(iter(settings.models))
        made[name] = Served(base, Path(folder))
    return made


def adapter_bytes(adapter: Served) -> int:
    """Bytes that an adapter takes, told from its file."""
    try:
        return COPIES * (adapter.folder / WEIGHTS).stat().st_size * 2  # it may be stored in half precision
    except OSError:
        return 0  # opening it says what is wrong


def open_adapter(
    name: str, adapter: Served, base: Loaded, options: Mapping[str, Any]
) -> tuple[Model, Engine, Sizes, str | None]:
    """An adapter beside a base that is loaded.

    Args:
        name: in requests.
        adapter: where it lies.
        base: what it stands on; in use until this has ended.
        options: of engines.

    Returns:
        The model, what computes it, what it takes, and by which name that engine knows it; None: by none, as the engine
        is its own: texts that are read whole need no pages, and the weights are the base's.
    """
    model = load_adapter(base.model, adapter.folder)
    model.source = name
    learned = sum(4 * COPIES * p.numel() for p in model.network.parameters() if p.requires_grad)
    if isinstance(model.network, Encoder) or getattr(model.config, "head", "causal_lm") != "causal_lm":
        return model, Engine(model, **options), Sizes(learned, 0, 0), None
    base.engine.add_adapter(name, model)
    apart = not base.engine.computes_beside(name)  # then it has pages of its own
    return model, base.engine, Sizes(learned, base.sizes.pages if apart else 0, 0), name
