"""Models, as /v1/models lists them."""

from __future__ import annotations

from typing import Literal

from cutaway.serve.schema.base import Told


class ModelCard(Told):
    """One model; an adapter has the model that it stands on as its parent."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "cutaway"
    parent: str | None = None


class ModelList(Told):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
